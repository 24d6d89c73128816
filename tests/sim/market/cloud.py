"""A spot market in three regions: zones that run dry, hosts whose GPUs others bid away, prices, and a meter.

Used by the market simulation. It is the simulation's cloud (`tests.sim.cloud`) with a market instead of random faults:
the provider port over it is the same, so a new call that a strategy needs is there as soon as the simulation has it.
Owns what is rented, what it costs, and whose files are where.

Assumptions, each a named number: in an outage nothing is to be had in the zone, and half of the outages take every
machine that runs there, the others every second one (published counts of nodes show both); CPU machines are always
to be had and never taken; others bid for 1 to 8 GPUs of a host now and then, whether free or ours; a machine boots in
half a minute to three minutes, one that was stopped in less; news of a loss takes up to ten seconds, as a poll would.
A second GPU model has outages of its own, with the same figures: nothing is published on how models go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from msgspec.structs import replace

from libs.sim.chance import Chance
from libs.sim.trace import Trace
from proto.instance.words import Offer
from services.instance.decider.market import Stock
from services.instance.effects import World
from services.instance.providers import MachineOrder, OfferGone, ProviderStatus, ProviderVolume
from tests.sim.cloud import HONEST, NAME, FakeCloud, Rented, SimProvider
from tests.sim.market.strategies import SECOND_GPU
from tests.sim.market.weather import HOUR_S, Z_95, ZONES, Outage, Zone, log_normal_s

GPUS_PER_HOST = 8
WHOLE_ZONE_SHARE, TAKEN_SHARE = 0.5, 0.5
OTHERS_EVERY_H = 24.0  # per host: how often somebody else asks for GPUs of it
OTHERS_GPUS, OTHERS_WEIGHTS = (1, 2, 4, 8), (4, 3, 2, 1)
OTHERS_HOLD_P50_MIN, OTHERS_HOLD_P95_MIN = 180.0, 2_880.0
BOOT_S, RESTART_S = (30.0, 180.0), (10.0, 40.0)
NEWS_S_MAX = 10.0  # unless the account wants its machines looked at more often


class Model(NamedTuple):
    """A GPU model that the market has, in machines of one."""

    gpu: str
    memory_gb: int
    usd_micros_per_hour: int  # on demand at AWS, us-east-1
    hosts_per_zone: int


FIRST = Model("V100", 16, 3_060_000, 12)
SECOND = Model(SECOND_GPU, 24, 1_006_000, 4)
CPU = "CPU 2x4GB"
CPU_USD_MICROS = 33_500  # an hour of an e2-medium on demand at GCP, us-central1
SPOT_SHARE = 0.3  # of that price, at the dearest host twice the spread above it
SPOT_SPREAD = 0.25
STORAGE_USD_MICROS = 14_000  # an hour of 100 GB: of a machine that is off, or of a volume of a region at any time


@dataclass
class Host:
    """Hardware of one zone. `others`: GPUs that somebody else has."""

    offer: Offer
    offer_of_two: Offer
    zone: Zone
    model: Model
    is_out: bool = False
    others: int = 0
    ours: dict[str, Rented] = field(default_factory=dict[str, Rented])  # machines that hold a GPU

    @property
    def free(self) -> int:
        return 0 if self.is_out else GPUS_PER_HOST - self.others - len(self.ours)

    @property
    def offers(self) -> tuple[Offer, ...]:
        """A machine of one GPU, and where there are more, of two: by that a host with room for a standby is known."""
        return (self.offer, self.offer_of_two)[: self.free] if self.free > 0 else ()


HOLDS_GPU: frozenset[ProviderStatus] = frozenset({"creating", "running", "stopping"})


class MarketCloud(FakeCloud):
    """What is rented, to whom news is told, and what it costs."""

    def __init__(self, chance: Chance, trace: Trace, models: Sequence[Model] = (FIRST,)) -> None:
        super().__init__(chance, trace, lies=HONEST)
        self.news_s_max = NEWS_S_MAX
        self._random = chance.generator("market/hosts")
        self.hosts = {host.offer.host_id: host for model in models for host in self._hosts(model, self._random)}
        self._always = (*_on_demand(), *_cpus())
        self._listing: tuple[Offer, ...] | None = None  # until a host has another number of free GPUs
        self._live: dict[str, Rented] = {}
        self._since_s: dict[str, float] = {}
        self._kept_since_s: dict[str, float] = {}
        self.cost_usd_micros = 0.0
        self.on_taken: Callable[[Rented], None] = _nobody_asks

    def _hosts(self, model: Model, random: Random) -> Iterable[Host]:
        for zone in ZONES:
            for number in range(model.hosts_per_zone):
                share = SPOT_SHARE * (1 + random.uniform(-SPOT_SPREAD, 2 * SPOT_SPREAD))
                price_usd_micros = round(model.usd_micros_per_hour * share)
                offer = _offer(f"{zone.name}/{model.gpu}/h{number}", zone, price_usd_micros, model)
                of_two = replace(
                    offer, offer_id=f"{offer.offer_id}x2", gpu_count=2, price_usd_micros_per_hour=2 * price_usd_micros
                )
                yield Host(offer, of_two, zone, model)

    # --- the market ---------------------------------------------------------------------------------------------

    def offers(self) -> Sequence[Offer]:
        """Hosts with free GPUs; a machine on demand in every zone; a CPU machine in every region."""
        if self._listing is None:
            free = [offer for host in self.hosts.values() for offer in host.offers]
            self._listing = (*free, *self._always)
        return self._listing

    def create(self, order: MachineOrder) -> Rented:
        assert order.offer.gpu_count == 1, f"nobody wishes for {order.offer.gpu_count}"
        host = self.hosts.get(order.offer.host_id)
        if host is not None and host.free <= 0:
            raise OfferGone(order.offer.offer_id)
        number = len(self.rented) + 1
        own_offer = replace(order.offer, offer_id=f"{order.offer.offer_id}#{number}")
        return super().create(replace(order, offer=own_offer))

    def known(self) -> list[Rented]:
        return self.alive()

    def alive(self) -> list[Rented]:
        return list(self._live.values())

    def can_start(self, machine: Rented) -> bool:
        host = self.hosts.get(machine.offer.host_id)
        return host is None or host.free > 0

    def boot(self, machine: Rented) -> None:
        """A stopped machine has no GPU: it may be somebody else's by now."""
        if not self.can_start(machine):
            raise OfferGone(machine.provider_machine_id)
        machine.boots += 1
        self._become(machine, "creating")
        span = BOOT_S if machine.boots == 1 else RESTART_S
        self._later(self._random.uniform(*span), machine, "creating", "running")

    # --- what is taken ------------------------------------------------------------------------------------------

    def strike(self, outage: Outage, model: Model) -> list[Host]:
        """A zone runs dry: nothing is to be had there until `recover`, and machines that run there are taken."""
        hosts = [
            host
            for host in self.hosts.values()
            if host.zone.name == outage.zone and host.model is model and not host.is_out
        ]
        taken_share = 1.0 if self._random.random() < WHOLE_ZONE_SHARE else TAKEN_SHARE
        self._listing = None
        for host in hosts:
            host.is_out = True
            for machine in list(host.ours.values()):
                if self._random.random() < taken_share:
                    self.preempt(machine)
        return hosts

    def recover(self, hosts: Iterable[Host]) -> None:
        self._listing = None
        for host in hosts:
            host.is_out = False

    async def outside_demand(self, until_s: float) -> None:
        """Others take GPUs of hosts and give them back."""
        loop, random = asyncio.get_running_loop(), self.chance.generator("market/others")
        mean_s = OTHERS_EVERY_H * HOUR_S / len(self.hosts)
        hosts = list(self.hosts.values())
        while loop.time() < until_s:
            await asyncio.sleep(random.expovariate(1 / mean_s))
            host = random.choice(hosts)
            wanted = min(random.choices(OTHERS_GPUS, OTHERS_WEIGHTS)[0], GPUS_PER_HOST - host.others)
            if host.is_out or wanted == 0:
                continue
            slots = [*host.ours.values(), *[None] * host.free]
            for machine in random.sample(slots, k=wanted):
                if machine is not None:
                    self.preempt(machine)
            self._take(host, wanted)
            held_s = log_normal_s(OTHERS_HOLD_P50_MIN, OTHERS_HOLD_P95_MIN, Z_95, random)
            loop.call_later(held_s, self._take, host, -wanted)

    def _take(self, host: Host, gpus: int) -> None:
        host.others += gpus
        self._listing = None

    def preempt(self, machine: Rented) -> None:
        super().preempt(machine)
        self.on_taken(machine)

    # --- the meter and the news ---------------------------------------------------------------------------------

    def _become(self, machine: Rented, status: ProviderStatus) -> None:
        self._charge(machine)
        machine.status = status
        if status in ("creating", "running"):
            machine.interruption = None
        key = machine.provider_machine_id
        if status == "gone":
            self._live.pop(key, None)
        else:
            self._live[key] = machine
        host = self.hosts.get(machine.offer.host_id)
        if host is not None:
            self._listing = None
            if status in HOLDS_GPU:
                host.ours[key] = machine
            else:
                host.ours.pop(key, None)
        delay_s = self._random.uniform(0, self.news_s_max)
        for queue in self.listeners:
            asyncio.get_running_loop().call_later(delay_s, queue.put_nowait, key)

    def _charge(self, machine: Rented) -> None:
        """For the time in the status it leaves now: a machine that is off costs its disk."""
        key, now_s = machine.provider_machine_id, self.now_s()
        hours = (now_s - self._since_s.get(key, now_s)) / HOUR_S
        self._since_s[key] = now_s
        if machine.status in HOLDS_GPU:
            self.cost_usd_micros += hours * machine.offer.price_usd_micros_per_hour
        elif machine.status in ("stopped", "exited"):
            self.cost_usd_micros += hours * STORAGE_USD_MICROS

    def keep(self, volume: ProviderVolume) -> None:
        super().keep(volume)
        self._kept_since_s.setdefault(volume.volume_id, self.now_s())

    def drop(self, volume_id: str) -> None:
        super().drop(volume_id)
        since_s = self._kept_since_s.pop(volume_id, None)
        if since_s is not None:
            self.cost_usd_micros += (self.now_s() - since_s) / HOUR_S * STORAGE_USD_MICROS

    def close_meter(self) -> None:
        for machine in self.alive():
            self._charge(machine)
        for volume_id in list(self._kept_since_s):
            self.drop(volume_id)


