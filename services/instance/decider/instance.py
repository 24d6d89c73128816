"""What is remembered of one instance and its machines, folded from the facts. Used by `lifecycle` and `machine`.

Invariant: at most one primary machine is live (see `LIVE`). A machine with a contract that is not gone is always live,
destroying or lost: it is never forgotten. Of those that have ended the newest are remembered, so that a repeated wish
for one of them changes nothing (`machine_state.remembered`). They are forgotten when another is requested, which has
the highest generation: the count goes on.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.events import (
    CpuStandbyDisabled,
    CpuStandbyEnabled,
    HibernationCancelled,
    HibernationScheduled,
    InstanceCreated,
    InstanceDeleted,
    InstanceDeleting,
    InstanceEvent,
    InstanceFailed,
    InstanceHealthChecking,
    InstanceHibernated,
    InstanceHibernating,
    InstanceInterrupted,
    InstanceKeptAlive,
    InstanceMigrated,
    InstanceReady,
    InstanceRecovering,
    InstanceRunning,
    InstanceStarted,
    InstanceStarting,
    InstanceStopped,
    InstanceStopping,
    InstanceUsed,
    InstanceWaking,
    InstanceWishHeeded,
    MachinePromoted,
    MachineRented,
    MachineRequested,
    PromotionFailed,
    PromotionPlanned,
    SnapshotCompleted,
    SnapshotFailed,
    SnapshotRequested,
    SnapshotsExpired,
    StandbyFailed,
    StandbyReady,
    SyncCompleted,
    SyncStarted,
    VolumeAttached,
    VolumeGivenUp,
    VolumeOutdated,
    VolumeReleased,
    VolumeReleaseRequested,
    VolumeShared,
    VolumeWished,
)
from proto.instance.hibernation_events import HibernationEvent
from proto.instance.return_events import (
    GpuReturning,
    HandedOver,
    HandoverRequested,
    ReturnAbandoned,
    ReturnCopied,
    Returned,
    ReturnEvent,
    ReturnTryFailed,
    ReturnWanted,
)
from proto.instance.words import (
    HealthCheck,
    InstanceStatus,
    InterruptionReason,
    MachineSpec,
    Volume,
    VolumeWish,
)
from services.instance.decider import cpu_state, machine_state, sleep, vault, way_back
from services.instance.decider.cpu_state import CpuStandby
from services.instance.decider.machine_state import LIVE, MACHINE_EVENTS, Machine
from services.instance.decider.sleep import Sleep
from services.instance.decider.vault import Vault
from services.instance.decider.way_back import NO_WAY_BACK, WayBack

# Why a snapshot is made, when the machine is given back after it.
HIBERNATION = "hibernation"
# A repeat of a wish that was answered with "no" comes within moments: more are not remembered.
REFUSALS_REMEMBERED_MAX = 16
# A claim is repeated within a redelivery; five failovers of at most four rungs are a day's worth.
RUNGS_REMEMBERED_MAX = 64


class Plan(Struct, frozen=True):
    """A promotion that waits for its standby to be up."""

    machine_id: str
    replaces: str
    failover_id: str
    give_up_at: datetime


class Instance(Struct, frozen=True):
    """What the customer owns. `reason` is why it is being stopped or deleted."""

    instance_id: str
    account_id: str
    name: str
    gpu: str
    spec: MachineSpec
    status: InstanceStatus
    health_check: HealthCheck
    auto_stop_minutes: int
    request_hash: str
    reason: str = ""
    ready_at: datetime | None = None
    last_used_at: datetime | None = None
    keep_alive_until: datetime | None = None
    machines: tuple[Machine, ...] = ()
    volume: Volume | None = None
    shared_from: tuple[str, ...] = ()  # machines that volumes are named after, of their host or region
    volume_wish: VolumeWish | None = None  # each new machine is to have its workspace on a volume of its region
    rungs_answered: tuple[str, ...] = ()  # failover and rung, newest last
    standbys_refused: tuple[str, ...] = ()
    plan: Plan | None = None
    vault: Vault = Vault()
    cpu: CpuStandby | None = None
    interrupted_id: str = ""  # the machine whose loss is being answered
    interrupted_by: InterruptionReason | None = None
    sleep: Sleep = Sleep()
    way_back: WayBack = NO_WAY_BACK

    def machine(self, machine_id: str) -> Machine | None:
        return next((machine for machine in self.machines if machine.machine_id == machine_id), None)

    @property
    def last_promotion(self) -> str:
        """The failover that was answered last; empty: none ever was."""
        return self.rungs_answered[-1].partition("/")[0] if self.rungs_answered else ""

    @property
    def last_rung(self) -> str:
        """By which rung."""
        return self.rungs_answered[-1].partition("/")[2] if self.rungs_answered else ""

    @property
    def primary(self) -> Machine | None:
        """The one live primary machine, if there is one."""
        return next((m for m in reversed(self.machines) if m.role == "primary" and m.status in LIVE), None)

    @property
    def standbys(self) -> tuple[Machine, ...]:
        """Live standby machines, ready or not."""
        return tuple(m for m in self.machines if m.role == "standby" and m.status in LIVE)

    @property
    def ready_standby(self) -> Machine | None:
        """A standby that can take over now."""
        return next((m for m in self.standbys if m.was_healthy and m.status in ("healthy", "stopped")), None)

    def has_answered(self, failover_id: str, rung: str) -> bool:
        """Whether this rung of this failover has been told yes or no."""
        return f"{failover_id}/{rung}" in self.rungs_answered

    @property
    def generation(self) -> int:
        return max((machine.generation for machine in self.machines), default=0)


# None: nothing has happened yet under this id.
InstanceState: TypeAlias = Instance | None


def evolve(state: InstanceState, event: InstanceEvent) -> InstanceState:
    """Fold one fact. Never refuses: what is in the log has happened."""
    if isinstance(event, InstanceCreated):
        return Instance(
            instance_id=event.instance_id,
            account_id=event.account_id,
            name=event.name,
            gpu=event.gpu,
            spec=event.spec,
            status="creating",
            health_check=event.health_check,
            auto_stop_minutes=event.auto_stop_minutes,
            request_hash=event.request_hash,
            volume_wish=event.volume,
        )
    assert state is not None, f"{type(event).__name__} before InstanceCreated"
    if isinstance(event, MachineRequested):
        return _evolve_request(state, event)
    if isinstance(event, MACHINE_EVENTS):
        machines = tuple(
            machine_state.evolve(m, event) if m.machine_id == event.machine_id else m for m in state.machines
        )
        if isinstance(event, MachinePromoted):
            return replace(state, machines=machines, plan=None)
        if isinstance(event, MachineRented) and event.volume is not None:
            return replace(state, machines=machines, shared_from=(*state.shared_from, event.machine_id))
        return replace(state, machines=machines)
    if isinstance(event, CPU_EVENTS):
        return replace(state, cpu=cpu_state.evolve(state.cpu, event))
    if isinstance(event, RETURN_EVENTS):
        return _evolve_return(state, event)
    if isinstance(event, SNAPSHOT_EVENTS):
        kept = replace(state, vault=vault.evolve(state.vault, event))
        if isinstance(event, SnapshotRequested) and event.reason == HIBERNATION:
            return replace(kept, sleep=sleep.copying(state.sleep, event))
        return kept
    if isinstance(event, HIBERNATION_EVENTS):
        return _evolve_sleep(state, event)
    if isinstance(event, InstanceWishHeeded):
        return state
    if isinstance(event, _StandbyEvent):
        return _evolve_standby(state, event)
    return _evolve_instance(state, event)


def _evolve_request(state: Instance, event: MachineRequested) -> Instance:
    requested = Machine(
        machine_id=event.machine_id,
        role=event.role,
        generation=event.generation,
        status="requested",
        requested_at=event.requested_at,
        give_up_at=event.give_up_at,
        mode=event.mode,
        restore=event.restore,
    )
    before = state if event.mode is None else _sharing(state)  # a standby's first need is the primary's workspace
    kept = machine_state.remembered(before.machines, always=before.interrupted_id)
    return replace(before, machines=(*kept, requested))


def _sharing(state: Instance) -> Instance:
    """The primary's workspace is, or may be soon, a volume that outlives it."""
    primary = state.primary
    if primary is None or primary.machine_id in state.shared_from:
        return state
    return replace(state, shared_from=(*state.shared_from, primary.machine_id))


