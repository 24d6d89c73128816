"""A GPU cloud for the simulation: rents, boots, preempts, and lies about it by seed.

`FakeCloud` is the outside world: it survives every kill of our processes and counts what it was asked to do.
`SimProvider` is the provider port as one life of a process sees it. Lies: a create that times out after creating or
before it creates, lists that lag, signals lost, repeated and out of order, machines that never boot or fail,
spontaneous preemption, calls that fail before or after they took effect, machines said to run when they are gone and
said to be gone when they run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from libs.refusal import OutcomeUnknown, Transient
from libs.sim.chance import Chance, Draws
from libs.sim.life import Life
from libs.sim.trace import Trace
from proto.instance.words import Endpoint, InterruptionReason, Offer
from services.instance.providers import (
    Capabilities,
    MachineOrder,
    News,
    OfferGone,
    OrderRejected,
    ProviderMachine,
    ProviderStatus,
    ProviderVolume,
)
from tests.sim.lies import HONEST, Lies

NAME = "fake"
LIST_LAG_S = 2.0
CALL_S_MAX = 4.0  # how long a call waits for an answer that does not come
STOP_S_MAX = 2.0
SIGNAL_LATE_S_MAX = 5.0
UNSEEN_S_MAX = 20.0  # two polls
PORTS_PER_MACHINE = 100


@dataclass
class Rented:
    """One machine as it really is."""

    provider_machine_id: str
    label: str
    offer: Offer
    seen_from_s: float  # lists show it from then on
    status: ProviderStatus = "creating"
    interruption: InterruptionReason | None = None
    boots: int = 0
    ports: tuple[int, ...] = ()
    volume_id: str = ""
    shown_as: ProviderStatus = "creating"  # what the cloud says until `shown_until_s`
    shown_until_s: float = 0.0


@dataclass
class FakeCloud:
    """What is rented, and to whom news is told."""

    chance: Chance
    trace: Trace
    lies: Lies = field(default_factory=Lies)
    rented: dict[str, Rented] = field(default_factory=dict[str, Rented])
    creates: dict[str, int] = field(default_factory=dict[str, int])  # per label: how many machines were made
    listeners: list[asyncio.Queue[str]] = field(default_factory=list[asyncio.Queue[str]])
    market: Sequence[Offer] = ()
    volumes: dict[str, ProviderVolume] = field(default_factory=dict[str, ProviderVolume])

    def __post_init__(self) -> None:
        self.draws = Draws(self.chance, "cloud")
        random = self.chance.generator("market")
        self.market = [
            Offer(
                offer_id=f"offer_{number}",
                provider=NAME,
                host_id=f"host-{number % 5}",
                gpu="RTX 4090",
                price_usd_micros_per_hour=random.randrange(200_000, 900_000),
                region=random.choice(["eu", "us"]),
                gpu_memory_gb=24,
                disk_gb=500,
                billing="spot",
            )
            for number in range(12)
        ]
        self.market = [*sorted(self.market, key=lambda offer: offer.price_usd_micros_per_hour), *_cpus()]

    def calm(self) -> None:
        """From now on it tells the truth and takes nothing away."""
        self.lies = HONEST

    def known(self) -> list[Rented]:
        """Every machine that a listing may still show."""
        return list(self.rented.values())

    def alive(self) -> list[Rented]:
        """Machines that still cost money."""
        return [machine for machine in self.rented.values() if machine.status != "gone"]

    def offers(self) -> Sequence[Offer]:
        """What one could rent now."""
        taken = {machine.offer.offer_id for machine in self.alive()}
        return [offer for offer in self.market if offer.offer_id not in taken]

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def create(self, order: MachineOrder) -> Rented:
        taken = {machine.offer.offer_id for machine in self.alive()}
        self._attach(order)
        if order.offer.offer_id in taken or self.draws.happens(self.lies.offer_gone):
            raise OfferGone(order.offer.offer_id)
        self.creates[order.label] = self.creates.get(order.label, 0) + 1
        machine = self._rent(order.label, order.offer, tuple(port.port for port in order.spec.ports))
        machine.volume_id = order.volume_id
        return machine

    def _attach(self, order: MachineOrder) -> None:
        """A region's volume is one machine's at a time, and stays where it is."""
        volume = self.volumes.get(order.volume_id)
        if not order.volume_id:
            return
        if volume is None:  # destroyed with its instance while the order was on its way
            raise OrderRejected("volume_unknown", order.volume_id)
        assert volume.region in ("", order.offer.region), f"{volume.volume_id} is not in {order.offer.region}"
        if volume.region and any(machine.volume_id == volume.volume_id for machine in self.alive()):
            raise Transient(f"{volume.volume_id} is in use")

    def keep(self, volume: ProviderVolume) -> None:
        self.volumes.setdefault(volume.volume_id, volume)

    def drop(self, volume_id: str) -> None:
        self.volumes.pop(volume_id, None)

    def appear(self, label: str) -> Rented:
        """A machine that we did not ask for, at least not this time."""
        return self._rent(label, self.market[-1], ())

    def _rent(self, label: str, offer: Offer, ports: tuple[int, ...]) -> Rented:
        machine = Rented(
            provider_machine_id=f"pm-{len(self.rented) + 1}",
            label=label,
            offer=offer,
            seen_from_s=self.now_s() + self.draws.up_to(LIST_LAG_S),
            ports=ports,
        )
        self.rented[machine.provider_machine_id] = machine
        self.trace.note("cloud created", machine.provider_machine_id, label)
        self.boot(machine)
        return machine

    def boot(self, machine: Rented) -> None:
        machine.boots += 1
        self._become(machine, "creating")
        fate: ProviderStatus = "failed" if self.draws.happens(self.lies.boot_fails) else "running"
        if not self.draws.happens(self.lies.boot_hangs):
            self._later(self.draws.up_to(self.lies.boot_s_max), machine, "creating", fate)

    def stop(self, machine: Rented) -> None:
        if machine.status in ("creating", "running", "failed"):
            self._become(machine, "stopping")
            self._later(self.draws.up_to(STOP_S_MAX), machine, "stopping", "stopped")

    def destroy(self, machine: Rented) -> None:
        if machine.status != "gone":
            self._become(machine, "gone")

    def preempt(self, machine: Rented) -> None:
        """The spot market takes it: off, its disk lost or not, and not to be started again without its GPU."""
        machine.interruption = "spot_preemption"
        self._become(machine, "exited")

    async def preempt_now_and_then(self) -> None:
        random = self.chance.generator("preemption")
        while (mean_s := self.lies.preempt_every_s) > 0:
            await asyncio.sleep(random.expovariate(1 / mean_s))
            running = [machine for machine in self.rented.values() if machine.status == "running"]
            if running:
                self.preempt(random.choice(running))

    def _later(self, seconds: float, machine: Rented, if_still: ProviderStatus, status: ProviderStatus) -> None:
        boots = machine.boots

        def happen() -> None:
            if machine.status == if_still and machine.boots == boots:
                self._become(machine, status)

        asyncio.get_running_loop().call_later(seconds, happen)

    def create_late(self, order: MachineOrder) -> None:
        """The order is carried out some time after it was sent, and shows in lists no later than any other would."""
        sent_s = self.now_s()

        def happen() -> None:
            self.trace.note("cloud lies", "late create of", order.label)
            with contextlib.suppress(OfferGone, OrderRejected):  # nobody waits for an answer
                machine = self.create(order)
                machine.seen_from_s = min(machine.seen_from_s, sent_s + LIST_LAG_S)

        asyncio.get_running_loop().call_later(self.draws.up_to(LIST_LAG_S), happen)

    def shown_status(self, machine: Rented) -> ProviderStatus:
        """What the cloud says, which for a while may be what was."""
        if self.lies.ends_unseen and self.now_s() < machine.shown_until_s:
            return machine.shown_as
        return machine.status

    def _become(self, machine: Rented, status: ProviderStatus) -> None:
        if status in ("exited", "gone") and self.draws.happens(self.lies.ends_unseen):
            machine.shown_as, machine.shown_until_s = machine.status, self.now_s() + self.draws.up_to(UNSEEN_S_MAX)
        machine.status = status
        if status in ("creating", "running"):
            machine.interruption = None
        self.trace.note("cloud", machine.provider_machine_id, status)
        for queue in self.listeners:
            if self.draws.happens(self.lies.signal_late):
                late_s = self.draws.up_to(SIGNAL_LATE_S_MAX)
                asyncio.get_running_loop().call_later(late_s, queue.put_nowait, machine.provider_machine_id)
            elif not self.draws.happens(self.lies.signal_lost):
                queue.put_nowait(machine.provider_machine_id)
            if self.draws.happens(self.lies.signal_doubled):
                queue.put_nowait(machine.provider_machine_id)


def _cpus() -> list[Offer]:
    return [
        Offer(
            offer_id=f"cpu_{number}", provider=NAME, host_id=f"cpu-host-{number}", gpu="CPU 2x4GB", kind="cpu",
            price_usd_micros_per_hour=30_000, region="us", disk_gb=500, billing="on_demand",
        )
        for number in range(4)
    ]  # fmt: skip


class SimProvider:
    """The provider port of one life."""

    name = NAME
    capabilities = Capabilities(
        spot=True,
        regional_volumes=True,
        shared_volume=True,
        stopped_keeps_gpu=False,
        push_signals=True,
        idempotent_create=False,
        list_lag_s=LIST_LAG_S,
    )

    def __init__(self, cloud: FakeCloud, life: Life) -> None:
        self.cloud = cloud
        self._life = life

    async def offers(self) -> Sequence[Offer]:
        await self._reach("offers")
        return self.cloud.offers()

    async def create(self, order: MachineOrder) -> ProviderMachine:
        await self._reach("create")
        lies, draws = self.cloud.lies, self._life.draws
        if draws.happens(lies.create_times_out_uncreated):
            await self._life.pause(CALL_S_MAX)
            raise OutcomeUnknown("create: no answer")
        if draws.happens(lies.create_late):
            self.cloud.create_late(order)
            await self._life.pause(CALL_S_MAX)
            raise OutcomeUnknown("create: no answer")
        machine = self.cloud.create(order)
        if draws.happens(lies.create_times_out_created):
            await self._life.pause(CALL_S_MAX)
            raise OutcomeUnknown("create: no answer")
        await self._life.step()
        return _shown(machine, machine.status)

    async def find(self, label: str) -> ProviderMachine | None:
        return next((machine for machine in await self.machines() if machine.label == label), None)

    async def get(self, provider_machine_id: str) -> ProviderMachine:
        await self._reach("get")
        machine = self.cloud.rented.get(provider_machine_id)
        if machine is None:
            return ProviderMachine(provider_machine_id, "", "gone")
        if machine.status == "running" and self._life.draws.happens(self.cloud.lies.gone_while_running):
            self.cloud.trace.note("cloud lies", provider_machine_id, "gone though running")
            return ProviderMachine(provider_machine_id, "", "gone")
        shown = self.cloud.shown_status(machine)
        if shown != machine.status:
            self.cloud.trace.note("cloud lies", provider_machine_id, shown, "though", machine.status)
        return _shown(machine, shown)

    async def machines(self) -> Sequence[ProviderMachine]:
        await self._reach("machines")
        now_s = self.cloud.now_s()
        seen = [(m, self.cloud.shown_status(m)) for m in self.cloud.known() if m.seen_from_s <= now_s]
        return [_shown(machine, status) for machine, status in seen if status != "gone"]

    async def start(self, provider_machine_id: str) -> None:
        machine = await self._machine(provider_machine_id, "start")
        if machine is None or machine.status in ("gone", "exited", "failed"):
            raise OfferGone(provider_machine_id)
        if machine.status in ("stopped", "stopping"):
            if self._life.draws.happens(self.cloud.lies.offer_gone):
                raise OfferGone(provider_machine_id)
            self.cloud.boot(machine)
        await self._answer("start")

    async def stop(self, provider_machine_id: str) -> None:
        machine = await self._machine(provider_machine_id, "stop")
        if machine is not None:
            self.cloud.stop(machine)
        await self._answer("stop")

    async def destroy(self, provider_machine_id: str) -> None:
        machine = await self._machine(provider_machine_id, "destroy")
        if machine is not None:
            self.cloud.destroy(machine)
        await self._answer("destroy")

    async def share_workspace(self, provider_machine_id: str, *, name: str, size_gb: int) -> str:
        machine = await self._machine(provider_machine_id, "share")
        if machine is None or machine.status in ("gone", "exited"):
            raise OfferGone(provider_machine_id)
        if not machine.volume_id:
            machine.volume_id = f"vol_{name}"
            self.cloud.volumes[machine.volume_id] = ProviderVolume(
                machine.volume_id, name, host_id=machine.offer.host_id
            )
        await self._answer("share")
        return machine.volume_id

    async def make_volume(self, *, name: str, region: str, size_gb: int) -> str:
        await self._reach("make volume")
        volume_id = f"vol_{name}_{region}"
        self.cloud.keep(ProviderVolume(volume_id, name, region=region))
        await self._answer("make volume")
        return volume_id

    async def volumes(self) -> Sequence[ProviderVolume]:
        await self._reach("volumes")
        return list(self.cloud.volumes.values())

    async def destroy_volume(self, volume_id: str) -> None:
        await self._reach("destroy volume")
        if any(machine.volume_id == volume_id for machine in self.cloud.alive()):
            raise Transient(f"{volume_id} is in use")
        self.cloud.drop(volume_id)
        await self._answer("destroy volume")

    async def signals(self) -> AsyncIterator[News]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self.cloud.listeners.append(queue)
        try:
            while True:
                hint = await queue.get()
                await self._life.step()
                yield News(hint)
        finally:
            self.cloud.listeners.remove(queue)

    async def close(self) -> None:
        return

    async def _machine(self, provider_machine_id: str, what: str) -> Rented | None:
        await self._reach(what)
        return self.cloud.rented.get(provider_machine_id)

    async def _reach(self, what: str) -> None:
        await self._life.step()
        if self._life.draws.happens(self.cloud.lies.call_fails_before):
            raise Transient(f"{what}: the cloud is unwell")

    async def _answer(self, what: str) -> None:
        await self._life.step()
        if self._life.draws.happens(self.cloud.lies.call_fails_after):
            raise Transient(f"{what}: the answer got lost")


def _shown(machine: Rented, status: ProviderStatus) -> ProviderMachine:
    first = int(machine.provider_machine_id.removeprefix("pm-")) * PORTS_PER_MACHINE
    endpoints = tuple(
        Endpoint(port=port, host="127.0.0.1", public_port=first + index, protocol="http")
        for index, port in enumerate(machine.ports)
    )
    return ProviderMachine(
        provider_machine_id=machine.provider_machine_id,
        label=machine.label,
        status=status,
        offer_id=machine.offer.offer_id,
        host_id=machine.offer.host_id,
        endpoints=endpoints if status == "running" else (),
        interruption=machine.interruption if status == machine.status else None,
        volume_id=machine.volume_id,
    )
