"""Which rule answers which wish or report: the entry `decide` of the instance aggregate. Called by the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import (
    AbandonHibernation,
    CreateInstance,
    DeleteInstance,
    DisableCpuStandby,
    EnableCpuStandby,
    ExpireInstance,
    GiveUpMachine,
    GiveUpSnapshot,
    HibernateInstance,
    InstanceCommand,
    KeepAlive,
    MarkUsed,
    PromoteCpuStandby,
    PromoteMachine,
    ReleaseStandby,
    ReplaceMachine,
    ReportBooted,
    ReportBusy,
    ReportDestroyed,
    ReportFailed,
    ReportHealthy,
    ReportHeard,
    ReportIdle,
    ReportRented,
    ReportRestored,
    ReportSilence,
    ReportSnapshot,
    ReportSnapshotChecked,
    ReportSnapshotFailed,
    ReportStartRefused,
    ReportStopped,
    ReportSync,
    ReportVolumeReleased,
    ReportVolumeShared,
    RequestCpuStandby,
    RequestSnapshot,
    RequestStandby,
    StartInstance,
    StopIfIdle,
    StopInstance,
    SuspendInstance,
    TryReturn,
    WantGpu,
    WishVolume,
)
from proto.instance.events import InstanceEvent
from services.instance.decider import (
    cpu_standby,
    gpu_return,
    hibernation,
    lifecycle,
    moving,
    recovery,
    silence,
    snapshots,
    standby,
    suspension,
    volume,
)
from services.instance.decider import machine as machines
from services.instance.decider.instance import Instance, InstanceState, evolve
from services.instance.decider.way_back import NO_WAY_BACK

CpuStandbyCommand: TypeAlias = (
    EnableCpuStandby | DisableCpuStandby | RequestCpuStandby | PromoteCpuStandby | ReportSync | WantGpu | TryReturn
)

MachineReport: TypeAlias = (
    ReportRented
    | ReportBooted
    | ReportHealthy
    | ReportFailed
    | GiveUpMachine
    | ReportStartRefused
    | ReportStopped
    | ReportDestroyed
)


def decide(state: InstanceState, command: InstanceCommand) -> Sequence[Event]:
    """What follows from a wish or report about one instance. Raises Refused. The same command again gives nothing."""
    if isinstance(command, CreateInstance):
        return lifecycle.create(state, command)
    if state is None:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=command.instance_id)
    events = _decide(state, command)
    if not events or (state.way_back == NO_WAY_BACK and not isinstance(command, WantGpu)):
        return events
    after: InstanceState = state
    for event in events:
        after = evolve(after, cast("InstanceEvent", event))  # made here, so of this aggregate
    assert after is not None, "an instance is never unmade"
    return [*events, *gpu_return.follow_up(state, after, command.now)]


def _decide(state: Instance, command: InstanceCommand) -> Sequence[Event]:
    match command:
        case StartInstance():
            return lifecycle.start(_owned(state, command.account_id), command)
        case StopInstance():
            return lifecycle.stop(_owned(state, command.account_id), command)
        case HibernateInstance():
            return hibernation.decide(_owned(state, command.account_id), command)
        case SuspendInstance():
            return suspension.decide(_owned(state, command.account_id), command)
        case ExpireInstance():
            return suspension.expire(_owned(state, command.account_id), command)
        case DeleteInstance():
            return lifecycle.delete(_owned(state, command.account_id), command)
        case MarkUsed():
            return lifecycle.mark_used(_owned(state, command.account_id), command)
        case KeepAlive():
            return lifecycle.keep_alive(_owned(state, command.account_id), command)
        case StopIfIdle():
            return lifecycle.stop_if_idle(state, command)
        case (
            ReportRented()
            | ReportBooted()
            | ReportHealthy()
            | ReportFailed()
            | GiveUpMachine()
            | ReportStartRefused()
            | ReportStopped()
            | ReportDestroyed()
        ):
            return _decide_report(state, command)
        case RequestStandby():
            return standby.request(state, command)
        case ReleaseStandby():
            return standby.release(state, command)
        case PromoteMachine():
            return standby.promote(state, command)
        case ReportVolumeShared() | ReportVolumeReleased() | WishVolume():
            return _decide_volume(state, command)
        case ReportSilence() | ReportHeard():
            return silence.decide(state, command)
        case EnableCpuStandby() | DisableCpuStandby() | RequestCpuStandby() | PromoteCpuStandby() | ReportSync():
            return _decide_cpu_standby(state, command)
        case WantGpu() | TryReturn():
            return _decide_cpu_standby(state, command)
        case ReplaceMachine():
            return recovery.replace(state, command)
        case ReportRestored():
            return recovery.restored(state, command)
        case RequestSnapshot():
            return snapshots.decide(_owned(state, command.account_id or state.account_id), command)
        case ReportSnapshot() | ReportSnapshotFailed() | GiveUpSnapshot():
            return snapshots.decide(state, command)
        case ReportIdle() | ReportBusy() | ReportSnapshotChecked() | AbandonHibernation():
            return hibernation.decide(state, command)
        case _:
            raise TypeError(f"{type(command).__name__} is not a wish for an instance")


def _decide_report(state: Instance, command: MachineReport) -> Sequence[Event]:
    match command:
        case ReportRented():
            return machines.rented(state, command)
        case ReportBooted():
            return machines.booted(state, command)
        case ReportHealthy():
            return machines.healthy(state, command)
        case ReportFailed():
            return machines.failed(state, command)
        case GiveUpMachine():
            return machines.give_up(state, command)
        case ReportStartRefused():
            return moving.start_refused(state, command)
        case ReportStopped():
            return machines.stopped(state, command)
        case ReportDestroyed():
            return machines.destroyed(state, command)


def _decide_volume(state: Instance, command: ReportVolumeShared | ReportVolumeReleased | WishVolume) -> Sequence[Event]:
    match command:
        case ReportVolumeShared():
            return standby.volume_shared(state, command)
        case ReportVolumeReleased():
            return standby.volume_released(state, command)
        case WishVolume():
            return volume.wish(_owned(state, command.account_id), command)


def _decide_cpu_standby(state: Instance, command: CpuStandbyCommand) -> Sequence[Event]:
    match command:
        case EnableCpuStandby():
            return cpu_standby.enable(_owned(state, command.account_id), command)
        case DisableCpuStandby():
            return cpu_standby.disable(_owned(state, command.account_id), command)
        case RequestCpuStandby():
            return cpu_standby.request(state, command)
        case PromoteCpuStandby():
            return cpu_standby.promote(state, command)
        case ReportSync():
            return cpu_standby.synced(state, command)
        case WantGpu():
            return gpu_return.want(_owned(state, command.account_id or state.account_id), command)
        case TryReturn():
            return gpu_return.go_on(state, command)


def _owned(state: Instance, account_id: str) -> Instance:
    """To another account the instance does not exist."""
    if state.account_id != account_id:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=state.instance_id)
    return state