HIBERNATION_EVENTS = (
    HibernationScheduled,
    HibernationCancelled,
    InstanceHibernating,
    InstanceHibernated,
    InstanceWaking,
)
CPU_EVENTS = (CpuStandbyEnabled, CpuStandbyDisabled, SyncStarted, SyncCompleted)
RETURN_EVENTS = (
    ReturnWanted,
    GpuReturning,
    ReturnTryFailed,
    ReturnCopied,
    HandoverRequested,
    HandedOver,
    Returned,
    ReturnAbandoned,
)
SNAPSHOT_EVENTS = (SnapshotRequested, SnapshotCompleted, SnapshotFailed, SnapshotsExpired)
_InstanceEvent: TypeAlias = (
    InstanceStarting
    | InstanceRunning
    | InstanceHealthChecking
    | InstanceReady
    | InstanceStarted
    | InstanceStopping
    | InstanceStopped
    | InstanceDeleting
    | InstanceDeleted
    | InstanceInterrupted
    | InstanceFailed
    | InstanceUsed
    | InstanceKeptAlive
    | InstanceMigrated
    | InstanceRecovering
)
_INSTANCE_STATUS_AFTER: dict[type[_InstanceEvent], InstanceStatus] = {
    InstanceStarting: "starting",
    InstanceRunning: "running",
    InstanceHealthChecking: "health_checking",
    InstanceReady: "ready",
    InstanceStarted: "ready",
    InstanceStopping: "stopping",
    InstanceStopped: "stopped",
    InstanceDeleting: "deleting",
    InstanceDeleted: "deleted",
    InstanceInterrupted: "interrupted",
    InstanceFailed: "failed",
    InstanceRecovering: "recovering",
}

