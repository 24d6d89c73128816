"""Dumont: /standby. CPU standbys: settings, associations, prices (contract dumont 5).

`{machine_id}` is our instance id (contract 11 #2). A standby is made for an instance when it is asked for
(`/standby/provision/{id}`), or by itself once they are configured, with the account's settings of that moment.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from libs.refusal import Refused
from proto.failover.commands import UpdateSettings
from proto.failover.queries import GetSettings
from proto.failover.words import CpuStandbyPatch, CpuStandbySettings, GlobalPatch, GlobalSettings
from proto.instance.commands import DisableCpuStandby, EnableCpuStandby, WantGpu
from proto.instance.copy_queries import CpuStandbyList, CpuStandbyView, ListCpuStandbys, WayBackView
from proto.instance.queries import GetInstance
from proto.instance.words import SYNC_EXCLUDES
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok, setting_warnings
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.routing import Route

MachineType = Literal["e2-micro", "e2-small", "e2-medium", "e2-standard-2", "e2-standard-4"]
# Contract dumont 5: micro-dollars per hour, spot and on demand; per GB of disk and month.
PRICES: dict[MachineType, tuple[int, int]] = {
    "e2-micro": (2_000, 8_000),
    "e2-small": (5_000, 17_000),
    "e2-medium": (10_000, 34_000),
    "e2-standard-2": (20_000, 67_000),
    "e2-standard-4": (40_000, 134_000),
}
DISK_MICROS_PER_GB_MONTH = 40_000
HOURS_PER_MONTH = 720
MICROS = 1_000_000

DiskGb = Annotated[int, Meta(ge=10, le=10_000)]
Zone = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]


class ConfigureBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Defaults of the contract."""

    enabled: bool = True
    gcp_zone: Zone = "europe-west1-b"
    gcp_machine_type: MachineType = "e2-medium"
    gcp_disk_size: DiskGb = 100
    gcp_spot: bool = True
    sync_interval: Annotated[int, Meta(ge=1, le=3_600)] = 30
    auto_failover: bool = True
    auto_recovery: bool = True


class PricingQuery(Struct, frozen=True, forbid_unknown_fields=True):
    machine_type: MachineType = "e2-medium"
    disk_gb: DiskGb = 100
    spot: bool = True


class DumontStandbyConfig(Struct, frozen=True, kw_only=True):
    gcp_zone: str
    gcp_machine_type: str
    gcp_disk_size: int
    gcp_spot: bool
    sync_interval: int
    auto_failover: bool
    auto_recovery: bool


class DumontCpuStandby(Struct, frozen=True, kw_only=True):
    name: str | None
    zone: str | None
    ip: str | None
    ssh_port: int | None
    cost_per_hour: float


class DumontRecovery(Struct, frozen=True, kw_only=True):
    """The way back to a GPU, while there is one: `stage` is searching, filling, handing_over or handed_over."""

    stage: str
    attempts_failed: int
    gpu_machine_id: str | None
    last_error: str | None
    next_attempt_at: str | None


class DumontAssociation(Struct, frozen=True, kw_only=True):
    gpu_instance_id: str
    cpu_standby: DumontCpuStandby
    state: str
    sync_enabled: bool
    sync_interval: int
    sync_count: int
    last_sync_at: str | None
    last_sync_files: int | None
    last_sync_bytes: int | None
    last_sync_duration_ms: int | None
    gpu_failed: bool
    error: str | None
    recovery: DumontRecovery | None


class DumontStandbyStatus(Struct, frozen=True, kw_only=True):
    configured: bool
    auto_standby_enabled: bool
    active_associations: int
    associations: dict[str, DumontAssociation]
    config: DumontStandbyConfig


class DumontAssociations(Struct, frozen=True):
    associations: dict[str, DumontAssociation]
    count: int


class DumontConfigured(Struct, frozen=True):
    success: bool
    message: str
    config: DumontConfiguredPart
    warnings: list[str]


class DumontConfiguredPart(Struct, frozen=True):
    gcp_zone: str
    gcp_machine_type: str
    estimated_cost_monthly_usd: float


class DumontPriceParts(Struct, frozen=True):
    vm_monthly: float
    disk_monthly: float


class DumontPricing(Struct, frozen=True, kw_only=True):
    machine_type: str
    disk_gb: int
    spot: bool
    estimated_hourly_usd: float
    estimated_monthly_usd: float
    breakdown: DumontPriceParts
    note: str


class DumontProvisioning(Struct, frozen=True):
    success: bool
    message: str
    association: DumontAssociation | None


