"""The rules of a warm pool: one standby machine for one instance, claimed by exactly one failover. Pure.

Called by the runtime. State and transitions are those of contract dumont 4. What is heard late, twice, or of a machine
that is no longer the standby changes nothing. The pool never touches the primary machine: it only asks for standbys
and says when one may be given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Event
from proto.warmpool.commands import (
    AdjustPool,
    ClaimStandby,
    DisablePool,
    EndClaim,
    NotePrimary,
    NotePromotionFailed,
    NoteStandbyFailed,
    NoteStandbyReady,
    PoolWish,
    ProvisionPool,
    RetryStandby,
    SuspendPool,
)
from proto.warmpool.events import (
    PoolDisabled,
    PoolProvisioned,
    PrimarySeen,
    StandbyClaimed,
    StandbyNotAvailable,
)
from proto.warmpool.words import PoolStatus
from services.warmpool.decider import wishes
from services.warmpool.decider.pool import DELETED, SUSPENDED, Pool, evolve
from services.warmpool.decider.standby import degraded, freed, release, retry_at, want

# Why a pool has nothing to give; a degraded one says so in its own words.
_WHY: dict[PoolStatus, str] = {
    "disabled": "not_configured",
    "searching": "waiting_for_primary",
    "provisioning": "standby_not_ready",
    "recovering": "standby_not_ready",
    "failover": "claimed_by_another",
    "active": "primary_moved",
}


def decide(state: Pool, command: PoolWish) -> Sequence[Event]:
    """What follows from a wish or from something heard. Raises Refused. The same command again gives nothing."""
    match command:
        case ProvisionPool():
            return wishes.provision(_owned(state, command.account_id), command)
        case DisablePool():
            return wishes.disable(_owned(state, command.account_id), command)
        case AdjustPool():
            return wishes.adjust(_owned(state, command.account_id), command)
        case ClaimStandby():
            return _claim(state, command)
        case NoteStandbyReady():
            return _standby_ready(state, command)
        case NoteStandbyFailed():
            return _standby_failed(state, command)
        case NotePromotionFailed() | EndClaim():
            return _claim_ended(state, command)
        case NotePrimary():
            return _primary(state, command)
        case SuspendPool():
            return _suspend(state, command)
        case RetryStandby():
            return _retry(state, command)
        case _:
            assert_never(command)


def _owned(state: Pool, account_id: str) -> Pool:
    """To another account the instance does not exist."""
    if state.account_id not in ("", account_id):
        raise Refused("INSTANCE_NOT_FOUND", instance_id=state.instance_id)
    return state


# --- claims -------------------------------------------------------------------------------------------------------


def _claim(state: Pool, command: ClaimStandby) -> Sequence[Event]:
    """Every failover is answered once; a standby goes to the first that asks while it is there."""
    if command.failover_id in state.answered:
        return []
    if state.status == "active" and state.primary_machine_id == command.replaces:
        return [
            StandbyClaimed(
                failover_id=command.failover_id,
                instance_id=command.instance_id,
                account_id=command.account_id,
                machine_id=state.standby_machine_id,
                replaces=command.replaces,
                give_up_at=command.give_up_at,
            )
        ]
    return [
        StandbyNotAvailable(
            failover_id=command.failover_id,
            instance_id=command.instance_id,
            account_id=command.account_id,
            reason=_WHY.get(state.status, state.reason),
        )
    ]


def _claim_ended(state: Pool, command: NotePromotionFailed | EndClaim) -> Sequence[Event]:
    """The claimed standby is spent. Another is tried later: the primary may still be there (a wished failover)."""
    if state.status != "failover" or command.failover_id != state.claimed_by:
        return []
    if not state.is_wanted:
        return freed(state, wishes.SWITCHED_OFF)
    spent = degraded(state, "standby_not_ready", detail=command.reason, retry_at=retry_at(state, command.now))
    return [*release(state, "standby_not_ready"), spent]


# --- what the instance says ---------------------------------------------------------------------------------------


def _standby_ready(state: Pool, command: NoteStandbyReady) -> Sequence[Event]:
    if command.machine_id != state.standby_machine_id or state.status not in ("provisioning", "recovering"):
        return []
    return [
        PoolProvisioned(
            instance_id=state.instance_id,
            account_id=state.account_id,
            machine_id=command.machine_id,
            host_id=command.host_id,
            volume_id=command.volume_id,
            mode=state.mode,
        )
    ]


def _standby_failed(state: Pool, command: NoteStandbyFailed) -> Sequence[Event]:
    """A standby that was there and is lost weighs as much as one that never came: another is tried."""
    if command.machine_id != state.standby_machine_id or state.status == "failover":
        return []
    if command.reason == DELETED:
        return [PoolDisabled(instance_id=state.instance_id, account_id=state.account_id, reason=DELETED)]
    return [degraded(state, command.reason, detail=command.detail, retry_at=retry_at(state, command.now))]


def _primary(state: Pool, command: NotePrimary) -> Sequence[Event]:
    """The instance is ready: on our standby (a swap), on the machine we know, or on another one."""
    if state.status == "disabled" or _is_old(state, command.now):
        return []
    was_suspended = state.status == "degraded" and state.reason in SUSPENDED
    if command.machine_id == state.primary_machine_id and not was_suspended:
        return []
    swapped = command.machine_id == state.standby_machine_id
    seen = PrimarySeen(
        instance_id=state.instance_id,
        machine_id=command.machine_id,
        host_id=command.host_id,
        seen_at=command.now,
        swapped=swapped,
    )
    after = evolve(state, seen)
    moved: list[Event] = [*([] if swapped else release(state, "primary_moved")), seen]
    if not state.is_wanted:
        return [*moved, *freed(after, wishes.SWITCHED_OFF)]
    if swapped and not state.auto_reprovision:
        return [seen, degraded(after, "consumed")]
    return [*moved, want(after)]


def _suspend(state: Pool, command: SuspendPool) -> Sequence[Event]:
    is_known = state.status == "degraded" and state.reason == command.reason
    if state.status == "disabled" or is_known or _is_old(state, command.now):
        return []
    if not state.is_wanted:
        return freed(state, wishes.SWITCHED_OFF)
    suspended = replace(degraded(state, command.reason), heard_at=command.now)
    return [*release(state, command.reason), suspended]


def _is_old(state: Pool, said_at: datetime) -> bool:
    """Heard again after a crash: the instance has said something newer since."""
    return state.heard_at is not None and said_at < state.heard_at


def _retry(state: Pool, command: RetryStandby) -> Sequence[Event]:
    is_due = state.status == "degraded" and state.retry_at is not None and command.now >= state.retry_at
    return [want(state)] if is_due else []
