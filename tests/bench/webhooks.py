"""Deliveries with recorded outcomes against the bare client, and how long a fact takes to its first attempt.

Product: facts stand in PUB, the dispatcher (a process of its own, on real servers that sync every write) is started and
delivers them to a receiver; the clock stops when the last outcome is in the rows. Ceiling: aiohttp's client posts the
same bytes with the same number in flight to the same receiver, and keeps nothing.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import asyncpg
import msgspec
import uvloop
from aiohttp import web

from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer
from proto.instance.events import InstanceRunning
from proto.webhook_dispatch.payload import payload
from tests.bench.report import Line
from tests.integration.webhook_process import Dispatching, Owner, owner
from tests.integration.webhook_world import Speaker, eventually

ROUNDS = 3
DELIVERIES = 10_000
ACCOUNTS = 4
INSTANCES_EACH = 250  # as many lanes in all as there are instances of a busy platform
IN_FLIGHT = 200  # what the dispatcher allows itself
RATIO_GOAL = 0.60
PACED_S = 10.0
PACED_PER_S = 200
P99_GOAL_MS = 100
SAYING_AT_ONCE = 500
DONE_MAX_S = 120.0
COUNT_SQL = "select count(*) from webhook_dispatch.deliveries where status = 'delivered'"


def measure() -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        with receiver() as (port, pipe):
            return uvloop.run(_measure(Path(folder), f"http://127.0.0.1:{port}", pipe))


class Round(NamedTuple):
    """One alternation: a second, and microseconds of CPU each, of the product and of the bare client."""

    ours: float
    ours_cpu_us: float
    bare: float
    bare_cpu_us: float

    @property
    def ratio(self) -> float:
        return self.ours / self.bare


async def _measure(folder: Path, url: str, pipe: Any) -> list[Line]:
    rounds: list[Round] = []
    latencies_ms: list[float] = []
    for number in range(ROUNDS):
        nats, postgres = NatsServer(folder / f"nats{number}"), PostgresServer(folder / f"postgres{number}")
        nats.start()
        postgres.start()
        try:
            service = Dispatching(nats.url, postgres.url)
            async with owner(nats.url) as asking:
                rounds.append(Round(*await delivered(service, asking, postgres.url, url), *await bare_client(url)))
                latencies_ms += await paced(service, asking, url, pipe) if number == ROUNDS - 1 else []
                await service.kill()
        finally:
            nats.stop()
            postgres.stop()
    middle = sorted(rounds, key=lambda each: each.ratio)[ROUNDS // 2]
    p50, p99 = latencies_ms[len(latencies_ms) // 2], latencies_ms[int(len(latencies_ms) * 0.99)]
    return [
        Line(
            "webhooks delivered and recorded",
            f"{middle.ours:,.0f}/s, {middle.ours_cpu_us:.0f} us of CPU each",
            f"{middle.bare:,.0f}/s, {middle.bare_cpu_us:.0f} us",
            f"{middle.ratio:.2f}, by CPU {statistics.median(r.bare_cpu_us / r.ours_cpu_us for r in rounds):.2f}",
            f">= {RATIO_GOAL:.2f}",
            middle.ratio >= RATIO_GOAL,
        ),
        Line(
            f"fact to first attempt, {PACED_PER_S}/s", f"p50 {p50:.0f} p99 {p99:.0f} ms", "-", "-",
            f"p99 <= {P99_GOAL_MS} ms", p99 <= P99_GOAL_MS,
        ),
    ]  # fmt: skip


async def delivered(service: Dispatching, asking: Owner, postgres_url: str, url: str) -> tuple[float, float]:
    """Deliveries a second from the first to the last recorded one, and the dispatcher's CPU for one."""
    await service.start()
    for account in range(ACCOUNTS):
        await asking.endpoint(f"whe_{account}", f"{url}/{account}", account_id=f"acct_{account}")
    await service.kill()
    await say(asking, DELIVERIES)
    await service.start()
    connection = await asyncpg.connect(postgres_url)
    give_up_s = time.perf_counter() + DONE_MAX_S

    async def until(wanted: int) -> int:
        while (count := int(await connection.fetchval(COUNT_SQL))) < wanted:
            assert time.perf_counter() < give_up_s, f"{count} of {DELIVERIES} delivered"
            await asyncio.sleep(0.02)
        return count

    try:
        first = await until(1)
        began_s, cpu_s = time.perf_counter(), service.cpu_s()
        counted = await until(DELIVERIES) - first
        return counted / (time.perf_counter() - began_s), (service.cpu_s() - cpu_s) * 1e6 / counted
    finally:
        await connection.close()


