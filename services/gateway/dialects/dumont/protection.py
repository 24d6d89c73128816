"""What a create asks for in case its machine is lost: a strategy, with the standbys it needs (contract dumont 1)."""

from __future__ import annotations

from proto.failover.queries import GetSettings
from proto.failover.words import RUNGS_OF, GlobalSettings, Strategy
from proto.instance.words import SYNC_EXCLUDES, Protection
from services.gateway.call import Call
from services.gateway.validation import refuse


def chosen_strategy(*, is_enabled: bool | None, strategy: Strategy | None) -> Strategy | None:
    """None: the account's defaults hold."""
    if is_enabled is False:
        if strategy not in (None, "disabled"):
            refuse("failover_strategy", "Failover strategy contradicts failover_enabled false; send one of them")
        return "disabled"
    if is_enabled and strategy == "disabled":
        refuse("failover_strategy", "Failover strategy contradicts failover_enabled true; send one of them")
    return strategy


async def protection_for(call: Call, strategy: Strategy | None, *, skip_standby: bool) -> Protection | None:
    """With the account's settings as they are now; blocks that it has switched off are left out."""
    if strategy is None:
        return None
    settings: GlobalSettings = await call.ask(GetSettings(account_id=call.account_id))
    pool, cpu, rungs = settings.warm_pool, settings.cpu_standby, RUNGS_OF[strategy]
    has_pool = "warm_pool" in rungs and pool.enabled and pool.auto_provision_standby
    has_cpu = "cpu_standby" in rungs and cpu.enabled and not skip_standby
    return Protection(
        strategy=strategy,
        pool_mode=pool.standby_mode if has_pool else None,
        pool_volume_gb=pool.volume_size_gb if has_pool else 0,
        pool_host_gpus=pool.min_gpus_per_host if has_pool else 0,
        pool_auto_reprovision=pool.auto_reprovision_standby,
        sync_interval_s=cpu.sync_interval_seconds if has_cpu else 0,
        sync_excludes=SYNC_EXCLUDES if has_cpu else (),
    )
