"""Dumont: /warmpool. Status, hosts, provision, enable, disable (contract dumont 4)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from libs.refusal import Refused
from proto.failover.queries import GetSettings
from proto.failover.words import GlobalSettings
from proto.instance.queries import GetInstance, HostList, HostView, InstanceView, ListHosts
from proto.warmpool.commands import DisablePool, ProvisionPool
from proto.warmpool.queries import GetPool, PoolView
from services.gateway.call import Answer, Call
from services.gateway.dialects import MICROS, milliseconds_or_none, usd
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.dialects.dumont.failover import primary_of
from services.gateway.dialects.dumont.instance_object import instance as shown_instance
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.dialects.gpu_names import gpu_name
from services.gateway.routing import Route
from services.gateway.validation import refuse

Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
Mode = Literal["stopped", "hot"]


class ProvisionBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`gpu_name`, `image` and `disk_size` are the original's: a standby is a machine like the primary."""

    machine_id: Id
    host_machine_id: Id | None = None
    gpu_name: Annotated[str, Meta(max_length=100)] | None = None
    image: Annotated[str, Meta(max_length=500)] | None = None
    disk_size: Annotated[int, Meta(ge=10, le=10_000)] = 50
    volume_size: Annotated[int, Meta(ge=10, le=10_000)] | None = None
    mode: Mode | None = None


class EnableQuery(Struct, frozen=True, forbid_unknown_fields=True):
    mode: Mode | None = None


class DisableQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`release=false` would keep paying for a standby that nobody may use, so it is refused."""

    release: Literal["true", "false"] = "true"


class HostsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    gpu_name: Annotated[str, Meta(max_length=100)] = ""
    min_gpus: Annotated[int, Meta(ge=1, le=64)] = 2
    max_price: Annotated[float, Meta(gt=0, le=1000)] | None = None
    verified: bool = True
    limit: Annotated[int, Meta(ge=1, le=100)] = 50


class DumontPool(Struct, frozen=True, kw_only=True):
    machine_id: str
    state: str
    mode: str
    host_machine_id: str | None
    volume_id: str | None
    primary_gpu_id: str | None
    standby_gpu_id: str | None
    standby_state: str
    primary_ssh_host: str | None
    primary_ssh_port: int | None
    last_health_check: str | None
    failover_count: int
    last_failover_at: str | None
    retry_at: str | None
    error_message: str | None


class DumontProvisioned(Struct, frozen=True):
    success: bool
    message: str
    status: DumontPool


class DumontEnabled(Struct, frozen=True):
    status: str
    message: str
    pool: DumontPool


class DumontDisabled(Struct, frozen=True):
    status: str
    message: str
    fallback: str


class DumontHostOffer(Struct, frozen=True):
    id: str
    num_gpus: int
    dph_total: float
    machine_type: str


class DumontHost(Struct, frozen=True, kw_only=True):
    machine_id: str
    total_gpus: int
    available_gpus: int
    gpu_name: str
    avg_price_per_hour: float
    reliability: float
    verified: bool
    geolocation: str
    can_create_warm_pool: bool
    offers: list[DumontHostOffer]


class DumontHosts(Struct, frozen=True):
    hosts: list[DumontHost]
    count: int


async def get_status(call: Call) -> Answer:
    instance = await _instance(call, call.path["machine_id"])
    return ok(await _pool(call, instance))


async def list_hosts(call: Call) -> Answer:
    query: HostsQuery = call.query
    preferred = () if query.gpu_name else (await _settings(call)).warm_pool.preferred_gpu_names
    found: HostList = await call.ask(
        ListHosts(
            gpu=gpu_name(query.gpu_name),
            gpus_min=query.min_gpus,
            price_usd_micros_per_hour_max=round((query.max_price or 0) * MICROS),
            verified_only=query.verified,
            limit=query.limit,
            preferred=preferred,
        )
    )
    return ok(DumontHosts([_host(host) for host in found.items], found.total))


async def provision(call: Call) -> Answer:
    """202 and the pool as it begins; read its status to see it become active."""
    body: ProvisionBody = call.body
    instance = await _current(call, body.machine_id)
    settings = await _settings(call)
    await call.command(
        _wish(
            call,
            instance,
            mode=body.mode or settings.warm_pool.standby_mode,
            volume_gb=body.volume_size or settings.warm_pool.volume_size_gb,
            settings=settings,
            wanted_host_id=body.host_machine_id or "",
            host_gpus_free=await _gpus_free(call, body.host_machine_id) if body.host_machine_id else None,
            is_new=True,
        )
    )
    pool = await _pool(call, instance)
    return ok(DumontProvisioned(True, _told(call, pool), pool), 202)


async def enable(call: Call) -> Answer:
    instance = await _current(call, call.path["machine_id"])
    settings = await _settings(call)
    wish = _wish(
        call,
        instance,
        mode=call.query.mode or settings.warm_pool.standby_mode,
        volume_gb=settings.warm_pool.volume_size_gb,
        settings=settings,
    )
    await call.command(wish)
    pool = await _pool(call, instance)
    if call.query.mode not in (None, pool.mode):  # the mode of a pool that is there is changed in the settings
        raise Refused("WARMPOOL_EXISTS", instance_id=instance.instance_id, status=f"{pool.state}, {pool.mode}")
    return ok(DumontEnabled("enabled", _told(call, pool), pool), 202)


async def disable(call: Call) -> Answer:
    """The standby is given back; the volume holds the machine's files and goes with the machine."""
    if call.query.release == "false":
        refuse("release", "Release must be true or left out: a disabled pool has no use for its standby", "false")
    instance = await _instance(call, call.path["machine_id"])
    wish_id = call.wish_id("disable_pool")
    await call.command(
        DisablePool(now=call.now, request_id=wish_id, instance_id=instance.instance_id, account_id=call.account_id)
    )
    message = call.say("The standby is given back; the machine goes on", "O standby é devolvido; a máquina continua")
    return ok(DumontDisabled("disabled", message, "cpu_standby"))


