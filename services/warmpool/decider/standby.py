"""The facts by which a pool asks for a standby, gives one back, or says that it has none. Used by the other rooms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from libs.ids import derive_id
from proto.base import Event
from proto.warmpool.events import PoolDegraded, PoolDisabled, StandbyReleased, StandbyWanted
from services.warmpool.decider.pool import Pool

# After a failure another standby is tried: at first soon, then ever later, because each try may cost money.
RETRY_FIRST_S = 30
RETRY_MAX_S = 600


def want(state: Pool) -> StandbyWanted:
    return StandbyWanted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=derive_id("mach", state.instance_id, "standby", str(state.wanted + 1)),
        primary_machine_id=state.primary_machine_id,
        host_id=state.host_id,
        mode=state.mode,
        volume_gb=state.volume_gb,
        is_replacement=state.status == "recovering",
    )


def release(state: Pool, reason: str) -> Sequence[Event]:
    if not state.standby_machine_id:
        return []
    return [
        StandbyReleased(
            instance_id=state.instance_id,
            account_id=state.account_id,
            machine_id=state.standby_machine_id,
            reason=reason,
        )
    ]


def degraded(state: Pool, reason: str, *, detail: str = "", retry_at: datetime | None = None) -> PoolDegraded:
    return PoolDegraded(
        instance_id=state.instance_id,
        account_id=state.account_id,
        reason=reason,
        detail=detail,
        retry_at=retry_at,
    )


def freed(state: Pool, reason: str) -> Sequence[Event]:
    """The pool ends, and its standby is given back."""
    disabled = PoolDisabled(instance_id=state.instance_id, account_id=state.account_id, reason=reason)
    return [*release(state, reason), disabled]


def retry_at(state: Pool, now: datetime) -> datetime | None:
    pause_s = min(RETRY_FIRST_S * 2 ** min(state.failures, 10), RETRY_MAX_S)
    return now + timedelta(seconds=pause_s) if state.auto_reprovision else None
