"""Facts of the instance service about one machine: asked for, rented, up, down, given back, lost.

Part of the `instance` aggregate (see `events`, whose union has them).
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.instance.words import (
    AttemptStage,
    Endpoint,
    HealthCheck,
    InterruptionReason,
    MachineRole,
    MachineSpec,
    Offer,
    StandbyMode,
    Volume,
    VolumeWish,
)


class MachineRequested(Event, tag="machine.requested", kw_only=True, frozen=True):
    """We want a machine. `machine_id` is its label at the provider, so an unknown outcome can be looked up.

    `exact`: the customer chose the offer, so no other will do. A standby has a `mode`, and shares the primary's
    workspace as a volume of `volume_gb`. `restore`: the snapshot that the machine is to be filled from. `volume`: a
    new volume of its region is to be its workspace.
    """

    instance_id: str
    account_id: str
    machine_id: str
    role: MachineRole
    generation: int
    spec: MachineSpec
    offers: tuple[Offer, ...]  # candidates, best first, as the market stood when the wish was uttered
    requested_at: datetime
    give_up_at: datetime
    exact: bool = False
    mode: StandbyMode | None = None
    volume_gb: int = 0
    restore: str = ""
    volume: VolumeWish | None = None


class MachineRented(Event, tag="machine.rented", kw_only=True, frozen=True):
    """The provider has made the contract; from here on it costs money."""

    instance_id: str
    machine_id: str
    provider: str
    provider_machine_id: str
    offer: Offer
    adopted: bool = False  # found by label after an unknown outcome
    rejected: tuple[Offer, ...] = ()  # candidates that were tried before and refused
    has_volume: bool = False  # with the instance's workspace attached: nothing to restore
    volume: Volume | None = None  # made for it, empty: its workspace once it is filled


class MachineBooted(Event, tag="machine.booted", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str
    endpoints: tuple[Endpoint, ...]
    health_check: HealthCheck = HealthCheck()


class MachineHealthy(Event, tag="machine.healthy", kw_only=True, frozen=True):
    """Probes passed. `took_ms` counts from the request for the machine."""

    instance_id: str
    machine_id: str
    provider: str
    offer: Offer
    took_ms: int


class MachineFailed(Event, tag="machine.failed", kw_only=True, frozen=True):
    """This machine will not come up. `offers` are those it was tried on; a contract that exists is destroyed next."""

    instance_id: str
    machine_id: str
    stage: AttemptStage
    reason: str
    offers: tuple[Offer, ...] = ()
    took_ms: int = 0


class MachineCancelled(Event, tag="machine.cancelled", kw_only=True, frozen=True):
    """The wish for this machine was withdrawn before it came up (on `offer`, if any); says nothing about the host."""

    instance_id: str
    machine_id: str
    offer: Offer | None = None


class MachineStopRequested(Event, tag="machine.stop_requested", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str
    provider: str
    provider_machine_id: str


class MachineStopped(Event, tag="machine.stopped", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str


class MachineStartRequested(Event, tag="machine.start_requested", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str
    provider: str
    provider_machine_id: str
    requested_at: datetime
    give_up_at: datetime


class MachineDestroyRequested(Event, tag="machine.destroy_requested", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str
    provider: str
    provider_machine_id: str


class MachineDestroyed(Event, tag="machine.destroyed", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str


class MachineLost(Event, tag="machine.lost", kw_only=True, frozen=True):
    """The provider took it, or it died. Unless `gone`, its contract remains, to be given back with the next start."""

    instance_id: str
    machine_id: str
    reason: InterruptionReason
    detail: str = ""
    gone: bool = False