async def status(call: Call) -> Answer:
    settings: GlobalSettings = await call.ask(GetSettings(account_id=call.account_id))
    found: CpuStandbyList = await call.ask(ListCpuStandbys(account_id=call.account_id))
    cpu = settings.cpu_standby
    return ok(
        DumontStandbyStatus(
            configured=cpu.enabled,
            auto_standby_enabled=cpu.enabled and cpu.auto_standby,
            active_associations=len(found.items),
            associations={view.instance_id: _association(view) for view in found.items},
            config=_config(cpu),
        )
    )


async def configure(call: Call) -> Answer:
    """Enabled, new GPU instances get a CPU standby by themselves. Disabling keeps the associations that are there
    (contract 5); the rung is then passed over."""
    body: ConfigureBody = call.body
    patch = CpuStandbyPatch(
        enabled=body.enabled,
        auto_standby=body.enabled,
        gcp_zone=body.gcp_zone,
        gcp_machine_type=body.gcp_machine_type,
        gcp_disk_size_gb=body.gcp_disk_size,
        gcp_spot=body.gcp_spot,
        sync_interval_seconds=body.sync_interval,
        auto_failover=body.auto_failover,
        auto_recovery=body.auto_recovery,
    )
    wish = UpdateSettings(
        now=call.now,
        request_id=call.wish_id("configure_standby"),
        account_id=call.account_id,
        patch=GlobalPatch(cpu_standby=patch),
    )
    await call.command(wish)
    price = monthly_micros(body.gcp_machine_type, spot=body.gcp_spot)
    message = call.say("CPU standby configured", "Standby de CPU configurado")
    if not body.enabled:
        message = call.say(
            "CPU standby switched off; associations are kept", "Standby de CPU desativado; as associações continuam"
        )
    part = DumontConfiguredPart(body.gcp_zone, body.gcp_machine_type, price / MICROS)
    settings: GlobalSettings = await call.ask(GetSettings(account_id=call.account_id))
    return ok(DumontConfigured(True, message, part, setting_warnings.of_cpu_standby(settings.cpu_standby)))


async def associations(call: Call) -> Answer:
    found: CpuStandbyList = await call.ask(ListCpuStandbys(account_id=call.account_id))
    return ok(DumontAssociations({view.instance_id: _association(view) for view in found.items}, len(found.items)))


async def association(call: Call) -> Answer:
    return ok(_association(await _view(call)))


async def provision(call: Call) -> Answer:
    """202: a CPU machine is looked for, and for as long as the instance is ready and has none."""
    instance_id = call.path["id"]
    settings: GlobalSettings = await call.ask(GetSettings(account_id=call.account_id))
    if not settings.cpu_standby.enabled:
        advice = "switch CPU standbys on: POST /api/v1/standby/configure with enabled true"
        raise Refused("INVALID_STATE", instance_id=instance_id, status="switched off", advice=advice)
    await call.command(
        EnableCpuStandby(
            now=call.now,
            request_id=call.wish_id("enable_standby"),
            instance_id=instance_id,
            account_id=call.account_id,
            sync_interval_s=settings.cpu_standby.sync_interval_seconds,
            excludes=SYNC_EXCLUDES,
        )
    )
    message = call.say(
        "A CPU machine is being provisioned and will be kept in sync",
        "Uma máquina de CPU está sendo provisionada e será mantida em sincronia",
    )
    return ok(DumontProvisioning(True, message, _association(await _view(call))), status=202)


async def recover(call: Call) -> Answer:
    """202: a GPU is looked for now and for as long as it takes, as auto_recovery does; the files go with it."""
    instance_id = call.path["id"]
    wish_id = call.wish_id("want_gpu")
    await call.command(WantGpu(now=call.now, request_id=wish_id, instance_id=instance_id, account_id=call.account_id))
    found: CpuStandbyList = await call.ask(ListCpuStandbys(account_id=call.account_id, instance_id=instance_id))
    shown = _association(found.items[0]) if found.items else None
    message = call.say("A GPU is being looked for", "Uma GPU está sendo procurada")
    return ok(DumontProvisioning(True, message, shown), status=202)


async def release(call: Call) -> Answer:
    """The machine is given back with its copy."""
    view = await _view(call)
    wish = DisableCpuStandby(
        now=call.now,
        request_id=call.wish_id("disable_standby"),
        instance_id=view.instance_id,
        account_id=call.account_id,
    )
    await call.command(wish)
    return ok(DumontProvisioning(True, call.say("CPU standby released", "Standby de CPU devolvido"), None))


