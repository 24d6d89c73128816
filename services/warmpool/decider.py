"""The rules of a warm pool: one standby machine for one instance, claimed by exactly one failover. Pure.

Called by the runtime. State and transitions are those of contract dumont 4. What is heard late, twice, or of a machine
that is no longer the standby changes nothing. The pool never touches the primary machine: it only asks for standbys
and says when one may be given back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from msgspec import Struct
from msgspec.structs import replace

from libs.ids import derive_id
from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Event
from proto.warmpool.commands import (
    AnyCommand,
    ClaimStandby,
    DisablePool,
    EndClaim,
    NotePrimary,
    NotePromotionFailed,
    NoteStandbyFailed,
    NoteStandbyReady,
    ProvisionPool,
    RetryStandby,
    SuspendPool,
)
from proto.warmpool.events import (
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

# After a failure another standby is tried: at first soon, then ever later, because each try may cost money.
RETRY_FIRST_S = 30
RETRY_MAX_S = 600
# A claim is repeated within a redelivery; five failovers are a day's worth.
ANSWERED_REMEMBERED_MAX = 64
# Why a pool without a standby is content: the instance itself does not run.
SUSPENDED = frozenset({"instance_stopped", "instance_failed", "instance_hibernated"})
DELETED = "instance_deleted"


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
    closed: bool = False  # the instance is deleted, and its id is never used again


NO_POOL = Pool()
# Why a pool has nothing to give; a degraded one says so in its own words.
_WHY: dict[PoolStatus, str] = {
    "disabled": "not_configured",
    "searching": "waiting_for_primary",
    "provisioning": "standby_not_ready",
    "recovering": "standby_not_ready",
    "failover": "claimed_by_another",
    "active": "primary_moved",
}


def decide(state: Pool, command: AnyCommand) -> Sequence[Event]:
    """What follows from a wish or from something heard. Raises Refused. The same command again gives nothing."""
    match command:
        case ProvisionPool():
            return _provision(_owned(state, command.account_id), command)
        case DisablePool():
            return _disable(_owned(state, command.account_id), command)
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


# --- wishes -------------------------------------------------------------------------------------------------------


def _provision(state: Pool, command: ProvisionPool) -> Sequence[Event]:
    if state.status != "disabled":
        same = (state.mode, state.volume_gb, state.auto_reprovision)
        if not command.is_new or (command.mode, command.volume_gb, command.auto_reprovision) == same:
            return _find_primary(state, command)
        raise Refused("WARMPOOL_EXISTS", instance_id=command.instance_id, status=state.status)
    if state.closed:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=command.instance_id)
    _refuse_bad_host(command)
    requested = PoolRequested(
        instance_id=command.instance_id,
        account_id=command.account_id,
        mode=command.mode,
        volume_gb=command.volume_gb,
        auto_reprovision=command.auto_reprovision,
        host_id=command.host_id,
        primary_machine_id=command.machine_id,
    )
    return [requested, _want(evolve(state, requested))] if command.host_id else [requested]


def _find_primary(state: Pool, command: ProvisionPool) -> Sequence[Event]:
    """Asked for again: a pool that waits for a primary takes the one that the caller sees. The instance may have said
    `ready` just before the pool was there to hear it."""
    if state.status != "searching" or state.primary_machine_id or not command.host_id:
        return []
    seen = PrimarySeen(
        instance_id=state.instance_id, machine_id=command.machine_id, host_id=command.host_id, seen_at=command.now
    )
    return [seen, _want(evolve(state, seen))]


def _refuse_bad_host(command: ProvisionPool) -> None:
    """The host that the caller named must be the one the instance runs on: its files are there."""
    wanted = command.wanted_host_id
    if not wanted:
        return
    if command.host_gpus_free is None and wanted != command.host_id:
        raise Refused("HOST_NOT_FOUND", host_id=wanted)
    if wanted != command.host_id:
        advice = f"the instance runs on {command.host_id or 'no host yet'}, and its standby must be there"
        raise Refused("INVALID_STATE", instance_id=command.instance_id, status="elsewhere", advice=advice)
    if not command.host_gpus_free:
        raise Refused("HOST_INSUFFICIENT_GPUS", host_id=wanted)


def _disable(state: Pool, command: DisablePool) -> Sequence[Event]:
    if state.status == "disabled":
        return []
    if state.status == "failover" and not command.forced:
        raise Refused("FAILOVER_IN_PROGRESS", instance_id=state.instance_id, failover_id=state.claimed_by)
    disabled = PoolDisabled(instance_id=state.instance_id, account_id=state.account_id, reason=command.reason)
    return [*_release(state, command.reason), disabled]


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
    retry_at = _retry_at(state, command.now)
    degraded = _degraded(state, "standby_not_ready", detail=command.reason, retry_at=retry_at)
    return [*_release(state, "standby_not_ready"), degraded]


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
    retry_at = _retry_at(state, command.now)
    return [_degraded(state, command.reason, detail=command.detail, retry_at=retry_at)]


def _retry_at(state: Pool, now: datetime) -> datetime | None:
    pause_s = min(RETRY_FIRST_S * 2 ** min(state.failures, 10), RETRY_MAX_S)
    return now + timedelta(seconds=pause_s) if state.auto_reprovision else None


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
    if swapped and not state.auto_reprovision:
        return [seen, _degraded(after, "consumed")]
    return [*([] if swapped else _release(state, "primary_moved")), seen, _want(after)]


def _suspend(state: Pool, command: SuspendPool) -> Sequence[Event]:
    is_known = state.status == "degraded" and state.reason == command.reason
    if state.status == "disabled" or is_known or _is_old(state, command.now):
        return []
    degraded = replace(_degraded(state, command.reason), heard_at=command.now)
    return [*_release(state, command.reason), degraded]


def _is_old(state: Pool, said_at: datetime) -> bool:
    """Heard again after a crash: the instance has said something newer since."""
    return state.heard_at is not None and said_at < state.heard_at


def _retry(state: Pool, command: RetryStandby) -> Sequence[Event]:
    is_due = state.status == "degraded" and state.retry_at is not None and command.now >= state.retry_at
    return [_want(state)] if is_due else []


# --- facts --------------------------------------------------------------------------------------------------------


def _want(state: Pool) -> StandbyWanted:
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


def _release(state: Pool, reason: str) -> Sequence[Event]:
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


def _degraded(state: Pool, reason: str, *, detail: str = "", retry_at: datetime | None = None) -> PoolDegraded:
    return PoolDegraded(
        instance_id=state.instance_id,
        account_id=state.account_id,
        reason=reason,
        detail=detail,
        retry_at=retry_at,
    )


# --- memory -------------------------------------------------------------------------------------------------------

Answer: TypeAlias = StandbyClaimed | StandbyNotAvailable


def evolve(state: Pool, event: PoolEvent) -> Pool:
    """Fold one fact. Never refuses: what is in the log has happened."""
    match event:
        case PoolRequested():
            return _requested(state, event)
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
            return replace(_idle(state), status="disabled", failures=0, reason="", retry_at=None, closed=closed)
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
    )


def _answered(state: Pool, event: Answer) -> Pool:
    answered = (*state.answered, event.failover_id)[-ANSWERED_REMEMBERED_MAX:]
    if isinstance(event, StandbyNotAvailable):
        return replace(state, answered=answered)
    return replace(state, answered=answered, status="failover", claimed_by=event.failover_id)


POOL = Aggregate("pool", NO_POOL, decide, evolve, PoolEvent)
AGGREGATES = (POOL,)
