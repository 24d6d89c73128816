"""What a new instance has in case its machine is lost: what the failover settings come to goes along with the create.

Used by the dialects that create instances. The failover service is asked once; what it says of an account that names no
strategy serves for a second. Without its answer nothing is created, because an instance without the volume that its
owner has asked for would be a silent loss later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from proto.failover.queries import GetNewMachineProtection, NewMachineProtection
from proto.failover.words import Strategy
from proto.instance.commands import CreateInstance
from proto.instance.words import SYNC_EXCLUDES, Protection, VolumeWish
from services.gateway.call import Call


async def protected(
    call: Call, wish: CreateInstance, strategy: Strategy | None = None, *, skip_standby: bool = False
) -> CreateInstance:
    """`strategy`: chosen for this instance, with the standbys it needs; None: the account's."""
    question = GetNewMachineProtection(account_id=call.account_id, strategy=strategy)
    ask: Callable[[], Awaitable[NewMachineProtection]] = partial(call.ask, question)
    found = await (ask() if strategy else call.gateway.protections.of(call.account_id, ask))
    return with_protection(wish, found, strategy, skip_standby=skip_standby)


def with_protection(
    wish: CreateInstance, found: NewMachineProtection, strategy: Strategy | None, *, skip_standby: bool = False
) -> CreateInstance:
    """The create with what failover has answered."""
    volume = found.volume
    wanted = volume and VolumeWish(volume.volume_size_gb, volume.mount_path, volume.preferred_regions)
    chosen = strategy and _protection(found, strategy, skip_standby=skip_standby)
    return replace(wish, volume=wanted or None, protection=chosen or None)


def _protection(found: NewMachineProtection, strategy: Strategy, *, skip_standby: bool) -> Protection:
    pool, cpu = found.warm_pool, None if skip_standby else found.cpu_standby
    return Protection(
        strategy=strategy,
        pool_mode=pool.standby_mode if pool else None,
        pool_volume_gb=pool.volume_size_gb if pool else 0,
        pool_host_gpus=pool.min_gpus_per_host if pool else 0,
        pool_auto_reprovision=pool.auto_reprovision_standby if pool else True,
        sync_interval_s=cpu.sync_interval_seconds if cpu else 0,
        sync_excludes=SYNC_EXCLUDES if cpu else (),
    )
