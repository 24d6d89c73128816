"""The market: which hosts exist, what they cost and how much of them is free at an instant.

Called by `cloud`. Pure apart from the count of what we rented: prices and other customers' demand are functions of
(seed, host, time), so that two runs with one seed show the same market. Prices are integer micro-dollars per hour;
on-demand prices are the reference prices of contract dumont 2, spot runs below them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from msgspec import Struct

from services.sandbox.options import Options
from services.sandbox.wire import Billing, Kind, OfferView

REGIONS = ("CN-HK-01", "AS-SGP-02", "AS-IN-01", "US-CA-06", "US-WEST-01", "EU-DE-01", "EU-WEST-01", "OC-AU-01")
# Whole hosts hold between one and eight GPUs; a market larger than HOSTS_MAX of them grows the hosts instead, so that
# a listing stays within a few thousand offers.
GPUS_PER_HOST = (4, 8, 2, 8)
HOSTS_MAX = 512
RENT_SIZES = (1, 2, 4, 8)
CPU_HOSTS_PER_REGION = 1
CPU_SLOTS_PER_HOST = 4_096
CPU_MODEL = "CPU 2x4GB"
PPM = 1_000_000
# Spot moves between 40 % and 90 % of the on-demand price.
SPOT_MIN_PPM, SPOT_MAX_PPM = 400_000, 900_000


class GpuModel(Struct, frozen=True):
    """One product as the seeds name it, with its on-demand reference price."""

    name: str
    memory_gb: int
    price_usd_micros_per_hour: int


MODELS = (
    GpuModel("RTX 4090 24GB", 24, 400_000),
    GpuModel("RTX 4090", 24, 400_000),
    GpuModel("RTX 3090 24GB", 24, 300_000),
    GpuModel("RTX 3090", 24, 300_000),
    GpuModel("A100 40GB", 40, 1_200_000),
    GpuModel("A100 80GB", 80, 1_800_000),
    GpuModel("H100 80GB", 80, 2_500_000),
    GpuModel("H100", 80, 2_500_000),
)
CPU_PRODUCT = GpuModel(CPU_MODEL, 0, 30_000)


class Host(Struct, frozen=True):
    """One piece of somebody's hardware. `slots` are GPUs, or machines on a CPU host."""

    host_id: str
    model: GpuModel
    region: str
    slots: int
    kind: Kind
    reliability_ppm: int
    price_ppm: int  # this host's own price level
    download_mbps: int


@dataclass(frozen=True)
class Lot:
    """What an offer id stands for."""

    host: Host
    gpu_count: int
    billing: Billing


