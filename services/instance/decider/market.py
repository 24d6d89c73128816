"""Which offers fit a wish, and in which order to try them. Pure; used by `effects` at intake and by `queries`.

A listing has thousands of offers and is good for two seconds, in which thousands of wishes may come: it is laid out by
model once (`Stock`) and each kind of wish is ranked once. What somebody was refused since is left out of every choice,
so that the thousands who come after him do not ask for it too.

Rules: contract dumont 1 (GPU names, regions) and novita A7 (product selection, region fallback order).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import msgspec

from proto.instance.words import MachineSpec, Offer

RANKED_WISHES_MAX = 1_000  # kinds of wishes remembered per listing
GPU_NAMES_MAX = 4_096  # spellings remembered; clouds know some hundred models
CANDIDATES_MAX = 5  # more could not be tried within the start-up time
# Novita A7: after the preferred region, regions are tried in this order; unknown ones come last.
REGION_ORDER = ("AS-SGP-02", "CN-HK-01", "OC-AU-01", "US-CA-06", "US-WEST-01", "EU-DE-01", "EU-WEST-01", "AS-IN-01")
# Contract dumont 1 names continents; provider regions begin with these.
REGION_GROUPS = {"US": ("US-",), "EU": ("EU-",), "ASIA": ("AS-", "CN-", "JP-", "KR-")}

_MEMORY = re.compile(r"[^0-9A-Za-z](\d{1,4}) *GB$", re.IGNORECASE)
_VENDOR = re.compile(r"^(NVIDIA|GEFORCE)+")

Host = tuple[str, str]  # (provider, host id)
Lot = tuple[str, str, str]  # (provider, host id, billing): offers of one lot overlap


class GpuName(NamedTuple):
    """A GPU name in one spelling. `memory_gb` 0: not said."""

    model: str
    memory_gb: int


class Stock:
    """The offers of one listing, laid out for choosing, and what of them has been refused since."""

    def __init__(self, offers: Iterable[Offer] = ()) -> None:
        self.offers = tuple(offers)
        self._by_model: dict[str, list[Offer]] = {}
        for offer in self.offers:
            self._by_model.setdefault(parse_gpu(offer.gpu).model, []).append(offer)
        self._ranked: dict[bytes, tuple[Offer, ...]] = {}
        # Laid out when first asked for.
        self._by_host: dict[str, list[Offer]] = {}
        self._listed: set[tuple[str, str]] = set()
        self._gpus: dict[Lot, int] = {}  # of the largest offer
        self._gpus_refused: dict[Lot, int] = {}  # the fewest

    @property
    def models(self) -> Set[str]:
        return self._by_model.keys()

    @property
    def has_refusals(self) -> bool:
        """It is known to be out of date: that it has nothing left says little."""
        return bool(self._gpus_refused)

    def note_refused(self, offer: Offer) -> None:
        """A host that has not so many GPUs left has no more of them either: its offers overlap."""
        lot = lot_of(offer)
        self._gpus_refused[lot] = min(offer.gpu_count, self._gpus_refused.get(lot, offer.gpu_count))

    def has(self, offer: Offer) -> bool:
        """Whether it was listed and is not known to be gone since. A cloud that lists nothing has not answered."""
        if not self._listed:
            self._listed = {(listed.provider, name) for listed in self.offers for name in ("", listed.offer_id)}
        is_listed = (offer.provider, offer.offer_id) in self._listed or (offer.provider, "") not in self._listed
        return is_listed and not self._is_refused(offer)

    def gpus_of(self, lot: Lot) -> int:
        """How many a host surely has free, and may have more: as many as its largest offer."""
        if not self._gpus:
            for offer in self.offers:
                key = lot_of(offer)
                self._gpus[key] = max(offer.gpu_count, self._gpus.get(key, 0))
        return self._gpus.get(lot, 0)

    def left(self, offers: Iterable[Offer] | None = None) -> Iterator[Offer]:
        """Of these, or of all: what is not known to be gone."""
        return (offer for offer in (self.offers if offers is None else offers) if not self._is_refused(offer))

    def _is_refused(self, offer: Offer) -> bool:
        fewest = self._gpus_refused.get(lot_of(offer)) if self._gpus_refused else None
        return fewest is not None and offer.gpu_count >= fewest

    def of_model(self, spec: MachineSpec) -> list[Offer]:
        """Everything of the wanted GPU and kind, whether it fits or not."""
        wanted = parse_gpu(spec.gpu)
        offers = self._by_model.get(wanted.model, [])
        return [offer for offer in offers if offer.kind == spec.kind and is_same_gpu(wanted, offer)]

    def ranked(self, spec: MachineSpec) -> tuple[Offer, ...]:
        """What fits, best first; also what has been refused since."""
        wish = MachineSpec(
            gpu=spec.gpu,
            image="",
            gpu_count=spec.gpu_count,
            disk_gb=spec.disk_gb,
            region=spec.region,
            billing=spec.billing,
            kind=spec.kind,
            price_usd_micros_per_hour_max=spec.price_usd_micros_per_hour_max,
        )
        key = msgspec.json.encode(wish)
        found = self._ranked.get(key)
        if found is None:
            if len(self._ranked) >= RANKED_WISHES_MAX:
                self._ranked.clear()
            fitting = [offer for offer in self.of_model(wish) if _fits(wish, offer)]
            found = self._ranked[key] = tuple(sorted(fitting, key=lambda offer: _rank(wish, offer)))
        return found

    def roomy_first(self, spec: MachineSpec, host_gpus_min: int) -> tuple[Offer, ...]:
        """What fits, hosts with so many free GPUs before the rest: a host offers machines of up to what it has free."""
        roomy = {_host(offer) for offer in self.of_model(spec) if offer.gpu_count >= host_gpus_min}
        return tuple(sorted(self.ranked(spec), key=lambda offer: _host(offer) not in roomy))

    def ranked_on_host(self, spec: MachineSpec, host_id: str) -> tuple[Offer, ...]:
        """What fits on one host, best first: a few offers, so the whole listing is not ranked for them."""
        if not self._by_host:
            for offer in self.offers:
                self._by_host.setdefault(offer.host_id, []).append(offer)
        wanted = parse_gpu(spec.gpu)
        fitting = [offer for offer in self.left(self._by_host.get(host_id, ())) if _is_like(spec, wanted, offer)]
        return tuple(sorted(fitting, key=lambda offer: _rank(spec, offer)))


def lot_of(offer: Offer) -> Lot:
    return (offer.provider, offer.host_id, offer.billing)


class Choice(NamedTuple):
    """Candidates best first; when there are none, `code` says why."""

    offers: tuple[Offer, ...]
    code: str = ""


@lru_cache(maxsize=GPU_NAMES_MAX)
def parse_gpu(name: str) -> GpuName:
    """`RTX_4090`, `rtx-4090` and `NVIDIA GeForce RTX 4090 24GB` are one model; the last also says its memory."""
    # The size is cut off first: without its separator it would swallow the model's digits (4090 24GB).
    size = _MEMORY.search(name)
    bare = name if size is None else name[: size.start()]
    model = _VENDOR.sub("", re.sub(r"[^A-Z0-9]", "", bare.upper()))
    return GpuName(model, 0 if size is None else int(size[1]))


def is_same_gpu(wanted: GpuName, offer: Offer) -> bool:
    """Equal models; memory counts only when both say it."""
    offered = parse_gpu(offer.gpu)
    memory_gb = offered.memory_gb or offer.gpu_memory_gb
    same_memory = not wanted.memory_gb or not memory_gb or wanted.memory_gb == memory_gb
    return wanted.model == offered.model and same_memory


def places_among(names: Sequence[str]) -> Callable[[Offer], int]:
    """Where an offer's model is among these names; behind the last when it is none of them."""
    wanted = [parse_gpu(name) for name in names]
    return lambda offer: next((n for n, name in enumerate(wanted) if is_same_gpu(name, offer)), len(wanted))


