"""Whether a new instance is to have its workspace on a volume of its region: what the failover settings say goes along
with the create.

Used by the dialects that create instances. The failover service is asked, within a second for one account once: without
its answer nothing is created, because an instance without the volume that its owner has asked for would be a silent
loss later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from proto.failover.queries import GetNewMachineProtection, NewMachineProtection
from proto.failover.words import Strategy
from proto.instance.commands import CreateInstance
from proto.instance.words import VolumeWish
from services.gateway.call import Call


async def with_volume(call: Call, wish: CreateInstance, strategy: Strategy | None = None) -> CreateInstance:
    """`strategy`: chosen for this instance; None: the account's. Beside such a volume there is no warm pool."""
    question = GetNewMachineProtection(account_id=call.account_id, strategy=strategy)
    ask: Callable[[], Awaitable[NewMachineProtection]] = partial(call.ask, question)
    found = await (ask() if strategy else call.gateway.protections.of(call.account_id, ask))
    volume = found.volume
    if volume is None:
        return wish
    protection = wish.protection and replace(wish.protection, pool_mode=None, pool_volume_gb=0, pool_host_gpus=0)
    wanted = VolumeWish(volume.volume_size_gb, volume.mount_path, volume.preferred_regions)
    return replace(wish, volume=wanted, protection=protection)
