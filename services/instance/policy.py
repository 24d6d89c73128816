"""How a fact of the instance service becomes a wish of its own: outcomes of machines become attempts of hosts.

Called by the runtime for every own event and for what the warm pool says. Pure. Attempt ids derive from the event, so a
redelivery meets its own first attempt.

An offer that was gone when we came (`rejected`) is recorded as cancelled: losing a race to another customer says
nothing about the host, and counting it would blacklist healthy hosts in busy hours (contract dumont 7).
"""

from __future__ import annotations

from collections.abc import Iterator

from libs.ids import derive_id
from proto.base import Command, Heard
from proto.billing.events import BalanceStorageExpired, BalanceSuspended
from proto.failover.events import CareChanged, CpuStandbyWanted, FailoverCompleted, RungTried, VolumeWanted
from proto.instance.care import NoteCare
from proto.instance.commands import (
    AbandonHibernation,
    EnableCpuStandby,
    ExpireInstance,
    PromoteCpuStandby,
    PromoteMachine,
    ReleaseStandby,
    ReplaceMachine,
    RequestCpuStandby,
    RequestStandby,
    SuspendInstance,
    WantGpu,
    WishVolume,
)
from proto.instance.cpu_events import CpuStandbyEnabled
from proto.instance.events import MachineCancelled, MachineFailed, MachineHealthy, MachineRented, SnapshotFailed
from proto.instance.host_commands import RecordAttempt
from proto.instance.words import SYNC_EXCLUDES, AttemptOutcome, AttemptStage, Offer, VolumeWish
from proto.warmpool.events import StandbyClaimed, StandbyReleased, StandbyWanted

OFFER_GONE = "offer was gone"
CANCELLED = "no longer wanted"


def react(heard: Heard) -> Iterator[Command]:
    """Own commands that follow from one event."""
    match heard.event:
        case MachineHealthy() as event:
            yield _attempt(heard, event.offer, event.instance_id, "success", took_ms=event.took_ms)
        case MachineRented() as event:
            for offer in event.rejected:
                yield _attempt(heard, offer, event.instance_id, "cancelled", stage="rejected", reason=OFFER_GONE)
        case MachineFailed() as event:
            for offer in event.offers:
                yield _attempt(
                    heard,
                    offer,
                    event.instance_id,
                    "cancelled" if event.stage == "rejected" else "failure",
                    stage=event.stage,
                    reason=event.reason,
                    took_ms=event.took_ms,
                )
        case SnapshotFailed(reason="hibernation") as event:
            detail = f"{event.code}: {event.detail}" if event.detail else event.code
            yield AbandonHibernation(
                now=heard.at, instance_id=event.instance_id, snapshot_id=event.snapshot_id, detail=detail
            )
        case MachineCancelled(offer=Offer() as offer) as event:
            yield _attempt(heard, offer, event.instance_id, "cancelled", reason=CANCELLED)
        case _:
            yield from _react_to_others(heard)


def _react_to_others(heard: Heard) -> Iterator[Command]:
    """What the warm pool, failover and billing say."""
    match heard.event:
        case StandbyWanted() as event:
            yield RequestStandby(
                now=heard.at,
                instance_id=event.instance_id,
                machine_id=event.machine_id,
                primary_machine_id=event.primary_machine_id,
                host_id=event.host_id,
                mode=event.mode,
                volume_gb=event.volume_gb,
            )
        case StandbyReleased() as event:
            yield ReleaseStandby(now=heard.at, instance_id=event.instance_id, machine_id=event.machine_id)
        case BalanceSuspended() as event:
            for instance_id in event.instance_ids:
                yield SuspendInstance(
                    now=heard.at,
                    request_id=heard.event_id,
                    instance_id=instance_id,
                    account_id=event.account_id,
                    reason=event.reason,
                    balance_usd_micros=event.balance_usd_micros,
                )
        case BalanceStorageExpired() as event:
            for instance_id in event.instance_ids:
                yield ExpireInstance(
                    now=heard.at, instance_id=instance_id, account_id=event.account_id, reason=event.reason
                )
        case StandbyClaimed() as event:
            yield PromoteMachine(
                now=heard.at,
                instance_id=event.instance_id,
                machine_id=event.machine_id,
                replaces=event.replaces,
                failover_id=event.failover_id,
                give_up_at=event.give_up_at,
            )
        case _:
            yield from _react_to_rungs(heard)


def _react_to_rungs(heard: Heard) -> Iterator[Command]:
    """CPU standbys, volumes of a region, and new machines for lost ones."""
    match heard.event:
        case VolumeWanted() as event:
            wish = VolumeWish(event.size_gb, event.mount_path, event.preferred_regions) if event.size_gb else None
            yield WishVolume(now=heard.at, instance_id=event.instance_id, account_id=event.account_id, volume=wish)
        case CpuStandbyEnabled() as event:
            yield RequestCpuStandby(
                now=heard.at, instance_id=event.instance_id, machine_id=derive_id("mach", heard.event_id)
            )
        case RungTried(rung="cpu_standby") as event:
            yield PromoteCpuStandby(
                now=heard.at,
                instance_id=event.instance_id,
                replaces=event.machine_id,
                failover_id=event.failover_id,
                give_up_at=event.give_up_at,
            )
        case RungTried(rung="regional_volume" | "cloud_storage") as event:
            yield ReplaceMachine(
                now=heard.at,
                instance_id=event.instance_id,
                machine_id=derive_id("mach", event.failover_id, event.rung),
                replaces=event.machine_id,
                failover_id=event.failover_id,
                give_up_at=event.give_up_at,
                rung=event.rung,
            )
        case CpuStandbyWanted() as event:
            yield EnableCpuStandby(
                now=heard.at,
                request_id=heard.event_id,
                instance_id=event.instance_id,
                account_id=event.account_id,
                sync_interval_s=event.sync_interval_s,
                excludes=SYNC_EXCLUDES,
            )
        case CareChanged() as event:
            yield NoteCare(
                now=heard.at,
                account_id=event.account_id,
                health_check_s=event.health_check_s,
                heartbeat_misses_max=event.heartbeat_misses_max,
                gpu_names=event.gpu_names,
            )
        case FailoverCompleted(on_cpu=True, auto_recovery=True) as event:
            yield WantGpu(now=heard.at, instance_id=event.instance_id, machine_id=event.machine_id)
        case _:
            return


def _attempt(
    heard: Heard,
    offer: Offer,
    instance_id: str,
    outcome: AttemptOutcome,
    *,
    stage: AttemptStage | None = None,
    reason: str = "",
    took_ms: int = 0,
) -> RecordAttempt:
    return RecordAttempt(
        now=heard.at,
        provider=offer.provider,
        host_id=offer.host_id,
        attempt_id=f"{heard.event_id}.{offer.offer_id}",
        offer=offer,
        outcome=outcome,
        instance_id=instance_id,
        stage=stage,
        reason=reason,
        took_ms=took_ms,
    )