def _told(call: Call, pool: DumontPool) -> str:
    return call.say(f"Warm pool is {pool.state}", f"Estado do warm pool: {pool.state}")


def _wish(
    call: Call,
    instance: InstanceView,
    *,
    mode: Mode,
    volume_gb: int,
    settings: GlobalSettings,
    wanted_host_id: str = "",
    host_gpus_free: int | None = None,
    is_new: bool = False,
) -> ProvisionPool:
    """With where the instance runs; one that is not ready yet is waited for."""
    if instance.status in ("deleting", "deleted"):
        raise Refused("INSTANCE_NOT_FOUND", instance_id=instance.instance_id)
    machine = primary_of(instance) if instance.status == "ready" else None
    return ProvisionPool(
        now=call.now,
        request_id=call.wish_id(f"provision_pool {call.query}"),
        instance_id=instance.instance_id,
        account_id=call.account_id,
        machine_id=machine.machine_id if machine else "",
        host_id=machine.host_id if machine else "",
        wanted_host_id=wanted_host_id,
        host_gpus_free=host_gpus_free,
        mode=mode,
        volume_gb=volume_gb,
        auto_reprovision=settings.warm_pool.auto_reprovision_standby,
        is_new=is_new,
    )


async def _gpus_free(call: Call, host_id: str) -> int | None:
    """None: no such host has anything to offer."""
    found: HostList = await call.ask(ListHosts(host_id=host_id))
    return max((host.gpus_free for host in found.items), default=None)


async def _settings(call: Call) -> GlobalSettings:
    return await call.ask(GetSettings(account_id=call.account_id))


async def _instance(call: Call, instance_id: str) -> InstanceView:
    return await call.ask(GetInstance(instance_id=instance_id, account_id=call.account_id))


async def _current(call: Call, instance_id: str) -> InstanceView:
    """Where it runs now: a pool beside a machine that has been replaced would protect nobody."""
    return await call.ask_current(GetInstance(instance_id=instance_id, account_id=call.account_id))


async def _pool(call: Call, instance: InstanceView) -> DumontPool:
    pool: PoolView = await call.ask(GetPool(instance_id=instance.instance_id, account_id=call.account_id))
    shown = shown_instance(instance)
    return DumontPool(
        machine_id=pool.instance_id,
        state=pool.status,
        mode=pool.mode,
        host_machine_id=pool.host_id or None,
        volume_id=pool.volume_id or None,
        primary_gpu_id=pool.primary_machine_id or None,
        standby_gpu_id=pool.standby_machine_id or None,
        standby_state=pool.standby_state,
        primary_ssh_host=shown.ssh_host,
        primary_ssh_port=shown.ssh_port,
        last_health_check=milliseconds_or_none(pool.changed_at),
        failover_count=pool.failover_count,
        last_failover_at=milliseconds_or_none(pool.last_failover_at),
        retry_at=milliseconds_or_none(pool.retry_at),
        error_message=pool.error or None,
    )


def _host(host: HostView) -> DumontHost:
    return DumontHost(
        machine_id=host.host_id,
        total_gpus=host.gpus_free,
        available_gpus=host.gpus_free,
        gpu_name=host.gpu,
        avg_price_per_hour=usd(host.price_usd_micros_per_gpu_hour),
        reliability=host.reliability_ppm / MICROS,
        verified=host.verified,
        geolocation=host.region,
        can_create_warm_pool=host.can_create_warm_pool,
        offers=[
            DumontHostOffer(
                offer.offer_id,
                offer.gpu_count,
                usd(offer.price_usd_micros_per_hour),
                "on-demand" if offer.billing == "on_demand" else "interruptible",
            )
            for offer in host.offers
        ],
    )


ROUTES = (
    Route("GET", "/api/v1/warmpool/status/{machine_id}", DIALECT, "warmpool:read", "read", get_status,
          "Status of a warm pool", reply=DumontPool),
    Route("GET", "/api/v1/warmpool/hosts", DIALECT, "warmpool:read", "read", list_hosts,
          "List hosts with several free GPUs", query=HostsQuery, reply=DumontHosts),
    Route("POST", "/api/v1/warmpool/provision", DIALECT, "warmpool:write", "write", provision,
          "Provision a warm pool", body=ProvisionBody, reply=DumontProvisioned, statuses=(202,)),
    Route("POST", "/api/v1/warmpool/enable/{machine_id}", DIALECT, "warmpool:write", "write", enable,
          "Enable the warm pool", body=NoBody, query=EnableQuery, reply=DumontEnabled, statuses=(202,)),
    Route("POST", "/api/v1/warmpool/disable/{machine_id}", DIALECT, "warmpool:write", "write", disable,
          "Disable the warm pool", body=NoBody, query=DisableQuery, reply=DumontDisabled),
)  # fmt: skip
