"""What is remembered of one machine: a contract with a provider, folded from the facts about it.

Used by `instance`, whose state holds all machines of an instance, and by the rules that judge them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.events import (
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
    MachineBooted,
    MachineCancelled,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachinePromoted,
    MachineRented,
    MachineRestored,
    MachineStartRequested,
    MachineStopped,
    MachineStopRequested,
)
from proto.instance.words import Endpoint, MachineRole, MachineStatus, Offer, StandbyMode, Volume

# A live machine carries the instance or may carry it again; the others are on their way out or have ended.
LIVE: frozenset[MachineStatus] = frozenset({"requested", "rented", "booted", "healthy", "stopping", "stopped"})
COMING_UP: frozenset[MachineStatus] = frozenset({"requested", "rented", "booted"})
ON: frozenset[MachineStatus] = frozenset({"rented", "booted", "healthy"})
OVER: frozenset[MachineStatus] = frozenset({"failed", "cancelled", "destroyed", "lost"})
# What is repeated about a machine that has ended comes within two hours (effects.GIVE_BACK_TRIES_MAX): one every two
# minutes. An instance with a standby that never comes up makes six an hour.
ENDED_REMEMBERED_MAX = 64


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
    on_volume: bool = False  # its workspace is a volume: that of its instance, or
    volume: Volume | None = None  # one that was made for it
    restore: str = ""  # what it is to be filled from; empty: nothing
    restored_at: datetime | None = None  # the instant its files are of
    silent_since: datetime | None = None

    @property
    def has_contract(self) -> bool:
        """The provider may still charge for it."""
        return bool(self.provider_machine_id) and not self.gone

    def took_ms(self, now: datetime) -> int:
        """Since it was asked for."""
        return max(0, (now - self.requested_at) // timedelta(milliseconds=1))

    @property
    def has_ended(self) -> bool:
        """Nothing of it is left at a provider, and it will not come back."""
        return self.status in OVER and not self.has_contract


MachineEvent: TypeAlias = (
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
    | MachineRestored
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
    MachineRestored,
)
_MACHINE_STATUS_AFTER: dict[type[MachineEvent], MachineStatus] = {
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


def remembered(machines: tuple[Machine, ...], *, always: str) -> tuple[Machine, ...]:
    """All that have not ended and, of those that have, the newest; and the one with the id `always`."""
    ended = [machine.machine_id for machine in machines if machine.has_ended and machine.machine_id != always]
    forgotten = frozenset(ended[: max(0, len(ended) - ENDED_REMEMBERED_MAX)])
    if not forgotten:
        return machines
    return tuple(machine for machine in machines if machine.machine_id not in forgotten)


def evolve(machine: Machine, event: MachineEvent) -> Machine:
    """Fold one fact about this machine."""
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
                restore=event.restore,
                restored_at=None,
            )
        case AgentHeartbeatLost():
            return replace(changed, silent_since=event.last_seen_at)
        case AgentHeartbeatRestored():
            return replace(changed, silent_since=None)
        case MachineRented():
            return replace(
                changed,
                provider=event.provider,
                provider_machine_id=event.provider_machine_id,
                offer=event.offer,
                on_volume=event.has_volume,
                volume=event.volume,
                restore="" if event.has_volume and event.volume is None else machine.restore,
            )
        case MachineRestored():
            return replace(changed, restored_at=event.captured_at)
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
