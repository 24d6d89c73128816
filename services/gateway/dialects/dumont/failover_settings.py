"""Dumont: /failover/settings. The account's defaults and each machine's own choice (contract dumont 3, Settings).

A PUT is a merge patch: what is absent stays as it is.
"""

from __future__ import annotations

from msgspec import Struct, structs

from proto.failover.commands import ForgetMachineSettings, UpdateMachineSettings, UpdateSettings
from proto.failover.queries import GetProtection, GetSettings, ListProtections, MachineProtection
from proto.failover.words import (
    CpuStandbySettings,
    GlobalPatch,
    GlobalSettings,
    MachinePatch,
    RegionalVolumeSettings,
    WarmPoolSettings,
)
from proto.instance.queries import GetInstance
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok, setting_warnings
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.routing import Route

BASE = "/api/v1/failover/settings"


class DumontWarmPoolSettings(WarmPoolSettings, frozen=True, omit_defaults=False):
    """Every field, also those that were never touched."""


class DumontCpuStandbySettings(CpuStandbySettings, frozen=True, omit_defaults=False):
    """Every field, also those that were never touched."""


class DumontRegionalVolumeSettings(RegionalVolumeSettings, frozen=True, omit_defaults=False):
    """Every field, also those that were never touched."""


class DumontSummary(Struct, frozen=True):
    warm_pool_enabled: bool
    cpu_standby_enabled: bool
    regional_volume_enabled: bool
    description: str


class DumontGlobalSettings(Struct, frozen=True, kw_only=True):
    default_strategy: str
    auto_apply_to_new_machines: bool
    notify_on_failover: bool
    notify_channels: tuple[str, ...]
    warm_pool: DumontWarmPoolSettings
    cpu_standby: DumontCpuStandbySettings
    regional_volume: DumontRegionalVolumeSettings
    summary: DumontSummary
    warnings: list[str]  # settings that are kept, and do not do what one might expect


class DumontMachineWarmPool(Struct, frozen=True):
    enabled: bool


class DumontMachineCpuStandby(Struct, frozen=True):
    enabled: bool


class DumontStats(Struct, frozen=True):
    failover_count: int
    last_failover_at: str | None
    last_failover_strategy: str | None


class DumontMachineSettings(Struct, frozen=True, kw_only=True):
    machine_id: str
    use_global_settings: bool
    strategy: str
    effective_strategy: str
    strategy_order: tuple[str, ...]
    warm_pool: DumontMachineWarmPool
    cpu_standby: DumontMachineCpuStandby
    regional_volume: DumontRegionalVolumeSettings
    stats: DumontStats


class DumontMachines(Struct, frozen=True):
    machines: dict[str, DumontMachineSettings]
    count: int


async def get_global(call: Call) -> Answer:
    return ok(_global(await call.ask(GetSettings(account_id=call.account_id))))


async def put_global(call: Call) -> Answer:
    wish_id = call.wish_id("settings")
    await call.command(UpdateSettings(now=call.now, request_id=wish_id, account_id=call.account_id, patch=call.body))
    call.gateway.protections.forget(call.account_id)
    return await get_global(call)


async def list_machines(call: Call) -> Answer:
    found: list[MachineProtection] = await call.ask(ListProtections(account_id=call.account_id))
    machines = {one.instance_id: _machine(one) for one in found}
    return ok(DumontMachines(machines, len(machines)))


async def get_machine(call: Call) -> Answer:
    await _must_exist(call)
    return await _answer(call)


async def put_machine(call: Call) -> Answer:
    return await _change(call, call.body)


async def delete_machine(call: Call) -> Answer:
    """Back to the account's defaults."""
    await _must_exist(call)
    wish = ForgetMachineSettings(
        now=call.now,
        request_id=call.wish_id("forget_settings"),
        instance_id=call.path["id"],
        account_id=call.account_id,
    )
    await call.command(wish)
    return await _answer(call)


async def use_global(call: Call) -> Answer:
    return await _change(call, MachinePatch(use_global_settings=True))


async def enable_warm_pool(call: Call) -> Answer:
    return await _change(call, MachinePatch(use_global_settings=False, strategy="warm_pool", warm_pool_enabled=True))


async def enable_cpu_standby(call: Call) -> Answer:
    return await _change(
        call, MachinePatch(use_global_settings=False, strategy="cpu_standby", cpu_standby_enabled=True)
    )


async def enable_both(call: Call) -> Answer:
    return await _change(
        call,
        MachinePatch(use_global_settings=False, strategy="both", warm_pool_enabled=True, cpu_standby_enabled=True),
    )


async def disable_failover(call: Call) -> Answer:
    return await _change(call, MachinePatch(use_global_settings=False, strategy="disabled"))


