"""Which GPUs an instance may return to from a CPU machine, and in which order to try them. Pure; used by `effects`.

Rules of contract dumont 5, made safe for what a customer chose: machines of the wished model come first, as a start
would find them. Failing these, another model will do if it has at least the memory that the lost one had and costs no
more than that did; never less than 8 GB, and up to 0.50 dollars an hour in any case.
"""

from __future__ import annotations

from collections.abc import Set

from proto.instance.words import MachineSpec, Offer
from services.instance.decider.market import CANDIDATES_MAX, Choice, Host, Stock, choose

MEMORY_GB_MIN = 8
PRICE_USD_MICROS_PER_HOUR_MAX = 500_000
# Contract dumont 5. Regions of a cloud begin with these; the others come last.
REGION_ORDER = ("TH", "VN", "JP", "EU", "US")


def choose_return(
    spec: MachineSpec, lost: Offer | None, stock: Stock, *, blocked: Set[Host], known_models: Set[str]
) -> Choice:
    """`lost`: what the last GPU machine of the instance was rented as."""
    same = choose(spec, stock, blocked=blocked, known_models=known_models)
    others = sorted((offer for offer in stock.offers if _will_do(spec, lost, offer, blocked)), key=_rank)
    hosts = {(offer.provider, offer.host_id) for offer in same.offers}
    found = list(same.offers)
    for offer in others:
        if (offer.provider, offer.host_id) not in hosts and len(found) < CANDIDATES_MAX:
            hosts.add((offer.provider, offer.host_id))
            found.append(offer)
    return Choice(tuple(found), "" if found else same.code)


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
