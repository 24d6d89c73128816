"""A real instance service over the in-memory log and bus, a real database, and a cloud that does what the test says.

The cloud's machines answer on one real loopback port, so that probes meet a real server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from msgspec.structs import replace

from libs import telemetry
from libs.clock import SystemClock
from libs.config import Secret
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.postgres import Database, Definition, PostgresStore, ensure_schema, open_database
from libs.refusal import OutcomeUnknown, Transient
from libs.rpc_memory import MemoryBus, MemoryExchange
from libs.runtime.run import run
from libs.runtime.surroundings import Surroundings
from proto.base import Command, Meta, Position, Query, Reply, Signal
from proto.instance.commands import CreateInstance
from proto.instance.queries import GetInstance, InstanceView
from proto.instance.words import Endpoint, HealthCheck, MachineSpec, Offer, Port
from services.instance.effects.world import World
from services.instance.providers import (
    Capabilities,
    MachineOrder,
    News,
    OfferGone,
    Provider,
    ProviderMachine,
    ProviderVolume,
)
from services.instance.rooms import SERVICE

ACCOUNT = "acct_default"
DEADLINE_S = 30.0
PAUSE_S = 0.01
ORPHAN_SEEN_S = 0.2
POLL_S = 0.2
LIST_LAG_S = 0.1
SPEC = MachineSpec(gpu="RTX_4090", image="pytorch/pytorch", region="CN-HK-01", ports=(Port(8888, "http"),))

CAPABILITIES = Capabilities(
    spot=True,
    regional_volumes=True,
    shared_volume=True,
    stopped_keeps_gpu=True,
    push_signals=True,
    idempotent_create=False,
    list_lag_s=LIST_LAG_S,
)


def an_offer(number: int, **changes: Any) -> Offer:
    offer = Offer(
        offer_id=f"offer_{number}",
        provider="scripted",
        host_id=f"host_{number}",
        gpu="RTX 4090",
        price_usd_micros_per_hour=300_000 + number,
        region="CN-HK-01",
        gpu_memory_gb=24,
        disk_gb=500,
    )
    return replace(offer, **changes)


@dataclass
class ScriptedCloud:
    """A `Provider`. `lose_answers`: so many creates take effect and then time out; `rented` counts those that did."""

    name: str = "scripted"
    capabilities: Capabilities = CAPABILITIES
    market: list[Offer] = field(default_factory=lambda: [an_offer(1), an_offer(2)])
    listed: dict[str, ProviderMachine] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    lose_answers: int = 0
    refuse_connections: int = 0
    rented: int = 0
    port: int = 0
    misses: int = 0  # so many looks at a machine do not find it
    looks: int = 0
    kept: dict[str, ProviderVolume] = field(default_factory=dict[str, ProviderVolume])
    hints: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def offers(self) -> Sequence[Offer]:
        return list(self.market)

    async def create(self, order: MachineOrder) -> ProviderMachine:
        if self.refuse_connections:
            self.refuse_connections -= 1
            raise Transient("connection refused")
        if order.offer.offer_id in self.taken:
            raise OfferGone(order.offer.offer_id)
        assert order.environment["DUMONT_AGENT_TOKEN"].startswith("dumont_agent_")
        self.rented += 1
        endpoints = tuple(Endpoint(port.port, "127.0.0.1", self.port, port.protocol) for port in order.spec.ports)
        machine = ProviderMachine(
            f"cloud_{self.rented}",
            order.label,
            "running",
            order.offer.offer_id,
            order.offer.host_id,
            endpoints,
            volume_id=order.volume_id,
        )
        self.listed[machine.provider_machine_id] = machine
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("the answer was lost")
        return machine

    async def find(self, label: str) -> ProviderMachine | None:
        return next((machine for machine in self.listed.values() if machine.label == label), None)

    async def get(self, provider_machine_id: str) -> ProviderMachine:
        self.looks += 1
        if self.misses:
            self.misses -= 1
            return ProviderMachine(provider_machine_id, "", "gone")
        return self.listed.get(provider_machine_id) or ProviderMachine(provider_machine_id, "", "gone")

    async def machines(self) -> Sequence[ProviderMachine]:
        return list(self.listed.values())

    async def start(self, provider_machine_id: str) -> None:
        self.becomes(provider_machine_id, "running")

    async def stop(self, provider_machine_id: str) -> None:
        self.becomes(provider_machine_id, "stopped")

    async def destroy(self, provider_machine_id: str) -> None:
        self.listed.pop(provider_machine_id, None)

    async def share_workspace(self, provider_machine_id: str, *, name: str, size_gb: int) -> str:
        assert provider_machine_id in self.listed
        self.kept[f"vol_{name}"] = ProviderVolume(f"vol_{name}", name, host_id=self.listed[provider_machine_id].host_id)
        return f"vol_{name}"

    async def make_volume(self, *, name: str, region: str, size_gb: int) -> str:
        volume = ProviderVolume(f"vol_{name}_{region}", name, region=region)
        return self.kept.setdefault(volume.volume_id, volume).volume_id

    async def volumes(self) -> Sequence[ProviderVolume]:
        return list(self.kept.values())

    async def destroy_volume(self, volume_id: str) -> None:
        if any(machine.volume_id == volume_id for machine in self.listed.values()):
            raise Transient(f"{volume_id} is in use")
        self.kept.pop(volume_id, None)

    async def signals(self) -> AsyncIterator[News]:
        while True:
            yield News(await self.hints.get())

    async def close(self) -> None:
        return None

    def becomes(self, provider_machine_id: str, status: str, **changes: Any) -> None:
        self.listed[provider_machine_id] = replace(self.listed[provider_machine_id], status=status, **changes)


@dataclass
class InstanceWorld:
    """One running instance service, and what a caller on the bus can do with it."""

    cloud: ScriptedCloud
    bus: MemoryBus
    pool: Database
    clock: SystemClock
    ids: SystemIds
    answers: list[int]
    position: Position | None = None

    async def ask(self, message: Command | Query | Signal, reply: Any = None) -> Any:
        """Send; commands return nothing, questions their answer. Reads see the last command."""
        meta = Meta(
            request_id=self.ids.fresh("req"),
            deadline=self.clock.now().timestamp() + DEADLINE_S,
            min_position=self.position,
        )
        answer: Reply = await self.bus.ask(message, meta)
        self.position = answer.position or self.position
        return None if reply is None else msgspec.json.decode(answer.body or b"null", type=reply)

    async def create(self, name: str = "my-instance", **changes: Any) -> str:
        instance_id = self.ids.fresh("inst")
        command = CreateInstance(
            now=self.clock.now(),
            instance_id=instance_id,
            account_id=ACCOUNT,
            name=name,
            spec=SPEC,
            machine_id=self.ids.fresh("mach"),
            health_check=HealthCheck(timeout_ms=2_000, retry_delay_ms=10, wait_max_ms=5_000),
        )
        await self.ask(replace(command, **changes))
        return instance_id

    async def get(self, instance_id: str) -> InstanceView:
        return await self.ask(GetInstance(instance_id=instance_id, account_id=ACCOUNT, with_deleted=True), InstanceView)

    async def until_status(self, instance_id: str, status: str) -> InstanceView:
        view = await self.get(instance_id)
        async with asyncio.timeout(DEADLINE_S):
            while view.status != status:
                await asyncio.sleep(PAUSE_S)
                view = await self.get(instance_id)
        return view

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def instance_world(
    database_url: str, cloud: ScriptedCloud, *, provider: Provider | None = None, **settings: Any
) -> AsyncIterator[InstanceWorld]:
    """Everything started, and stopped again in order. `provider`: rent there and not at the scripted cloud."""
    answers = [200]
    runner = web.AppRunner(web.Application())

    async def answer(_: web.Request) -> web.Response:
        """The next scripted status; the last one stays."""
        return web.Response(status=answers.pop(0) if len(answers) > 1 else answers[0])

    runner.app.router.add_get("/", answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cloud.port = runner.addresses[0][1]
    renting_at = provider or cloud
    clock, ids, stop = SystemClock(), SystemIds(), asyncio.Event()
    pool = await open_database(database_url, service=SERVICE.name)
    definition = Definition(SERVICE.name, SERVICE.schema_sql, "test", SERVICE.live_sql)
    await ensure_schema(pool, definition)
    exchange = MemoryExchange()
    bus = MemoryBus(on_bug=_raise, exchange=exchange)
    async with aiohttp.ClientSession() as http:
        logger = telemetry.logger("test")
        world = World(
            {renting_at.name: renting_at}, clock, random.Random(7), Secret("5ec7e7"), "http://127.0.0.1:1", http, pool,
            logger,
            poll_s=POLL_S, **settings, orphan_seen_s=ORPHAN_SEEN_S, orphan_grace_s=0.0,
        )  # fmt: skip
        around = Surroundings(
            log=MemoryLog(), store=PostgresStore(pool, fingerprint="test"), bus=bus, clock=clock, ids=ids,
            logger=logger, metrics=telemetry.Metrics(), world=world, pool=pool,
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            service = group.create_task(run(SERVICE, around, stop))
            try:
                async with asyncio.timeout(DEADLINE_S):
                    while not exchange.replicas[SERVICE.name]:
                        await asyncio.sleep(PAUSE_S)
                yield InstanceWorld(cloud, bus, pool, clock, ids, answers)
            finally:
                stop.set()
                await asyncio.wait((service,), timeout=DEADLINE_S)
    await bus.close()
    await pool.close()
    await runner.cleanup()


def _raise(error: BaseException) -> None:
    raise error
