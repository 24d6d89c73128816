"""Who makes a failover want something: lost machines start one, the rungs' owners and the instance move it on.

Called by the runtime for what other services say. Pure. The failover's id derives from the fact of the loss, so a
redelivery meets the failover it has started.
"""

from __future__ import annotations

from collections.abc import Iterator

from libs.ids import derive_id
from proto.base import Command, Heard
from proto.failover.commands import (
    AbandonFailover,
    AnswerInterruption,
    NoteClaimed,
    NoteCpuStandby,
    NotePool,
    NoteReady,
    NoteRungFailed,
    NoteSnapshot,
    NoteVolume,
    ProtectNew,
    UpdateMachineSettings,
)
from proto.failover.words import MachinePatch, PoolSeen, as_rung, as_strategy
from proto.instance.events import (
    InstanceCreated,
    InstanceDeleting,
    InstanceInterrupted,
    InstanceReady,
    InstanceRecovering,
    InstanceStopping,
    PromotionFailed,
    SnapshotCompleted,
    StandbyFailed,
    SyncCompleted,
    VolumeAttached,
    VolumeGivenUp,
)
from proto.instance.words import Protection
from proto.warmpool.events import (
    PoolDegraded,
    PoolDisabled,
    PoolProvisioned,
    StandbyClaimed,
    StandbyNotAvailable,
)

HEARS = (
    "pub.*.instance.created",
    "pub.*.instance.interrupted",
    "pub.*.instance.ready",
    "pub.*.instance.stopping",
    "pub.*.instance.deleting",
    "pub.*.instance.promotion_failed",
    "pub.*.instance.recovering",
    "pub.*.snapshot.completed",
    "pub.*.volume.attached",
    "pub.*.volume.given_up",
    "pub.*.standby.sync_completed",
    "pub.*.instance.standby_failed",
    "pub.*.warmpool.provisioned",
    "pub.*.warmpool.degraded",
    "pub.*.warmpool.disabled",
    "pub.*.warmpool.claimed",
    "pub.*.warmpool.not_available",
)
HEARS_EVENTS = (
    InstanceCreated
    | InstanceInterrupted
    | InstanceReady
    | InstanceStopping
    | InstanceDeleting
    | PromotionFailed
    | InstanceRecovering
    | SnapshotCompleted
    | VolumeAttached
    | VolumeGivenUp
    | SyncCompleted
    | StandbyFailed
    | PoolProvisioned
    | PoolDegraded
    | PoolDisabled
    | StandbyClaimed
    | StandbyNotAvailable
)


def react(heard: Heard) -> Iterator[Command]:
    """Own commands that follow from one event; own events ask for nothing."""
    match heard.event:
        case InstanceCreated(protection=Protection() as protection) as event:
            yield _chosen(heard, event, protection)
        case InstanceCreated(skip_standby=False) as event if event.spec.kind == "gpu":
            yield ProtectNew(now=heard.at, instance_id=event.instance_id, account_id=event.account_id)
        case InstanceInterrupted() as event:
            yield AnswerInterruption(
                now=heard.at,
                instance_id=event.instance_id,
                account_id=event.account_id,
                failover_id=event.failover_id or derive_id("fo", heard.event_id),
                machine_id=event.machine_id,
                reason=event.reason,
                gpu=event.gpu,
            )
        case InstanceReady() as event:
            yield NoteReady(
                now=heard.at,
                instance_id=event.instance_id,
                machine_id=event.machine_id,
                generation=event.generation,
                restored_at=event.restored_at,
                on_cpu=event.on_cpu,
            )
        case InstanceRecovering() as event if event.rung != "warm_pool":
            # The warm pool says itself what it has set aside.
            yield NoteClaimed(
                now=heard.at,
                instance_id=event.instance_id,
                failover_id=event.failover_id,
                rung=as_rung(event.rung),
                machine_id=event.machine_id,
            )
        case InstanceStopping() as event:
            yield AbandonFailover(
                now=heard.at, instance_id=event.instance_id, account_id=event.account_id, error="instance_stopped"
            )
        case InstanceDeleting() as event:
            yield AbandonFailover(
                now=heard.at,
                instance_id=event.instance_id,
                account_id=event.account_id,
                error="instance_deleted",
                deleted=True,
            )
        case PromotionFailed() as event:
            yield NoteRungFailed(
                now=heard.at,
                instance_id=event.instance_id,
                failover_id=event.failover_id,
                rung=as_rung(event.rung),
                reason=event.reason,
                # No volume, no GPU in its region: nothing was begun, so it says nothing about the rung.
                was_tried=event.was_promoted or event.rung != "regional_volume",
            )
        case _:
            yield from _react_to_copies(heard)
            yield from _react_to_pool(heard)


def _react_to_copies(heard: Heard) -> Iterator[Command]:
    """Where the files are besides on the machine."""
    match heard.event:
        case SyncCompleted(ok=True) as event:
            yield _note_cpu(heard, event.instance_id, event.account_id, event.cpu_name, is_lost=False)
        case StandbyFailed() as event:
            yield _note_cpu(heard, event.instance_id, event.account_id, event.machine_id, is_lost=True)
        case SnapshotCompleted() as event:
            yield NoteSnapshot(now=heard.at, instance_id=event.instance_id, account_id=event.account_id)
        case VolumeAttached() as event:
            yield _note_volume(heard, event, is_given_up=False)
        case VolumeGivenUp() as event:
            yield _note_volume(heard, event, is_given_up=True)
        case _:
            return


def _chosen(heard: Heard, event: InstanceCreated, protection: Protection) -> UpdateMachineSettings:
    patch = MachinePatch(use_global_settings=False, strategy=as_strategy(protection.strategy))
    return UpdateMachineSettings(
        now=heard.at,
        request_id=heard.event_id,
        instance_id=event.instance_id,
        account_id=event.account_id,
        patch=patch,
    )


def _note_cpu(heard: Heard, instance_id: str, account_id: str, machine_id: str, *, is_lost: bool) -> NoteCpuStandby:
    return NoteCpuStandby(
        now=heard.at, instance_id=instance_id, account_id=account_id, machine_id=machine_id, is_lost=is_lost
    )


def _note_volume(heard: Heard, event: VolumeAttached | VolumeGivenUp, *, is_given_up: bool) -> NoteVolume:
    return NoteVolume(
        now=heard.at,
        instance_id=event.instance_id,
        account_id=event.account_id,
        volume_id=event.volume_id,
        is_given_up=is_given_up,
    )


def _react_to_pool(heard: Heard) -> Iterator[Command]:
    match heard.event:
        case StandbyClaimed() as event:
            yield NoteClaimed(
                now=heard.at,
                instance_id=event.instance_id,
                failover_id=event.failover_id,
                rung="warm_pool",
                machine_id=event.machine_id,
            )
        case StandbyNotAvailable() as event:
            yield NoteRungFailed(
                now=heard.at,
                instance_id=event.instance_id,
                failover_id=event.failover_id,
                rung="warm_pool",
                reason=event.reason,
                was_tried=False,
            )
        case PoolProvisioned() as event:
            yield _note(heard, event, PoolSeen("ready", event.machine_id, event.host_id, event.mode, reason=""))
        case PoolDegraded() as event:
            yield _note(heard, event, PoolSeen("not_ready", reason=event.reason))
        case PoolDisabled() as event:
            yield _note(heard, event, PoolSeen())
        case _:
            return


def _note(heard: Heard, event: PoolProvisioned | PoolDegraded | PoolDisabled, pool: PoolSeen) -> NotePool:
    return NotePool(now=heard.at, instance_id=event.instance_id, account_id=event.account_id, pool=pool)
