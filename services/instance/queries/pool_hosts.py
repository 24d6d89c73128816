"""Which hosts could carry a warm pool: several free GPUs of one model on one machine (contract dumont 4).

Offers of one host overlap (one of two GPUs is inside one of four), so a host has as many free GPUs as its largest
offer says, not as many as its offers add up to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proto.instance.queries import LIST_LIMIT_MAX, HostList, HostView, ListHosts
from proto.instance.words import Offer
from services.instance.decider.market import Stock, is_same_gpu, parse_gpu, places_among

POOL_GPUS_MIN = 2
OFFERS_SHOWN_MAX = 5  # contract dumont 4


class World(Protocol):
    """What this question needs of the outside."""

    async def offers(self) -> Stock: ...


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def world(self) -> World: ...


async def list_hosts(query: ListHosts, context: Context) -> HostList:
    """Preferred models first, then the most reliable for the money. A host that was asked for by name is shown whatever
    it has free."""
    wanted = parse_gpu(query.gpu) if query.gpu else None
    by_host: dict[tuple[str, str, str], list[Offer]] = {}
    for offer in (await context.world.offers()).offers:
        fits = offer.kind == "gpu" and (wanted is None or is_same_gpu(wanted, offer))
        if fits and query.host_id in ("", offer.host_id):
            by_host.setdefault((offer.provider, offer.host_id, offer.gpu), []).append(offer)
    hosts = [_host(offers) for offers in by_host.values()]
    if not query.host_id:
        hosts = [host for host in hosts if _matches(query, host)]
    place = places_among(query.preferred)
    hosts.sort(
        key=lambda host: (
            place(host.offers[0]),
            -host.reliability_ppm / host.price_usd_micros_per_gpu_hour,
            host.host_id,
        )
    )
    return HostList(hosts[: max(1, min(query.limit, LIST_LIMIT_MAX))], len(hosts))


def _matches(query: ListHosts, host: HostView) -> bool:
    price_max = query.price_usd_micros_per_hour_max
    return (
        host.gpus_free >= query.gpus_min
        and (host.verified or not query.verified_only)
        and (not price_max or host.price_usd_micros_per_gpu_hour <= price_max)
    )


def _host(offers: Sequence[Offer]) -> HostView:
    ordered = sorted(offers, key=lambda offer: (offer.price_usd_micros_per_hour, offer.offer_id))
    first = ordered[0]
    gpus_free = max(offer.gpu_count for offer in ordered)
    prices = [offer.price_usd_micros_per_hour // max(offer.gpu_count, 1) for offer in ordered]
    return HostView(
        provider=first.provider,
        host_id=first.host_id,
        gpu=first.gpu,
        region=first.region,
        gpus_free=gpus_free,
        price_usd_micros_per_gpu_hour=max(1, sum(prices) // len(prices)),
        reliability_ppm=first.reliability_ppm,
        verified=first.verified,
        can_create_warm_pool=gpus_free >= POOL_GPUS_MIN,
        offers=tuple(ordered[:OFFERS_SHOWN_MAX]),
    )
