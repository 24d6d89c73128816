"""What must be known before a change of an account's settings is decided: the pools that it has.

Called by the runtime (`Service.intake`). The warm pool service touches nothing outside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from libs.runtime.service import Intake
from proto.base import Command
from proto.warmpool.commands import ChangePools


@dataclass(frozen=True)
class World:
    """`pools_of` reads the instances of an account that have a pool; Transient when the database is unwell."""

    pools_of: Callable[[str], Awaitable[tuple[str, ...]]]


async def with_pools(command: ChangePools, world: World) -> ChangePools:
    return replace(command, instance_ids=await world.pools_of(command.account_id))


INTAKE: Mapping[type[Command], Intake] = {ChangePools: with_pools}