async def pricing(call: Call) -> Answer:
    query: PricingQuery = call.query
    vm = monthly_micros(query.machine_type, spot=query.spot)
    disk = query.disk_gb * DISK_MICROS_PER_GB_MONTH
    return ok(
        DumontPricing(
            machine_type=query.machine_type,
            disk_gb=query.disk_gb,
            spot=query.spot,
            estimated_hourly_usd=_hourly_micros(query.machine_type, spot=query.spot) / MICROS,
            estimated_monthly_usd=(vm + disk) / MICROS,
            breakdown=DumontPriceParts(vm / MICROS, disk / MICROS),
            note=f"{HOURS_PER_MONTH} hours a month; what is billed is the price of the machine that was rented",
        )
    )


def monthly_micros(machine_type: MachineType, *, spot: bool) -> int:
    """The machine alone, for a month of 720 hours."""
    return _hourly_micros(machine_type, spot=spot) * HOURS_PER_MONTH


def _hourly_micros(machine_type: MachineType, *, spot: bool) -> int:
    on_spot, on_demand = PRICES[machine_type]
    return on_spot if spot else on_demand


async def _view(call: Call) -> CpuStandbyView:
    """The association of an instance. Raises INSTANCE_NOT_FOUND or ASSOCIATION_NOT_FOUND."""
    instance_id = call.path["id"]
    await call.ask(GetInstance(instance_id=instance_id, account_id=call.account_id))
    found: CpuStandbyList = await call.ask(ListCpuStandbys(account_id=call.account_id, instance_id=instance_id))
    if not found.items:
        raise Refused("ASSOCIATION_NOT_FOUND", instance_id=instance_id)
    return found.items[0]


def _config(cpu: CpuStandbySettings) -> DumontStandbyConfig:
    return DumontStandbyConfig(
        gcp_zone=cpu.gcp_zone,
        gcp_machine_type=cpu.gcp_machine_type,
        gcp_disk_size=cpu.gcp_disk_size_gb,
        gcp_spot=cpu.gcp_spot,
        sync_interval=cpu.sync_interval_seconds,
        auto_failover=cpu.auto_failover,
        auto_recovery=cpu.auto_recovery,
    )


def _association(view: CpuStandbyView) -> DumontAssociation:
    return DumontAssociation(
        gpu_instance_id=view.instance_id,
        cpu_standby=DumontCpuStandby(
            name=view.machine_id or None,
            zone=view.region or None,
            ip=view.host or None,
            ssh_port=view.ssh_port or None,
            cost_per_hour=view.price_usd_micros_per_hour / MICROS,
        ),
        state=view.state,
        sync_enabled=True,
        sync_interval=view.sync_interval_s,
        sync_count=view.copies,
        last_sync_at=milliseconds_or_none(view.captured_at),
        last_sync_files=view.files,
        last_sync_bytes=view.bytes,
        last_sync_duration_ms=view.took_ms,
        gpu_failed=view.state in ("failover_active", "recovering"),
        error=view.error or None,
        recovery=None if view.way_back is None else _recovery(view.way_back),
    )


def _recovery(way: WayBackView) -> DumontRecovery:
    return DumontRecovery(
        stage=way.stage,
        attempts_failed=way.attempts_failed,
        gpu_machine_id=way.machine_id or None,
        last_error=way.reason or None,
        next_attempt_at=milliseconds_or_none(way.next_at),
    )


ROUTES = (
    Route("GET", "/api/v1/standby/status", DIALECT, "standby:read", "read", status, "Status of CPU standbys",
          reply=DumontStandbyStatus),
    Route("POST", "/api/v1/standby/configure", DIALECT, "standby:write", "write", configure,
          "Configure CPU standbys of the account", body=ConfigureBody, reply=DumontConfigured),
    Route("GET", "/api/v1/standby/associations", DIALECT, "standby:read", "read", associations,
          "List GPU-CPU associations", reply=DumontAssociations),
    Route("GET", "/api/v1/standby/associations/{id}", DIALECT, "standby:read", "read", association,
          "Read an instance's association", reply=DumontAssociation),
    Route("DELETE", "/api/v1/standby/associations/{id}", DIALECT, "standby:write", "write", release,
          "Give a CPU standby back", reply=DumontProvisioning),
    Route("POST", "/api/v1/standby/provision/{id}", DIALECT, "standby:write", "write", provision,
          "Keep an instance in sync with a CPU machine", statuses=(202,), body=NoBody, reply=DumontProvisioning),
    Route("POST", "/api/v1/standby/recover/{id}", DIALECT, "standby:write", "write", recover,
          "Return an instance from its CPU standby to a GPU", statuses=(202,), body=NoBody, reply=DumontProvisioning),
    Route("GET", "/api/v1/standby/pricing", DIALECT, "standby:read", "read", pricing, "Estimate costs",
          query=PricingQuery, reply=DumontPricing),
)  # fmt: skip