def is_in_region(region: str, wanted: str) -> bool:
    """`wanted` is a provider's region, a continent, or empty for any."""
    if not wanted or region.upper() == wanted.upper():
        return True
    return region.upper().startswith(REGION_GROUPS.get(wanted.upper(), ("\0",)))


def choose(
    spec: MachineSpec,
    stock: Stock,
    *,
    blocked: Set[Host],
    known_models: Set[str],
    offer_id: str = "",
    host_gpus_min: int = 0,
    will_do: Callable[[Offer], bool] = lambda _: True,
    is_crowded: Callable[[Offer], bool] = lambda _: False,
) -> Choice:
    """The candidates for a wish; what is crowded goes last. A chosen offer stands alone, even on a blocked host: the
    mark was shown. It is tried even if somebody else was refused it.

    Hosts with `host_gpus_min` free GPUs go before all others: a standby is to be beside the machine.
    """
    if offer_id:
        chosen = tuple(offer for offer in stock.offers if offer.offer_id == offer_id and _is_affordable(spec, offer))
        return Choice(chosen[:1], "" if chosen else "OFFER_UNAVAILABLE")
    ranked = stock.roomy_first(spec, host_gpus_min) if host_gpus_min else stock.ranked(spec)
    roomy = (offer for offer in stock.left(ranked) if will_do(offer) and not is_crowded(offer))
    best = _one_per_host(chain(roomy, filter(will_do, stock.left(ranked))), blocked)
    if best:
        return Choice(best)
    is_known = bool(stock.of_model(spec)) or parse_gpu(spec.gpu).model in known_models
    return Choice((), "NO_AVAILABLE_PRODUCTS" if is_known else "PRODUCT_NOT_FOUND")


