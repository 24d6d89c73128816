"""What a failover must know before it is decided: the account's settings and the limits of this installation.

Called by the runtime before a start is decided (`Service.intake`), whether somebody wished it or a loss asks for it.
The failover service touches nothing outside: rungs are climbed by those who own them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from libs.clock import Clock
from libs.runtime.service import Intake
from proto.base import Command
from proto.failover.commands import (
    AnswerInterruption,
    ExecuteFailover,
    ForgetMachineSettings,
    ProtectNew,
    UpdateMachineSettings,
    UpdateSettings,
)
from proto.failover.words import GlobalSettings, Limits

S = TypeVar("S", ExecuteFailover, AnswerInterruption)
W = TypeVar("W", UpdateMachineSettings, ForgetMachineSettings, ProtectNew)


@dataclass(frozen=True)
class World:
    """`settings_of` reads an account's settings, `choosers_of` its instances that decide themselves whether they have a
    warm pool and have not switched it off; Transient when the database is unwell."""

    settings_of: Callable[[str], Awaitable[GlobalSettings]]
    clock: Clock
    limits: Limits
    choosers_of: Callable[[str], Awaitable[tuple[str, ...]]]


async def with_settings(command: S, world: World) -> S:
    return replace(command, settings=await world.settings_of(command.account_id), limits=world.limits)


async def beside_settings(command: W, world: World) -> W:
    return replace(command, settings=await world.settings_of(command.account_id))


async def where_protected(command: ProtectNew, world: World) -> ProtectNew | None:
    """Most accounts want no standby by themselves: then a new instance need not even be loaded."""
    filled = await beside_settings(command, world)
    return filled if filled.settings.cpu_standby.auto_standby else None


async def with_choosers(command: UpdateSettings, world: World) -> UpdateSettings:
    return replace(command, own_choice=await world.choosers_of(command.account_id))


INTAKE: Mapping[type[Command], Intake] = {
    ExecuteFailover: with_settings,
    AnswerInterruption: with_settings,
    UpdateMachineSettings: beside_settings,
    ForgetMachineSettings: beside_settings,
    ProtectNew: where_protected,
    UpdateSettings: with_choosers,
}
