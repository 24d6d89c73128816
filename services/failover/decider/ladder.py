"""Which rungs a failover may climb, in which order, and why it passes others over. Used by `climbing` and `queries`.

Rules: contract dumont 3. Every rung has an owner that hears `failover.rung_tried` and answers it.
"""

from __future__ import annotations

from datetime import datetime

from proto.failover.queries import NewMachineProtection
from proto.failover.words import (
    LADDER,
    RUNGS_OF,
    GlobalSettings,
    MachineSettings,
    PoolSeen,
    RegionalVolumeSettings,
    Rung,
    Strategy,
)
from services.failover.decider.guard import Guard

NOT_IN_STRATEGY = "not_in_strategy"
AUTO_FAILOVER_OFF = "auto_failover_off"
NOT_CONFIGURED = "not_configured"
BREAKER_OPEN = "breaker_open"
NO_SNAPSHOT = "no_snapshot"
NO_VOLUME = "no_volume"
FALLBACK_OFF = "fallback_off"


def effective_strategy(own: MachineSettings, account: GlobalSettings) -> Strategy:
    """What the settings of an instance and its account come to, with switched-off rungs taken out."""
    if own.use_global_settings:
        return _without(account.default_strategy, account.warm_pool.enabled, account.cpu_standby.enabled)
    return _without(own.strategy, own.warm_pool_enabled, own.cpu_standby_enabled)


def _without(strategy: Strategy, has_warm_pool: bool, has_cpu_standby: bool) -> Strategy:
    match strategy:
        case "both" if not has_warm_pool and not has_cpu_standby:
            return "disabled"
        case "both" if not has_warm_pool:
            return "cpu_standby"
        case "both" if not has_cpu_standby:
            return "warm_pool"
        case "warm_pool" if not has_warm_pool:
            return "disabled"
        case "cpu_standby" if not has_cpu_standby:
            return "disabled"
        case _:
            return strategy


def order_of(own: MachineSettings) -> tuple[Rung, ...]:
    """Every rung once, the instance's own order first."""
    chosen = LADDER if own.use_global_settings else own.strategy_order
    return tuple(dict.fromkeys((*chosen, *LADDER)))


def is_switched_off(rung: Rung, own: MachineSettings, account: GlobalSettings) -> bool:
    """Also under `all`, a switched-off block is not used."""
    match rung:
        case "warm_pool":
            return not (account.warm_pool.enabled if own.use_global_settings else own.warm_pool_enabled)
        case "cpu_standby":
            return not (account.cpu_standby.enabled if own.use_global_settings else own.cpu_standby_enabled)
        case "regional_volume":  # chosen by name, it is meant
            chosen = account.default_strategy if own.use_global_settings else own.strategy
            return chosen != "regional_volume" and not volume_settings(own, account).enabled
        case _:
            return False


def is_fallback_off(strategy: Strategy, own: MachineSettings, account: GlobalSettings) -> bool:
    """Whether the CPU standby could only stand in for the warm pool, and the account wants no such thing. An instance
    with settings of its own chooses by its strategy."""
    pool = account.warm_pool
    if pool.fallback_to_cpu_standby or not pool.enabled or not own.use_global_settings:
        return False
    return {"warm_pool", "cpu_standby"} <= set(RUNGS_OF[strategy])


def objection(
    rung: Rung,
    allowed: tuple[Rung, ...],
    guard: Guard,
    now: datetime,
    *,
    withheld: tuple[Rung, ...],
    no_fallback: bool,
) -> str:
    """Why this rung is passed over now, empty when it may be climbed."""
    if rung not in allowed:
        return FALLBACK_OFF if no_fallback and rung == "cpu_standby" else NOT_IN_STRATEGY
    if rung in withheld:
        return AUTO_FAILOVER_OFF
    if guard.is_breaker_open(rung, now):
        return BREAKER_OPEN
    match rung:
        case "warm_pool":
            return pool_objection(guard.pool)
        case "cpu_standby":
            return "" if guard.cpu_machine_id else NOT_CONFIGURED
        case "cloud_storage":
            return "" if guard.has_snapshot else NO_SNAPSHOT
        case "regional_volume":
            return "" if guard.volume_id else NO_VOLUME


def pool_objection(pool: PoolSeen) -> str:
    return "" if pool.readiness == "ready" else pool.reason or NOT_CONFIGURED


def allowed_rungs(strategy: Strategy, own: MachineSettings, account: GlobalSettings) -> tuple[Rung, ...]:
    """The rungs of a strategy that are switched on."""
    no_fallback = is_fallback_off(strategy, own, account)
    return tuple(
        rung
        for rung in RUNGS_OF[strategy]
        if not is_switched_off(rung, own, account) and not (no_fallback and rung == "cpu_standby")
    )


def withheld_rungs(account: GlobalSettings) -> tuple[Rung, ...]:
    """The rungs that a failover does not climb unless whoever wishes it names a strategy with them."""
    return () if account.cpu_standby.auto_failover else ("cpu_standby",)


def volume_settings(own: MachineSettings, account: GlobalSettings) -> RegionalVolumeSettings:
    """The instance's own block, if it has one."""
    return (not own.use_global_settings and own.regional_volume) or account.regional_volume


def volume_wanted(own: MachineSettings, account: GlobalSettings) -> RegionalVolumeSettings | None:
    """The volume that a new machine is to have its workspace on; None: it is to have none."""
    settings = volume_settings(own, account)
    rungs = allowed_rungs(effective_strategy(own, account), own, account)
    return settings if "regional_volume" in rungs and settings.auto_provision_volume else None


def new_machine(strategy: Strategy | None, account: GlobalSettings) -> NewMachineProtection:
    """What an instance is created with. Blocks that the account has switched off are left out, and beside a volume of
    its region there is no warm pool."""
    if strategy is None:
        is_meant = account.auto_apply_to_new_machines
        return NewMachineProtection(volume_wanted(MachineSettings(), account) if is_meant else None)
    volume = volume_wanted(MachineSettings(use_global_settings=False, strategy=strategy), account)
    pool, cpu, rungs = account.warm_pool, account.cpu_standby, RUNGS_OF[strategy]
    has_pool = "warm_pool" in rungs and pool.enabled and pool.auto_provision_standby and volume is None
    has_cpu = "cpu_standby" in rungs and cpu.enabled
    return NewMachineProtection(volume, pool if has_pool else None, cpu if has_cpu else None)
