"""What is remembered of one pool, and how its facts fold. Used by the other rooms of the decider and by the runtime."""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias, assert_never

from msgspec import Struct
from msgspec.structs import replace

from proto.warmpool.events import (
    PoolAdjusted,
    PoolDegraded,
    PoolDisabled,
    PoolEvent,
    PoolProvisioned,
    PoolRequested,
    PrimarySeen,
    StandbyClaimed,
    StandbyNotAvailable,
    StandbyReleased,
    StandbyWanted,
)
from proto.warmpool.words import PoolStatus, StandbyMode

# A claim is repeated within a redelivery; five failovers are a day's worth.
ANSWERED_REMEMBERED_MAX = 64
DELETED = "instance_deleted"
# Why a pool without a standby is content: the instance itself does not run.
SUSPENDED = frozenset({"instance_stopped", "instance_failed", "instance_hibernated"})


class Pool(Struct, frozen=True):
    """`status` disabled with an empty `instance_id`: there never was one. `wanted`: standbys ever asked for."""

    instance_id: str = ""
    account_id: str = ""
    status: PoolStatus = "disabled"
    mode: StandbyMode = "stopped"
    volume_gb: int = 0
    auto_reprovision: bool = True
    host_id: str = ""
    primary_machine_id: str = ""
    standby_machine_id: str = ""
    claimed_by: str = ""
    answered: tuple[str, ...] = ()
    wanted: int = 0
    failures: int = 0
    reason: str = ""
    retry_at: datetime | None = None
    heard_at: datetime | None = None  # when the instance said the newest thing that this pool knows of it
    is_wanted: bool = True  # False: it ends as soon as the failover that has claimed it is over
    adjusted_at: datetime | None = None  # the newest change of the settings that it follows, or when it was asked for
    closed: bool = False  # the instance is deleted, and its id is never used again


NO_POOL = Pool()

Answer: TypeAlias = StandbyClaimed | StandbyNotAvailable


def evolve(state: Pool, event: PoolEvent) -> Pool:
    """Fold one fact. Never refuses: what is in the log has happened."""
    match event:
        case PoolRequested():
            return _requested(state, event)
        case PoolAdjusted():
            return replace(state, mode=event.mode, volume_gb=event.volume_gb, auto_reprovision=event.auto_reprovision,
                           is_wanted=event.is_enabled, adjusted_at=event.said_at)  # fmt: skip
        case StandbyWanted():
            status: PoolStatus = "recovering" if event.is_replacement else "provisioning"
            wanted = state.wanted + 1
            return replace(state, status=status, standby_machine_id=event.machine_id, wanted=wanted, retry_at=None)
        case StandbyReleased():
            return replace(state, standby_machine_id="")
        case PoolProvisioned():
            return replace(state, status="active", failures=0, reason="")
        case PoolDegraded():
            return replace(_idle(state), status="degraded", failures=state.failures + 1, reason=event.reason,
                           retry_at=event.retry_at, heard_at=event.heard_at or state.heard_at)  # fmt: skip
        case PoolDisabled():
            closed = event.reason == DELETED
            idle = replace(_idle(state), is_wanted=True, closed=closed)
            return replace(idle, status="disabled", failures=0, reason="", retry_at=None)
        case StandbyClaimed() | StandbyNotAvailable():
            return _answered(state, event)
        case PrimarySeen():
            status = "recovering" if event.swapped else "searching"
            moved = replace(_idle(state), status=status, failures=0, retry_at=None)
            return replace(moved, primary_machine_id=event.machine_id, host_id=event.host_id, heard_at=event.seen_at)
        case _:
            assert_never(event)


def _idle(state: Pool) -> Pool:
    """Without a standby, and so without a claim."""
    return replace(state, standby_machine_id="", claimed_by="")


def _requested(state: Pool, event: PoolRequested) -> Pool:
    return replace(
        state,
        instance_id=event.instance_id,
        account_id=event.account_id,
        status="searching",
        mode=event.mode,
        volume_gb=event.volume_gb,
        auto_reprovision=event.auto_reprovision,
        host_id=event.host_id,
        primary_machine_id=event.primary_machine_id,
        failures=0,
        adjusted_at=event.requested_at,
    )


def _answered(state: Pool, event: Answer) -> Pool:
    answered = (*state.answered, event.failover_id)[-ANSWERED_REMEMBERED_MAX:]
    if isinstance(event, StandbyNotAvailable):
        return replace(state, answered=answered)
    return replace(state, answered=answered, status="failover", claimed_by=event.failover_id)