def _is_like(spec: MachineSpec, wanted: GpuName, offer: Offer) -> bool:
    return offer.kind == spec.kind and is_same_gpu(wanted, offer) and _fits(spec, offer)


def _fits(spec: MachineSpec, offer: Offer) -> bool:
    return (
        offer.gpu_count >= spec.gpu_count
        and offer.billing == spec.billing
        and (offer.disk_gb == 0 or offer.disk_gb >= spec.disk_gb)
        and _is_affordable(spec, offer)
    )


def _is_affordable(spec: MachineSpec, offer: Offer) -> bool:
    limit = spec.price_usd_micros_per_hour_max
    return limit == 0 or offer.price_usd_micros_per_hour <= limit


def _rank(spec: MachineSpec, offer: Offer) -> tuple[int, int, int, int, int, str]:
    """Preferred region, then the fallback order; no more GPUs than asked for; cheapest; then more memory and CPU."""
    return (
        _region_rank(spec.region, offer.region),
        offer.gpu_count,
        offer.price_usd_micros_per_hour,
        -offer.memory_gb,
        -offer.cpu_cores,
        offer.offer_id,
    )


def _region_rank(preferred: str, region: str) -> int:
    if is_in_region(region, preferred):
        return -1
    return REGION_ORDER.index(region) if region in REGION_ORDER else len(REGION_ORDER)


def _host(offer: Offer) -> Host:
    return (offer.provider, offer.host_id)


def _one_per_host(ranked: Iterable[Offer], blocked: Set[Host]) -> tuple[Offer, ...]:
    """The best offer of each host: when one is gone, its sisters on that host usually are."""
    best: dict[Host, Offer] = {}
    for offer in ranked:
        host = _host(offer)
        if host not in blocked and host not in best:
            best[host] = offer
            if len(best) == CANDIDATES_MAX:
                break
    return tuple(best.values())
