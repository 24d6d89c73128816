"""kill -9 of the dispatcher while receivers fail a fifth of the time: nothing lost, order kept, repeats known by id."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.clock import SystemClock
from libs.embedded import NatsServer
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import ensure_stream, public_stream
from libs.ids import SystemIds
from libs.refusal import Transient
from libs.rpc import NatsBus
from proto.base import Meta, Query
from proto.instance.events import InstanceRunning
from proto.webhook_dispatch.commands import CreateEndpoint
from proto.webhook_dispatch.queries import ListDeliveries
from tests.integration.platform_here import ROOT
from tests.integration.webhook_world import ACCOUNT, PLATFORM_SECRET, Got, Speaker, eventually, receiver

INSTANCES = 30
FACTS_EACH = 12
KILLS = 5
PACE_PPM = 200  # pauses of 1 ms, 60 ms, 0.4 s, 1.4 s, 3.6 s: five failures in a row happen once in 3,000
ALL = INSTANCES * FACTS_EACH


class Dispatching:
    """The service in a process of its own."""

    def __init__(self, nats_url: str, postgres_url: str) -> None:
        self._environment = {
            **os.environ,
            "DUMONT_NATS_URL": nats_url,
            "DUMONT_POSTGRES_URL": postgres_url,
            "DUMONT_SECRET": PLATFORM_SECRET,
            "DUMONT_WEBHOOK_PACE_PPM": str(PACE_PPM),
            "DUMONT_LOG_LEVEL": "warning",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.webhook_dispatch", cwd=ROOT, env=self._environment
        )

    async def kill(self) -> None:
        assert self._process is not None and self._process.returncode is None, "it ended by itself"
        self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def bus_and_log(nats: NatsServer) -> AsyncIterator[tuple[NatsBus, JetStreamLog]]:
    connection = await open_connection(nats.url, name="test")
    await ensure_stream(connection, public_stream(replicas=1))
    yield NatsBus(connection, on_bug=lambda _: None), JetStreamLog(connection)
    await connection.close()


async def speak(speaker: Speaker) -> None:
    """Facts of all instances in turn, numbered."""
    for number in range(FACTS_EACH):
        for instance in range(INSTANCES):
            about = {"instance_id": f"inst_{instance}", "account_id": ACCOUNT, "name": "n", "gpu": "RTX 4090"}
            await speaker.say(InstanceRunning(**about, machine_id=str(number)))
        await asyncio.sleep(0.02)


async def test_kills_lose_nothing_and_keep_the_order(fresh_nats: NatsServer, database_url: str) -> None:
    chance, clock, ids = random.Random(3), SystemClock(), SystemIds()
    arrived: dict[tuple[str, str], list[int]] = defaultdict(list)
    taken: set[str] = set()
    tries: Counter[str] = Counter()
    bodies: dict[str, set[bytes]] = defaultdict(set)

    def answer(got: Got) -> int:
        tries[got.id] += 1
        bodies[got.id].add(got.body)
        if chance.random() < 0.2:
            return 500
        if got.id not in taken:
            taken.add(got.id)
            arrived[got.path, got.json["instanceId"]].append(int(got.json["data"]["machine_id"]))
        return 200

    service = Dispatching(fresh_nats.url, database_url)
    async with receiver(answer) as target, bus_and_log(fresh_nats) as (bus, log):
        await service.start()
        endpoint_ids = [f"whe_{path}" for path in ("a", "b")]

        def meta() -> Meta:
            return Meta(request_id=ids.fresh("req"), deadline=clock.now().timestamp() + 2)

        async def is_made(endpoint_id: str) -> bool:
            url = f"{target.url}/{endpoint_id}"
            about = {"account_id": ACCOUNT, "name": "mine", "url": url, "events": ("instance.running",)}
            try:
                await bus.ask(CreateEndpoint(now=clock.now(), endpoint_id=endpoint_id, **about), meta())
            except Transient:
                return False
            return True

        for endpoint_id in endpoint_ids:
            await eventually(lambda endpoint_id=endpoint_id: is_made(endpoint_id))
        speaking = asyncio.create_task(speak(Speaker(log)))
        for kill in range(1, KILLS + 1):
            await eventually(lambda kill=kill: len(taken) >= 2 * ALL * kill // (KILLS + 2))
            await service.kill()
            await service.start()
        await speaking
        await eventually(lambda: len(taken) == 2 * ALL, within_s=60)

        async def delivered(query: Query) -> bool:
            try:
                return f'"total":{ALL}'.encode() in bytes((await bus.ask(query, meta())).body or b"")
            except Transient:
                return False

        for endpoint_id in endpoint_ids:
            query = ListDeliveries(endpoint_id=endpoint_id, account_id=ACCOUNT, status="delivered", limit=1)
            await eventually(lambda query=query: delivered(query))
        await service.kill()
    assert len(arrived) == 2 * INSTANCES
    assert all(numbers == list(range(FACTS_EACH)) for numbers in arrived.values())
    assert all(len(same) == 1 for same in bodies.values())
    assert max(tries.values()) > 1