def build_hosts(seed: int, gpus: int) -> tuple[Host, ...]:
    """The hardware of one market: every model in every region, then round again until `gpus` are there."""
    kinds = [(model, region) for model in MODELS for region in REGIONS]
    hosts: list[Host] = []
    total = 0
    while len(hosts) < len(kinds) or (total < gpus and len(hosts) < HOSTS_MAX):
        number = len(hosts)
        model, region = kinds[number % len(kinds)]
        slots = GPUS_PER_HOST[(number // len(kinds) + number) % len(GPUS_PER_HOST)]
        hosts.append(_host(seed, number, model, region, slots=slots))
        total += slots
    if total < gpus:
        scale = math.ceil(gpus / total)
        hosts = [_host(seed, n, host.model, host.region, slots=host.slots * scale) for n, host in enumerate(hosts)]
    for region in REGIONS:
        for _ in range(CPU_HOSTS_PER_REGION):
            hosts.append(_host(seed, len(hosts), CPU_PRODUCT, region, slots=CPU_SLOTS_PER_HOST, kind="cpu"))
    return tuple(hosts)


def _host(seed: int, number: int, model: GpuModel, region: str, *, slots: int, kind: Kind = "gpu") -> Host:
    return Host(
        host_id=f"host-{number:04d}",
        model=model,
        region=region,
        slots=slots,
        kind=kind,
        reliability_ppm=PPM - _drawn(seed, number, "reliability") % 60_000,
        price_ppm=900_000 + _drawn(seed, number, "price") % 200_000,
        download_mbps=300 + _drawn(seed, number, "download") % 9_700,
    )


def _drawn(*parts: object) -> int:
    """An even integer draw that depends on nothing but `parts`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _wave_ppm(seed: int, host_id: str, what: str, tick: int) -> int:
    """A smooth seeded process between 0 and PPM: three waves of unrelated periods (here ~20, 90 and 400 ticks)."""
    phase = _drawn(seed, host_id, what)
    value = 0.0
    for share, period, shift in ((0.5, 397.0, 0), (0.3, 89.0, 20), (0.2, 19.0, 40)):
        start = (phase >> shift & 0xFFFFF) / 0xFFFFF
        value += share * (0.5 + 0.5 * math.sin(2 * math.pi * (tick / period + start)))
    return int(value * PPM)


def price_of(seed: int, host: Host, billing: str, tick: int) -> int:
    """Micro-dollars per GPU and hour now."""
    on_demand = host.model.price_usd_micros_per_hour * host.price_ppm // PPM
    if billing == "on_demand":
        return on_demand
    level = SPOT_MIN_PPM + (SPOT_MAX_PPM - SPOT_MIN_PPM) * _wave_ppm(seed, host.host_id, "spot", tick) // PPM
    return on_demand * level // PPM


class Market:
    """Hosts, and how many slots of each we gave to our machines."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.hosts = {host.host_id: host for host in build_hosts(options.seed, options.market_gpus)}
        self._rented = dict.fromkeys(self.hosts, 0)
        self._tick = -1
        self._outside: dict[str, int] = {}
        self._prices: dict[tuple[str, str], int] = {}
        self._offers: dict[str, list[OfferView]] = {}  # per host; dropped when the host or the tick changes
        self.sold_out: set[str] = set()  # GPU models without capacity, by fault

    def offers(self, now_s: float) -> list[OfferView]:
        """Everything rentable at `now_s`, cheapest first."""
        self._move_to(now_s)
        for host in self.hosts.values():
            if host.host_id not in self._offers:
                self._offers[host.host_id] = self._offers_of(host)
        shown = [offer for offers in self._offers.values() for offer in offers if offer.gpu not in self.sold_out]
        shown.sort(key=_cheapest_first)
        return shown

    def lot(self, offer_id: str) -> Lot | None:
        """What an offer id means, whether or not it can be rented now."""
        host_id, _, rest = offer_id.partition(".")
        count, _, billing = rest.partition(".")
        host = self.hosts.get(host_id)
        if host is None or not (count.isascii() and count.isdigit()) or int(count) not in _sizes(host):
            return None
        match billing:
            case "spot" | "on_demand":
                return Lot(host, int(count), billing)
            case _:
                return None

    def take(self, host_id: str, slots: int, now_s: float) -> bool:
        """Rent slots of a host; False when they are not to be had."""
        self._move_to(now_s)
        host = self.hosts[host_id]
        if host.model.name in self.sold_out or self._free(host) < slots:
            return False
        self.hold(host_id, slots)
        return True

    def hold(self, host_id: str, slots: int) -> None:
        """Count slots as ours without asking: a machine that was already there."""
        self._rented[host_id] += slots
        self._offers.pop(host_id, None)

    def give_back(self, host_id: str, slots: int) -> None:
        self._rented[host_id] -= slots
        self._offers.pop(host_id, None)

    def price(self, host: Host, billing: str, now_s: float) -> int:
        self._move_to(now_s)
        key = (host.host_id, billing)
        if key not in self._prices:
            self._prices[key] = price_of(self._options.seed, host, billing, self._tick)
        return self._prices[key]

    def rentable(self) -> int:
        """GPUs free now."""
        return sum(self._free(host) for host in self.hosts.values() if host.kind == "gpu")

    def _free(self, host: Host) -> int:
        if host.host_id not in self._outside:
            wave = _wave_ppm(self._options.seed, host.host_id, "demand", self._tick)
            share = wave * self._options.outside_demand_ppm // PPM if host.kind == "gpu" else 0
            self._outside[host.host_id] = host.slots * share // PPM
        return max(0, host.slots - self._outside[host.host_id] - self._rented[host.host_id])

    def _move_to(self, now_s: float) -> None:
        tick = int(now_s // self._options.market_tick_s)
        if tick != self._tick:
            self._tick = tick
            self._outside.clear()
            self._prices.clear()
            self._offers.clear()

    def _offers_of(self, host: Host) -> list[OfferView]:
        free = self._free(host)
        return [
            self._view(host, count, billing)
            for count in _sizes(host)
            if count <= free
            for billing in ("spot", "on_demand")
        ]

    def _view(self, host: Host, count: int, billing: str) -> OfferView:
        return OfferView(
            offer_id=f"{host.host_id}.{count}.{billing}",
            host_id=host.host_id,
            gpu=host.model.name,
            gpu_count=count if host.kind == "gpu" else 0,
            gpu_memory_gb=host.model.memory_gb,
            price_usd_micros_per_hour=self.price(host, billing, self._tick * self._options.market_tick_s) * count,
            region=host.region,
            cpu_cores=16 * count if host.kind == "gpu" else 2,
            memory_gb=62 * count if host.kind == "gpu" else 4,
            disk_gb=1_000,
            download_mbps=host.download_mbps,
            upload_mbps=host.download_mbps // 2,
            reliability_ppm=host.reliability_ppm,
            verified=host.reliability_ppm >= 960_000,
            static_ip=host.price_ppm >= 1_050_000,
            cuda_version="12.8" if host.kind == "gpu" else "",
            billing=billing,
            kind=host.kind,
        )


def _sizes(host: Host) -> tuple[int, ...]:
    return tuple(size for size in RENT_SIZES if size <= host.slots) if host.kind == "gpu" else (1,)


def _cheapest_first(offer: OfferView) -> tuple[int, str]:
    return offer.price_usd_micros_per_hour, offer.offer_id
