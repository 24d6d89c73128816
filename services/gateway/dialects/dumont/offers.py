"""Dumont: /offers, /offers/{gpu} and /instances/offers: one market, three doors (seed 000, Spot Market)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from proto.instance.queries import LIST_LIMIT_MAX, ListOffers, OfferList, OfferView
from services.gateway.call import Answer, Call
from services.gateway.dialects import MICROS, usd
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, page
from services.gateway.dialects.gpu_names import gpu_name
from services.gateway.routing import Route

PPM = 1_000_000
ORDERS: dict[str, Literal["price", "gpu_memory", "reliability"]] = {
    "dph_total": "price",
    "gpu_ram": "gpu_memory",
    "reliability": "reliability",
}
BILLING: dict[str, Literal["", "spot", "on_demand"]] = {"": "", "on-demand": "on_demand", "interruptible": "spot"}

Size = Annotated[int, Meta(ge=0, le=1_000_000)]


class OffersQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names and defaults of the original (contract dumont 1); sizes in GB, speed in Mbit/s, price in USD per hour."""

    gpu_name: Annotated[str, Meta(max_length=100)] = ""
    num_gpus: Annotated[int, Meta(ge=0, le=8)] = 1  # 0: any number
    min_gpu_ram: Size = 0
    min_cpu_cores: Size = 1
    min_cpu_ram: Size = 1
    min_disk: Size = 50
    min_inet_down: Size = 100
    min_inet_up: Size = 100
    max_price: Annotated[float, Meta(gt=0, le=1000)] = 10.0
    min_reliability: Annotated[float, Meta(ge=0, le=1)] = 0.0
    region: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    verified_only: bool = False
    static_ip: bool = False
    cuda_version: Annotated[str, Meta(max_length=20, pattern=r"^[0-9.]*$")] = ""
    machine_type: Literal["", "on-demand", "interruptible"] = ""
    order_by: Literal["dph_total", "gpu_ram", "reliability"] = "dph_total"
    include_blacklisted: bool = False
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT


class DumontOffer(Struct, frozen=True, kw_only=True):
    """`machine_id` is the provider's host, as text; `success_rate` is null until something was tried on it."""

    id: str
    gpu_name: str
    dph_total: float
    machine_id: str
    is_blacklisted: bool
    blacklist_reason: str | None
    success_rate: float | None
    total_attempts: int
    reliability_status: str
    provider: str
    num_gpus: int
    gpu_ram: int
    cpu_cores: int
    cpu_ram: int
    disk_space: int
    inet_down: int
    inet_up: int
    geolocation: str
    reliability: float
    cuda_version: str
    verified: bool
    static_ip: bool
    machine_type: str


async def list_offers(call: Call) -> Answer:
    query: OffersQuery = call.query
    return await _offers(call, query, gpu_name(query.gpu_name))


async def list_gpu_offers(call: Call) -> Answer:
    """A GPU that nobody offers is an empty list, not an error (contract dumont 1)."""
    return await _offers(call, call.query, gpu_name(call.path["gpu"]))


async def _offers(call: Call, query: OffersQuery, gpu: str) -> Answer:
    found: OfferList = await call.ask(
        ListOffers(
            account_id=call.account_id,
            gpu=gpu,
            gpu_count=query.num_gpus,
            gpu_memory_gb_min=query.min_gpu_ram,
            cpu_cores_min=query.min_cpu_cores,
            memory_gb_min=query.min_cpu_ram,
            disk_gb_min=query.min_disk,
            download_mbps_min=query.min_inet_down,
            upload_mbps_min=query.min_inet_up,
            price_usd_micros_per_hour_max=round(query.max_price * MICROS),
            reliability_ppm_min=round(query.min_reliability * PPM),
            region=query.region,
            verified_only=query.verified_only,
            static_ip=query.static_ip,
            cuda_version=query.cuda_version,
            billing=BILLING[query.machine_type],
            order_by=ORDERS[query.order_by],
            include_blacklisted=query.include_blacklisted,
            limit=query.limit,
        )
    )
    return page([offer(view) for view in found.items], total=found.total, limit=query.limit, offset=0)


def offer(view: OfferView) -> DumontOffer:
    said = view.offer
    return DumontOffer(
        id=said.offer_id,
        gpu_name=said.gpu,
        dph_total=usd(said.price_usd_micros_per_hour),
        machine_id=said.host_id,
        is_blacklisted=view.is_blacklisted,
        blacklist_reason=view.blacklist_reason or None,
        success_rate=None if view.success_ppm is None else view.success_ppm / PPM,
        total_attempts=view.attempts_total,
        reliability_status=view.reliability_status,
        provider=said.provider,
        num_gpus=said.gpu_count,
        gpu_ram=said.gpu_memory_gb,
        cpu_cores=said.cpu_cores,
        cpu_ram=said.memory_gb,
        disk_space=said.disk_gb,
        inet_down=said.download_mbps,
        inet_up=said.upload_mbps,
        geolocation=said.region,
        reliability=said.reliability_ppm / PPM,
        cuda_version=said.cuda_version,
        verified=said.verified,
        static_ip=said.static_ip,
        machine_type="on-demand" if said.billing == "on_demand" else "interruptible",
    )


ROUTES = tuple(
    Route("GET", path, DIALECT, "offers:read", "read", handle, summary,
          query=OffersQuery, reply=list[DumontOffer], has_meta=True)
    for path, handle, summary in (
        ("/api/v1/offers", list_offers, "List offers"),
        ("/api/v1/instances/offers", list_offers, "List offers with machine history"),
        ("/api/v1/offers/{gpu}", list_gpu_offers, "List offers of one GPU"),
    )
)  # fmt: skip
