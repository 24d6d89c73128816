"""Which rows of `schema.sql` follow from one event. Pure; called by the runtime for every own event, in log order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libs.runtime.service import Row, deadline, no_deadline, wish
from proto.base import Heard
from proto.warmpool.commands import RetryStandby
from proto.warmpool.events import (
    PoolAdjusted,
    PoolDegraded,
    PoolDisabled,
    PoolProvisioned,
    PoolRequested,
    PrimarySeen,
    StandbyClaimed,
    StandbyReleased,
    StandbyWanted,
)

RETRY = "retry_standby"
NO_STANDBY = {"standby_machine_id": "", "standby_state": "none"}


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one event; nothing for events of no interest."""
    match heard.event:
        case PoolRequested() as event:
            yield _pool(
                heard,
                account_id=event.account_id,
                status="searching",
                mode=event.mode,
                host_id=event.host_id,
                primary_machine_id=event.primary_machine_id,
                error="",
            )
        case PoolAdjusted() as event:
            yield _pool(heard, mode=event.mode)
        case PrimarySeen() as event:
            moved = {"primary_machine_id": event.machine_id, "host_id": event.host_id, **NO_STANDBY}
            if not event.swapped:
                yield _pool(heard, status="searching", **moved)
                return
            yield _pool(heard, status="recovering", last_failover_at=event.seen_at, **moved)
            yield Row("swaps", {"event_id": heard.event_id}, {"instance_id": event.instance_id})
        case StandbyWanted() as event:
            status = "recovering" if event.is_replacement else "provisioning"
            standby = {"standby_machine_id": event.machine_id, "standby_state": "starting"}
            yield _pool(heard, status=status, error="", retry_at=None, **standby)
            yield no_deadline(heard.aggregate_id, RETRY)
        case _:
            yield from _project_standby(heard)


def _project_standby(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case PoolProvisioned() as event:
            standby_state = "running" if event.mode == "hot" else "stopped"
            yield _pool(heard, status="active", volume_id=event.volume_id, standby_state=standby_state)
        case StandbyReleased():
            yield _pool(heard, **NO_STANDBY)
        case StandbyClaimed():
            yield _pool(heard, status="failover", standby_state="starting")
        case PoolDegraded() as event:
            error = f"{event.reason}: {event.detail}" if event.detail else event.reason
            yield _pool(heard, status="degraded", error=error, retry_at=event.retry_at, **NO_STANDBY)
            if event.retry_at is None:
                yield no_deadline(heard.aggregate_id, RETRY)
            else:
                again = wish(RetryStandby, instance_id=event.instance_id)
                yield deadline(heard.aggregate_id, RETRY, event.retry_at, again)
        case PoolDisabled():
            yield _pool(heard, status="disabled", error="", retry_at=None, **NO_STANDBY)
            yield no_deadline(heard.aggregate_id, RETRY)
        case _:
            return  # an answer without a standby changes nothing of the pool


def _pool(heard: Heard, **columns: Any) -> Row:
    return Row("pools", {"instance_id": heard.aggregate_id}, {"changed_at": heard.at, **columns})
