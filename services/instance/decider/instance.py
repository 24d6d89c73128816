"""What is remembered of one instance and all its machines, folded from the facts. Used by `lifecycle` and `machine`.

Invariant: at most one primary machine is live (see `LIVE`). A machine with a contract that is not gone is always live,
destroying or lost: it is never forgotten.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.events import (
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
    InstanceCreated,
    InstanceDeleted,
    InstanceDeleting,
    InstanceEvent,
    InstanceFailed,
    InstanceHealthChecking,
    InstanceInterrupted,
    InstanceKeptAlive,
    InstanceReady,
    InstanceRecovering,
    InstanceRunning,
    InstanceStarted,
    InstanceStarting,
    InstanceStopped,
    InstanceStopping,
    InstanceUsed,
    MachineBooted,
    MachineCancelled,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachinePromoted,
    MachineRented,
    MachineRequested,
    MachineStartRequested,
    MachineStopped,
    MachineStopRequested,
    PromotionFailed,
    PromotionPlanned,
    StandbyFailed,
    StandbyReady,
    VolumeReleased,
    VolumeReleaseRequested,
    VolumeShared,
)
from proto.instance.words import (
    Endpoint,
    HealthCheck,
    InstanceStatus,
    MachineRole,
    MachineSpec,
    MachineStatus,
    Offer,
    StandbyMode,
    Volume,
)

# A repeat of a wish that was answered with "no" comes within moments: more are not remembered.
REFUSALS_REMEMBERED_MAX = 16
# A claim is repeated within a redelivery; five failovers are a day's worth.
PROMOTIONS_REMEMBERED_MAX = 64

# A live machine carries the instance or may carry it again; the others are on their way out or have ended.
LIVE: frozenset[MachineStatus] = frozenset({"requested", "rented", "booted", "healthy", "stopping", "stopped"})
COMING_UP: frozenset[MachineStatus] = frozenset({"requested", "rented", "booted"})
ON: frozenset[MachineStatus] = frozenset({"rented", "booted", "healthy"})


class Machine(Struct, frozen=True):
    """One contract with a provider. `gone`: the provider has nothing of it; `was_healthy`: its disk may hold work."""

    machine_id: str
    role: MachineRole
    generation: int
    status: MachineStatus
    requested_at: datetime
    give_up_at: datetime
    provider: str = ""
    provider_machine_id: str = ""
    offer: Offer | None = None
    endpoints: tuple[Endpoint, ...] = ()
    was_healthy: bool = False
    gone: bool = False
    mode: StandbyMode | None = None
    silent_since: datetime | None = None

    @property
    def has_contract(self) -> bool:
        """The provider may still charge for it."""
        return bool(self.provider_machine_id) and not self.gone


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
    promotions: tuple[str, ...] = ()  # failovers that were answered, newest last
    standbys_refused: tuple[str, ...] = ()
    plan: Plan | None = None

    def machine(self, machine_id: str) -> Machine | None:
        return next((machine for machine in self.machines if machine.machine_id == machine_id), None)

    @property
    def last_promotion(self) -> str:
        """The failover that was answered last; empty: none ever was."""
        return self.promotions[-1] if self.promotions else ""

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
        )
    assert state is not None, f"{type(event).__name__} before InstanceCreated"
    if isinstance(event, MachineRequested):
        requested = Machine(
            machine_id=event.machine_id,
            role=event.role,
            generation=event.generation,
            status="requested",
            requested_at=event.requested_at,
            give_up_at=event.give_up_at,
            mode=event.mode,
        )
        return replace(state, machines=(*state.machines, requested))
    if isinstance(event, MACHINE_EVENTS):
        machines = tuple(_evolve_machine(m, event) if m.machine_id == event.machine_id else m for m in state.machines)
        if isinstance(event, MachinePromoted):
            return replace(_answered(state, event.failover_id), machines=machines, plan=None)
        return replace(state, machines=machines)
    if isinstance(event, STANDBY_EVENTS):
        return _evolve_standby(state, event)
    return _evolve_instance(state, event)


_MachineEvent: TypeAlias = (
    MachineRented
    | MachineBooted
    | MachineHealthy
    | MachineFailed
    | MachineCancelled
    | MachineStopRequested
    | MachineStopped
    | MachineStartRequested
    | MachineDestroyRequested
    | MachineDestroyed
    | MachineLost
    | MachinePromoted
    | AgentHeartbeatLost
    | AgentHeartbeatRestored
)
MACHINE_EVENTS = (
    MachineRented,
    MachineBooted,
    MachineHealthy,
    MachineFailed,
    MachineCancelled,
    MachineStopRequested,
    MachineStopped,
    MachineStartRequested,
    MachineDestroyRequested,
    MachineDestroyed,
    MachineLost,
    MachinePromoted,
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
)
_MACHINE_STATUS_AFTER: dict[type[_MachineEvent], MachineStatus] = {
    MachineRented: "rented",
    MachineBooted: "booted",
    MachineHealthy: "healthy",
    MachineFailed: "failed",
    MachineCancelled: "cancelled",
    MachineStopRequested: "stopping",
    MachineStopped: "stopped",
    MachineStartRequested: "rented",
    MachineDestroyRequested: "destroying",
    MachineDestroyed: "destroyed",
    MachineLost: "lost",
}


def _evolve_machine(machine: Machine, event: _MachineEvent) -> Machine:
    changed = replace(machine, status=_MACHINE_STATUS_AFTER.get(type(event), machine.status))
    match event:
        case MachinePromoted():
            return replace(
                changed,
                role="primary",
                generation=event.generation,
                status="booted" if machine.status in ON else machine.status,
                requested_at=event.promoted_at,
                give_up_at=event.give_up_at,
            )
        case AgentHeartbeatLost():
            return replace(changed, silent_since=event.last_seen_at)
        case AgentHeartbeatRestored():
            return replace(changed, silent_since=None)
        case MachineRented():
            return replace(
                changed, provider=event.provider, provider_machine_id=event.provider_machine_id, offer=event.offer
            )
        case MachineBooted():
            return replace(changed, endpoints=event.endpoints)
        case MachineHealthy():
            return replace(changed, was_healthy=True)
        case MachineStartRequested():
            return replace(changed, requested_at=event.requested_at, give_up_at=event.give_up_at, silent_since=None)
        case MachineDestroyed() | MachineLost(gone=True):
            return replace(changed, gone=True)
        case _:
            return changed


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
    | VolumeReleased
)
STANDBY_EVENTS = (
    StandbyReady,
    StandbyFailed,
    PromotionFailed,
    PromotionPlanned,
    VolumeShared,
    VolumeReleaseRequested,
    VolumeReleased,
)


def _answered(state: Instance, failover_id: str) -> Instance:
    """A failover that has its answer. One whose promoted machine failed is answered twice and remembered once."""
    if not failover_id or failover_id in state.promotions[-1:]:
        return state
    return replace(state, promotions=(*state.promotions, failover_id)[-PROMOTIONS_REMEMBERED_MAX:])


def _evolve_standby(state: Instance, event: _StandbyEvent) -> Instance:
    match event:
        case StandbyFailed() if state.machine(event.machine_id) is None:
            refused = (*state.standbys_refused, event.machine_id)
            return replace(state, standbys_refused=refused[-REFUSALS_REMEMBERED_MAX:])
        case PromotionFailed():
            status = "interrupted" if event.was_promoted else state.status
            return replace(_answered(state, event.failover_id), status=status, plan=None)
        case PromotionPlanned():
            return replace(state, plan=Plan(event.machine_id, event.replaces, event.failover_id, event.give_up_at))
        case VolumeShared():
            volume = Volume(event.volume_id, event.provider, event.host_id, event.size_gb)
            return replace(state, volume=volume)
        case VolumeReleased():
            return replace(state, volume=None)
        case _:
            return state


def _evolve_instance(state: Instance, event: _InstanceEvent) -> Instance:
    changed = replace(state, status=_INSTANCE_STATUS_AFTER.get(type(event), state.status))
    match event:
        case InstanceStarting(health_check=HealthCheck() as health_check):
            return replace(changed, health_check=health_check)
        case InstanceReady():
            return replace(changed, ready_at=event.ready_at)
        case InstanceStopping() | InstanceDeleting():
            return replace(changed, reason=event.reason)
        case InstanceUsed():
            return replace(changed, last_used_at=event.used_at)
        case InstanceKeptAlive():
            return replace(changed, keep_alive_until=event.until)
        case _:
            return changed
