"""What cannot be looked at now ends neither what is looked at beside it nor the watch itself, and with it the lease."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import timedelta
from typing import Any

from libs.clock import SystemClock
from libs.config import Secret
from libs.refusal import Transient
from libs.telemetry import logger
from proto.base import Command
from services.instance.effects.silence import watch_agents
from services.instance.effects.watching import watch_providers
from services.instance.effects.world import World
from services.instance.providers import Capabilities, News, ProviderMachine
from services.instance.queries import contracts

UNWELL, WELL = "mach_unwell", "mach_well"
DEADLINE_S = 30


class Rows:
    """A database that has what a test says, and notes what it was asked."""

    def __init__(self, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        self._rows = rows
        self.asked: list[str] = []

    async def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        self.asked.append(sql)
        del arguments
        return self._rows.get(sql, [])

    async def fetchval(self, sql: str, *arguments: Any) -> None:
        await self.fetch(sql, *arguments)


class Cloud:
    """Has news of two machines, and does not say how one of them is."""

    name = "fake"
    capabilities = Capabilities(
        spot=True,
        regional_volumes=False,
        shared_volume=False,
        stopped_keeps_gpu=False,
        push_signals=True,
        idempotent_create=True,
        list_lag_s=0.0,
    )

    def __init__(self) -> None:
        self.looked_at: list[str] = []

    async def signals(self) -> AsyncIterator[News]:
        yield News(UNWELL)
        yield News(WELL)
        await asyncio.Event().wait()

    async def get(self, provider_machine_id: str) -> ProviderMachine:
        self.looked_at.append(provider_machine_id)
        if provider_machine_id == UNWELL:
            raise Transient("the cloud does not answer")
        return ProviderMachine(provider_machine_id, "", "running")

    async def machines(self) -> Sequence[ProviderMachine]:
        return ()


class Handle:
    """The log does not answer for one instance."""

    def __init__(self) -> None:
        self.reported: list[str] = []

    async def execute(self, command: Command, **origin: str) -> None:
        del origin
        self.reported.append(command.aggregate_id)
        if command.aggregate_id == UNWELL:
            raise Transient("the log is away")


def world_of(rows: Rows, **more: Any) -> World:
    return World(
        **{"providers": {}, **more},
        clock=SystemClock(),
        random=random.Random(1),
        secret=Secret("00" * 32),
        gateway_url="",
        http=None,
        pool=rows,
        logger=logger("spec"),
        heartbeat_s=0.003,
        poll_s=0.003,
    )


async def goes_on(watch: Awaitable[None], until: Any) -> None:
    """The watch lives on until that has come about."""
    task = asyncio.ensure_future(watch)
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not until():
                await asyncio.sleep(0)
                if task.done():
                    task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_silence_that_cannot_be_told_is_told_at_the_next_look_and_the_others_at_once() -> None:
    seen_at = SystemClock().now() - timedelta(hours=1)
    silent = [(one, one, "fake", f"sbx_{one}", seen_at, None, 0.001, 1) for one in (UNWELL, WELL)]
    handle, world = Handle(), world_of(Rows({contracts._SILENT_SQL: silent}))
    await goes_on(watch_agents(world, handle), lambda: min(map(handle.reported.count, (UNWELL, WELL))) >= 3)


async def test_a_machine_whose_cloud_does_not_answer_keeps_the_watch_from_nothing_else() -> None:
    cloud, rows = Cloud(), Rows({})

    def has_gone_on() -> bool:
        return cloud.looked_at.count(UNWELL) >= 2 and WELL in cloud.looked_at and contracts._CONTRACTS_SQL in rows.asked

    await goes_on(watch_providers(world_of(rows, providers={"fake": cloud}), Handle()), has_gone_on)