async def say(asking: Owner, facts: int) -> None:
    """All instances in turn, so that order within one holds up nobody."""
    speaker = Speaker(asking.log)
    for first in range(0, facts, SAYING_AT_ONCE):
        await asyncio.gather(*(speaker.say(fact(number)) for number in range(first, first + SAYING_AT_ONCE)))


def fact(number: int) -> InstanceRunning:
    instance_id = f"inst_{number // ACCOUNTS % INSTANCES_EACH:026d}"
    about = {"account_id": f"acct_{number % ACCOUNTS}", "name": "bench", "gpu": "RTX 4090"}
    return InstanceRunning(instance_id=instance_id, machine_id=f"mach_{0:026d}", **about)


async def bare_client(url: str) -> tuple[float, float]:
    """Posts a second of the client alone, and its CPU for one."""
    facts = [msgspec.to_builtins(fact(number)) for number in range(DELIVERIES)]
    at = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    bodies = iter([payload("instance.running", f"cmt_{n}.0", at, fields) for n, fields in enumerate(facts)])
    headers = {f"X-Header-{n}": "v" * 40 for n in range(8)} | {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def poster() -> None:
            for body in bodies:
                async with session.post(url + "/bare", data=body, headers=headers) as response:
                    await response.read()

        began_s, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(poster() for _ in range(IN_FLIGHT)))
        return DELIVERIES / (time.perf_counter() - began_s), (time.process_time() - cpu_s) * 1e6 / DELIVERIES


async def paced(service: Dispatching, asking: Owner, url: str, pipe: Any) -> list[float]:
    """Milliseconds from the instant of a fact to its arrival, sorted."""
    assert service.is_running
    await asking.endpoint("whe_paced", f"{url}/paced", account_id="acct_paced")
    speaker, began_s, total = Speaker(asking.log), time.perf_counter(), int(PACED_S * PACED_PER_S)
    for number in range(total):
        await asyncio.sleep(max(0.0, began_s + number / PACED_PER_S - time.perf_counter()))
        about = {"account_id": "acct_paced", "name": "bench", "gpu": "RTX 4090"}
        await speaker.say(InstanceRunning(instance_id=f"inst_{number}", machine_id="mach_1", **about))

    def arrived() -> int:
        pipe.send("count")
        return pipe.recv()

    await eventually(lambda: arrived() == total)
    pipe.send("latencies")
    return sorted(pipe.recv())


# --- the receiver -----------------------------------------------------------------------------------------------------


@contextmanager
def receiver() -> Iterator[tuple[int, Any]]:
    """A small web application in its own process; the pipe tells what arrived at /paced."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_receive, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv(), here
    finally:
        process.kill()
        process.join()


def _receive(pipe: Pipe) -> None:
    uvloop.run(_receiving(pipe))


async def _receiving(pipe: Pipe) -> None:
    latencies_ms: list[float] = []

    async def take(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        if request.path == "/paced":
            at = datetime.fromisoformat(msgspec.json.decode(body)["timestamp"])
            latencies_ms.append((time.time() - at.timestamp()) * 1e3)
        return web.Response(text="ok")

    def tell() -> None:
        pipe.send(latencies_ms if pipe.recv() == "latencies" else len(latencies_ms))

    asyncio.get_running_loop().add_reader(pipe.fileno(), tell)
    runner = web.ServerRunner(web.Server(take, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pipe.send(runner.addresses[0][1])
    await asyncio.Event().wait()