async def _change(call: Call, patch: MachinePatch) -> Answer:
    await _must_exist(call)
    wish = UpdateMachineSettings(
        now=call.now,
        request_id=call.wish_id(f"machine_settings {patch}"),  # a route may say it without a body
        instance_id=call.path["id"],
        account_id=call.account_id,
        patch=patch,
    )
    await call.command(wish)
    return await _answer(call)


async def _answer(call: Call) -> Answer:
    question = GetProtection(instance_id=call.path["id"], account_id=call.account_id)
    return ok(_machine(await call.ask(question)))


async def _must_exist(call: Call) -> None:
    """Raises INSTANCE_NOT_FOUND: the failover service knows only instances that something was said about."""
    await call.ask(GetInstance(instance_id=call.path["id"], account_id=call.account_id))


def _global(settings: GlobalSettings) -> DumontGlobalSettings:
    warm_pool, cpu_standby = settings.warm_pool.enabled, settings.cpu_standby.enabled
    return DumontGlobalSettings(
        default_strategy=settings.default_strategy,
        auto_apply_to_new_machines=settings.auto_apply_to_new_machines,
        notify_on_failover=settings.notify_on_failover,
        notify_channels=settings.channels,
        warm_pool=DumontWarmPoolSettings(**structs.asdict(settings.warm_pool)),
        cpu_standby=DumontCpuStandbySettings(**structs.asdict(settings.cpu_standby)),
        regional_volume=_volume(settings.regional_volume),
        summary=DumontSummary(warm_pool, cpu_standby, settings.regional_volume.enabled, _described(settings)),
        warnings=setting_warnings.of_settings(settings),
    )


def _described(settings: GlobalSettings) -> str:
    on = [
        name
        for name, is_on in (
            ("warm pool", settings.warm_pool.enabled),
            ("CPU standby", settings.cpu_standby.enabled),
            ("regional volume", settings.regional_volume.enabled),
        )
        if is_on
    ]
    return f"{settings.default_strategy}: " + (" and ".join(on) + " enabled" if on else "nothing enabled")


def _volume(settings: RegionalVolumeSettings) -> DumontRegionalVolumeSettings:
    return DumontRegionalVolumeSettings(**structs.asdict(settings))


def _machine(found: MachineProtection) -> DumontMachineSettings:
    own = found.settings
    return DumontMachineSettings(
        machine_id=found.instance_id,
        use_global_settings=own.use_global_settings,
        strategy=own.strategy,
        effective_strategy=found.effective_strategy,
        strategy_order=own.strategy_order,
        warm_pool=DumontMachineWarmPool(own.warm_pool_enabled),
        cpu_standby=DumontMachineCpuStandby(own.cpu_standby_enabled),
        regional_volume=_volume(found.regional_volume),
        stats=DumontStats(
            found.failover_count, milliseconds_or_none(found.last_failover_at), found.last_failover_strategy
        ),
    )


ROUTES = (
    Route("GET", f"{BASE}/global", DIALECT, "failover:read", "read", get_global, "Read the account's defaults",
          reply=DumontGlobalSettings),
    Route("PUT", f"{BASE}/global", DIALECT, "failover:write", "write", put_global,
          "Change the account's defaults (the warm_pool block also for the pools that are there)",
          body=GlobalPatch, reply=DumontGlobalSettings),
    Route("GET", f"{BASE}/machines", DIALECT, "failover:read", "read", list_machines,
          "List machines with settings of their own", reply=DumontMachines),
    Route("GET", f"{BASE}/machines/{{id}}", DIALECT, "failover:read", "read", get_machine,
          "Read a machine's settings", reply=DumontMachineSettings),
    Route("PUT", f"{BASE}/machines/{{id}}", DIALECT, "failover:write", "write", put_machine,
          "Change a machine's settings", body=MachinePatch, reply=DumontMachineSettings),
    Route("DELETE", f"{BASE}/machines/{{id}}", DIALECT, "failover:write", "write", delete_machine,
          "Forget a machine's settings", body=NoBody, reply=DumontMachineSettings),
    *(
        Route("POST", f"{BASE}/machines/{{id}}/{verb}", DIALECT, "failover:write", "write", handle, summary,
              body=NoBody, reply=DumontMachineSettings)
        for verb, handle, summary in (
            ("use-global", use_global, "Use the account's defaults"),
            ("enable-warm-pool", enable_warm_pool, "Protect by the warm pool alone"),
            ("enable-cpu-standby", enable_cpu_standby, "Protect by the CPU standby alone"),
            ("enable-both", enable_both, "Protect by both"),
            ("disable-failover", disable_failover, "Do not fail over"),
        )
    ),
)  # fmt: skip
