"""Which rows of `schema.sql` follow from one event. Pure; called by the runtime for every own event, in log order.

A rung that is tried has a deadline: its owner may be away for longer than a customer can wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from libs.runtime.service import Row, deadline, no_deadline, wish
from proto.base import Heard
from proto.failover.commands import GiveUpRung
from proto.failover.events import (
    CpuStandbyNoted,
    CpuStandbySucceeded,
    FailoverCompleted,
    FailoverFailed,
    FailoverStarted,
    GuardClosed,
    MachineSettingsUpdated,
    PoolNoted,
    RungClaimed,
    RungFailed,
    RungSkipped,
    RungTried,
    SettingsUpdated,
    SnapshotNoted,
    VolumeNoted,
)

GIVE_UP = "give_up_rung"
# Whoever owns the rung gives up first and says so; this deadline is for an owner that says nothing.
ANSWER_GRACE = timedelta(seconds=30)


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one event; nothing for events of no interest."""
    match heard.event:
        case FailoverStarted() | RungTried() | RungClaimed() | RungSkipped() | RungFailed():
            yield from _project_climb(heard)
        case FailoverCompleted() | FailoverFailed():
            yield from _project_end(heard)
        case PoolNoted() as event:
            yield _guard(heard, account_id=event.account_id, pool=event.pool)
        case CpuStandbyNoted() as event:
            yield _guard(heard, account_id=event.account_id, cpu_machine_id=event.machine_id)
        case VolumeNoted() as event:
            yield _guard(heard, account_id=event.account_id, volume_id=event.volume_id)
        case CpuStandbySucceeded():
            yield _guard(heard, cpu_machine_id="")
        case SnapshotNoted() as event:
            yield _guard(heard, account_id=event.account_id, has_snapshot=True)
        case MachineSettingsUpdated() as event:
            yield _guard(heard, account_id=event.account_id, settings=event.settings)
        case GuardClosed():
            yield _guard(heard, closed=True)
        case SettingsUpdated() as event:
            yield Row("settings", {"account_id": event.account_id}, {"settings": event.settings})
        case _:
            return


def _failover(failover_id: str, **columns: Any) -> Row:
    return Row("failovers", {"failover_id": failover_id}, columns)


def _guard(heard: Heard, **columns: Any) -> Row:
    return Row("guards", {"instance_id": heard.aggregate_id}, columns)


def _project_climb(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case FailoverStarted() as event:
            yield _failover(
                event.failover_id,
                instance_id=event.instance_id,
                account_id=event.account_id,
                status="in_progress",
                phase="detecting",
                strategy=event.strategy,
                reason=event.reason,
                test=event.test,
                original_machine_id=event.machine_id,
                started_at=event.started_at,
                counts=False,
            )
            yield _guard(heard, account_id=event.account_id)
        case RungTried() as event:
            phase = f"{event.rung}_check"
            yield _failover(event.failover_id, phase=phase, strategy_attempted=event.rung, counts=True)
            due_at = event.give_up_at + ANSWER_GRACE
            about = {"instance_id": event.instance_id, "failover_id": event.failover_id, "rung": event.rung}
            yield deadline(heard.aggregate_id, GIVE_UP, due_at, wish(GiveUpRung, **about, due_at=due_at))
        case RungClaimed() as event:
            phase = "snapshot_restore" if event.rung == "cloud_storage" else f"{event.rung}_failover"
            yield _failover(event.failover_id, phase=phase, machine_id=event.machine_id)
        case RungSkipped() | RungFailed():
            yield no_deadline(heard.aggregate_id, GIVE_UP)
        case _:
            return


def _project_end(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case FailoverCompleted() as event:
            yield _failover(
                event.failover_id,
                status="succeeded",
                phase="completed",
                strategy_succeeded=event.strategy,
                machine_id=event.machine_id,
                ended_at=event.completed_at,
                total_ms=event.total_ms,
                data_loss_window_s=event.data_loss_window_s,
                attempts=event.attempts,
                phases=event.phases,
            )
        case FailoverFailed() as event:
            yield _failover(
                event.failover_id,
                status="failed",
                phase="failed",
                machine_id="",
                ended_at=event.failed_at,
                total_ms=event.total_ms,
                error=event.error,
                attempts=event.attempts,
                phases=event.phases,
            )
        case _:
            return
    yield no_deadline(heard.aggregate_id, GIVE_UP)