_StandbyEvent: TypeAlias = (
    StandbyReady
    | StandbyFailed
    | PromotionFailed
    | PromotionPlanned
    | VolumeShared
    | VolumeReleaseRequested
    | VolumeOutdated
    | VolumeReleased
    | VolumeWished
    | VolumeAttached
    | VolumeGivenUp
)


def _evolve_return(state: Instance, event: ReturnEvent) -> Instance:
    """With the handover the CPU machine is a standby again; the GPU machine's promotion follows."""
    changed = replace(state, way_back=way_back.evolve(state.way_back, event))
    if not isinstance(event, HandedOver):
        return changed
    machines = tuple(replace(m, role="cpu_standby") if m.machine_id == event.cpu_name else m for m in changed.machines)
    return replace(changed, machines=machines)


def _answered(state: Instance, failover_id: str, rung: str) -> Instance:
    """A rung of a failover that has its answer. One whose machine failed is answered twice and remembered once."""
    name = f"{failover_id}/{rung}"
    if not failover_id or name in state.rungs_answered[-1:]:
        return state
    return replace(state, rungs_answered=(*state.rungs_answered, name)[-RUNGS_REMEMBERED_MAX:])


def _evolve_standby(state: Instance, event: _StandbyEvent) -> Instance:
    match event:
        case StandbyFailed() if state.machine(event.machine_id) is None:
            refused = (*state.standbys_refused, event.machine_id)
            return replace(state, standbys_refused=refused[-REFUSALS_REMEMBERED_MAX:])
        case PromotionFailed():
            status = "interrupted" if event.was_promoted else state.status
            return replace(_answered(state, event.failover_id, event.rung), status=status, plan=None)
        case PromotionPlanned():
            return replace(state, plan=Plan(event.machine_id, event.replaces, event.failover_id, event.give_up_at))
        case VolumeShared():
            volume = Volume(event.volume_id, event.provider, event.host_id, event.size_gb)
            machines = tuple(replace(m, on_volume=True) if m == state.primary else m for m in state.machines)
            return replace(_sharing(state), volume=volume, machines=machines)
        case VolumeReleased() | VolumeOutdated() | VolumeGivenUp():
            return replace(state, volume=None)
        case VolumeWished():
            return replace(state, volume_wish=event.volume)
        case VolumeAttached():
            volume = Volume(
                volume_id=event.volume_id,
                provider=event.provider,
                host_id="",
                size_gb=event.size_gb,
                region=event.region,
                name=event.name,
                mount_path=event.mount_path,
            )
            return replace(state, volume=volume)
        case _:
            return state


def _evolve_sleep(state: Instance, event: HibernationEvent) -> Instance:
    changed = replace(state, sleep=sleep.evolve(state.sleep, event))
    match event:
        case InstanceHibernating():
            return replace(changed, status="hibernating")
        case InstanceHibernated():
            return replace(changed, status="hibernated", volume=None)
        case HibernationCancelled():
            return replace(changed, status="ready")
        case _:
            return changed


def _evolve_instance(state: Instance, event: _InstanceEvent) -> Instance:
    changed = replace(state, status=_INSTANCE_STATUS_AFTER.get(type(event), state.status))
    match event:
        case InstanceStarting(health_check=HealthCheck() as health_check):
            return replace(changed, health_check=health_check)
        case InstanceReady():
            is_home = not event.on_cpu and state.way_back.stage == "none"
            return replace(changed, ready_at=event.ready_at, way_back=NO_WAY_BACK if is_home else state.way_back)
        case InstanceInterrupted():
            ended = sleep.ended(state.sleep)
            return replace(changed, interrupted_id=event.machine_id, interrupted_by=event.reason, sleep=ended)
        case InstanceRecovering():
            return _answered(changed, event.failover_id, event.rung)
        case InstanceStopping() | InstanceDeleting():
            return replace(changed, reason=event.reason, sleep=sleep.ended(state.sleep))
        case InstanceUsed():
            return replace(changed, last_used_at=event.used_at)
        case InstanceKeptAlive():
            return replace(changed, keep_alive_until=event.until)
        case _:
            return changed
