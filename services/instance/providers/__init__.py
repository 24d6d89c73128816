"""The provider port: all that the instance service needs of a GPU cloud, in the cloud's absence of manners.

Implemented by one module per cloud (`sandbox.py` is the default); every adapter passes
`libs/spec/provider_contract.py`.
Called only by `services.instance.effects`. Nothing outside this package talks to a cloud.

Ground rules (design 5, docs/adr/0009):
- `label` is our machine id. The adapter puts our platform's id before it (`labels`): it is the only name we choose, so
  it is how an unknown outcome is found again, and how platforms on one account tell their machines apart.
- Only `create` may raise OutcomeUnknown; the caller then looks for the label before it tries again.
- Stopping, starting and destroying are idempotent; destroying what is gone succeeds.
- A listing may lag a create by a few seconds (`list_lag_s`); absence is believed only after that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from proto.instance.words import Endpoint, InterruptionReason, MachineSpec, Offer

# creating: accepted, not yet up; gone: the provider no longer knows it.
ProviderStatus = Literal["creating", "running", "stopping", "stopped", "exited", "failed", "gone"]


class Capabilities(Struct, frozen=True):
    """What a cloud can do; the service never asks which cloud it is."""

    spot: bool
    regional_volumes: bool  # volumes that outlive machines, had by one machine of their region at a time
    shared_volume: bool
    stopped_keeps_gpu: bool
    push_signals: bool
    idempotent_create: bool
    list_lag_s: float


class ProviderMachine(Struct, frozen=True):
    """One machine as the cloud reports it now. `label`: empty for what is not this platform's."""

    provider_machine_id: str
    label: str
    status: ProviderStatus
    offer_id: str = ""
    host_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    interruption: InterruptionReason | None = None  # why it is exited, when the cloud says so
    detail: str = ""
    volume_id: str = ""


class ProviderVolume(Struct, frozen=True):
    """One volume of this platform as the cloud lists it: of a host, or of a region. `name` is the machine that it was
    made for, marked as a label is."""

    volume_id: str
    name: str
    region: str = ""
    host_id: str = ""


class News(Struct, frozen=True):
    """Something happened to a machine. `status` is what it had become then, where the cloud says so; it may have
    moved on."""

    provider_machine_id: str
    status: ProviderStatus | None = None


class MachineOrder(Struct, frozen=True):
    """What is handed to the cloud when renting. `environment` carries the agent's token and gateway URL: never log
    it."""

    label: str
    offer: Offer
    spec: MachineSpec
    environment: dict[str, str]
    volume_id: str = ""  # a volume of the offer's host or region, to be the workspace
    mount_path: str = ""  # where a region's volume is to be seen, beside the workspace
    inbox_public_keys: tuple[str, ...] = ()  # may hand files in under `/.dumont/inbox` by SFTP, and nothing else

    def __repr__(self) -> str:
        return f"MachineOrder(label={self.label!r}, offer={self.offer.offer_id!r})"


class OfferGone(Exception):
    """The offer was rented by somebody else or withdrawn: try the next one."""


class OrderRejected(Exception):
    """The cloud will not do this order at any host (bad image, quota): trying other offers is pointless."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class ProviderCharge(Struct, frozen=True):
    """What a cloud charged us for a stretch of one machine, or of a volume (`volume_id`), as it rounds. `number` counts
    its charges up. `label` as in ProviderMachine; a volume has that of the machine that it was made for."""

    number: int
    charge_id: str
    label: str
    since: datetime
    until: datetime
    usd_micros: int
    volume_id: str = ""


class TellsCharges(Protocol):
    """A cloud whose charges can be asked for; most publish them late."""

    async def charges(self, *, after: int) -> Sequence[ProviderCharge]:
        """Published charges with a higher number, lowest first, a page at a time. Raises Transient."""
        ...


class Provider(Protocol):
    """One GPU cloud. Every call has its own time limit inside the adapter; all raise libs.refusal.Transient when the
    cloud is unwell."""

    name: str
    capabilities: Capabilities

    async def offers(self) -> Sequence[Offer]:
        """Everything one could rent now, cheapest first."""
        ...

    async def create(self, order: MachineOrder) -> ProviderMachine:
        """Rent. Raises OfferGone, OrderRejected, Transient (surely not created, also while another machine has the
        region's volume) or OutcomeUnknown."""
        ...

    async def find(self, label: str) -> ProviderMachine | None:
        """The machine carrying our label, if the cloud has one."""
        ...

    async def get(self, provider_machine_id: str) -> ProviderMachine:
        """Its current state; status `gone` when the cloud does not know it."""
        ...

    async def machines(self) -> Sequence[ProviderMachine]:
        """Everything the account rents there now: the census."""
        ...

    async def start(self, provider_machine_id: str) -> None:
        """Raises OfferGone when its GPU is no longer to be had."""
        ...

    async def stop(self, provider_machine_id: str) -> None: ...

    async def destroy(self, provider_machine_id: str) -> None: ...

    async def share_workspace(self, provider_machine_id: str, *, name: str, size_gb: int) -> str:
        """Make a machine's workspace a volume that others on its host can have; returns its id. The machine goes on
        using it, and a machine that has a volume keeps that one. Raises OfferGone when the machine is no more. Called
        only where `shared_volume` is a capability."""
        ...

    async def make_volume(self, *, name: str, region: str, size_gb: int) -> str:
        """An empty volume of a region; the same name there gives the same volume, so an unknown outcome is simply
        tried again. Called only where `regional_volumes` is a capability. Raises OrderRejected."""
        ...

    async def volumes(self) -> Sequence[ProviderVolume]:
        """Every volume we have there now: the census."""
        ...

    async def destroy_volume(self, volume_id: str) -> None:
        """Give it back, files and all; one that is gone is fine. Transient while a machine still has it."""
        ...

    def signals(self) -> AsyncIterator[News]:
        """Machines that have news, as hints to `get`; may repeat, get lost or be late. For ever."""
        ...

    async def close(self) -> None: ...