class MarketWorld(World):
    """The instance service's outside, with the market as it stands: a listing is laid out when there is another one."""

    async def offers(self, age_s_max: float = 0.0) -> Stock:
        del age_s_max  # it is as it is now
        provider = self.providers[NAME]
        assert isinstance(provider, SimProvider), "the market is simulated"
        offers = provider.cloud.offers()
        if offers != self.market.stock.offers or self.market.stock.has_refusals:
            self.market.stock = Stock(offers)
            self.market.models |= self.market.stock.models
        return self.market.stock


def _offer(host_id: str, zone: Zone, price_usd_micros: int, model: Model = FIRST) -> Offer:
    return Offer(
        offer_id=host_id,
        provider=NAME,
        host_id=host_id,
        gpu=model.gpu,
        gpu_memory_gb=model.memory_gb,
        price_usd_micros_per_hour=price_usd_micros,
        region=zone.region,
        billing="spot",
    )


def _on_demand() -> Iterable[Offer]:
    for zone in ZONES:
        yield replace(_offer(f"od-{zone.name}", zone, FIRST.usd_micros_per_hour), billing="on_demand")


def _cpus() -> Iterable[Offer]:
    for zone in {zone.region: zone for zone in ZONES}.values():
        offer = _offer(f"cpu-{zone.region}", zone, CPU_USD_MICROS)
        yield replace(offer, gpu=CPU, gpu_memory_gb=0, kind="cpu", billing="on_demand")


def _nobody_asks(_machine: Rented) -> None:
    return
