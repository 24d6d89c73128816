"""Which other GPUs will do for one that is lost and not to be had again, and in which order. Pure; used by `effects`.

Rules of contract dumont 5, made safe for what a customer chose: machines of the wished model come first, as a start
would find them. Failing these, another model will do if it has at least the memory that the lost one had and costs no
more than that did; never less than 8 GB, and up to 0.50 dollars an hour in any case. Models that the account prefers
(`preferred_gpu_names`) go before all others, in its order; a rung that rents at once takes no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from proto.instance.words import MachineSpec, Offer
from services.instance.decider.market import (
    CANDIDATES_MAX,
    Choice,
    Host,
    Stock,
    choose,
    is_in_region,
    places_among,
)

MEMORY_GB_MIN = 8
PRICE_USD_MICROS_PER_HOUR_MAX = 500_000
# Contract dumont 5. Regions of a cloud begin with these; the others come last.
REGION_ORDER = ("TH", "VN", "JP", "EU", "US")


def choose_return(
    spec: MachineSpec,
    lost: Offer | None,
    stock: Stock,
    *,
    names: Sequence[str],
    blocked: Set[Host],
    known_models: Set[str],
) -> Choice:
    """`lost`: what the last GPU machine of the instance was rented as. `names`: models that the account prefers."""
    same = choose(spec, stock, blocked=blocked, known_models=known_models)
    place = places_among(names)
    fitting = (offer for offer in stock.left() if _will_do(spec, lost, offer, blocked))
    others = sorted(fitting, key=lambda offer: (place(offer), _rank(offer)))
    found = _one_per_host((*same.offers, *others))
    return Choice(found, "" if found else same.code)


def choose_preferred(
    spec: MachineSpec,
    lost: Offer | None,
    stock: Stock,
    *,
    names: Sequence[str],
    blocked: Set[Host],
    is_bound_to_region: bool,
) -> tuple[Offer, ...]:
    """For a machine whose own model is not to be had: what the account has named, near to where it was first."""
    place = places_among(names)

    def rank(offer: Offer) -> tuple[int, bool, int, int, str]:
        is_elsewhere = not is_in_region(offer.region, spec.region)
        return (place(offer), is_elsewhere, offer.gpu_count, offer.price_usd_micros_per_hour, offer.offer_id)

    fitting = [
        offer
        for offer in stock.left()
        if place(offer) < len(names)
        and _will_do(spec, lost, offer, blocked)
        and (is_in_region(offer.region, spec.region) or not is_bound_to_region)
    ]
    return _one_per_host(sorted(fitting, key=rank))


def _one_per_host(ranked: Iterable[Offer]) -> tuple[Offer, ...]:
    """The first of each host: what comes later of one is mostly gone with it."""
    found: dict[Host, Offer] = {}
    for offer in ranked:
        found.setdefault((offer.provider, offer.host_id), offer)
        if len(found) == CANDIDATES_MAX:
            break
    return tuple(found.values())


def _will_do(spec: MachineSpec, lost: Offer | None, offer: Offer, blocked: Set[Host]) -> bool:
    memory_gb_min = max(MEMORY_GB_MIN, 0 if lost is None else lost.gpu_memory_gb)
    price_max = max(PRICE_USD_MICROS_PER_HOUR_MAX, 0 if lost is None else lost.price_usd_micros_per_hour)
    if spec.price_usd_micros_per_hour_max:
        price_max = min(price_max, spec.price_usd_micros_per_hour_max)
    return (
        offer.kind == "gpu"
        and offer.gpu_count >= spec.gpu_count
        and offer.billing == spec.billing
        and offer.gpu_memory_gb >= memory_gb_min
        and (offer.disk_gb == 0 or offer.disk_gb >= spec.disk_gb)
        and offer.price_usd_micros_per_hour <= price_max
        and (offer.provider, offer.host_id) not in blocked
    )


def _rank(offer: Offer) -> tuple[int, int, int, str]:
    region = offer.region.upper()
    place = next((n for n, prefix in enumerate(REGION_ORDER) if region.startswith(prefix)), len(REGION_ORDER))
    return (place, offer.gpu_count, offer.price_usd_micros_per_hour, offer.offer_id)
