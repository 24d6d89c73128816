"""1,000 clients follow one account's event stream while 100 events a second happen: 100,000 frames a second.

The clients are raw sockets in a process of their own. Every one counts what it gets; one in ten also reads each event's
instant, so that the readers are not what is measured.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop

from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from proto.instance.events import InstanceRunning
from tests.bench.report import Line
from tests.integration.webhook_world import Speaker, eventually
from tests.journey.platform import Platform, passing_platform

CLIENTS = 1_000
READERS_EVERY = 10
EVENTS_PER_S = 100
SECONDS = 10
P99_GOAL_MS = 60
OPEN_AT_ONCE = 50
WAIT_MAX_S = 60.0
_INSTANT = re.compile(rb'"timestamp":"([^"]+)"')


def measure() -> list[Line]:
    with passing_platform("--sandbox", "virtual") as up:
        with clients(up) as pipe:
            pipe.recv()  # all are connected
            gateway = psutil.Process(up.status_pids()["gateway"])
            before = gateway.cpu_times()
            uvloop.run(say(up.nats_url))
            assert pipe.poll(WAIT_MAX_S), "the clients have not got everything"
            latencies_ms, got = pipe.recv()
            after = gateway.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    wanted = CLIENTS * EVENTS_PER_S * SECONDS
    assert got == wanted, f"{got} of {wanted} events arrived"
    p50, p99 = latencies_ms[len(latencies_ms) // 2], latencies_ms[int(len(latencies_ms) * 0.99)]
    return [
        Line(
            f"{CLIENTS} event streams x {EVENTS_PER_S}/s",
            f"p50 {p50:.0f} p99 {p99:.0f} ms, {cpu_s / wanted * 1e6:.1f} us of CPU a frame",
            "-",
            "-",
            f"p99 <= {P99_GOAL_MS} ms",
            p99 <= P99_GOAL_MS,
        )
    ]


async def say(nats_url: str) -> None:
    connection = await open_connection(nats_url, name="bench")
    speaker, began_s = Speaker(JetStreamLog(connection, appending="grouped")), time.perf_counter()
    about = {"account_id": "acct_default", "name": "bench", "gpu": "RTX 4090", "machine_id": "mach_1"}
    for number in range(EVENTS_PER_S * SECONDS):
        await asyncio.sleep(max(0.0, began_s + number / EVENTS_PER_S - time.perf_counter()))
        await speaker.say(InstanceRunning(instance_id=f"inst_{number}", **about))
    await connection.close()


@contextmanager
def clients(up: Platform) -> Iterator[Any]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_child, args=(up.api_url, up.api_key, there), daemon=True)
    process.start()
    try:
        yield here
    finally:
        process.kill()
        process.join()


class _Client(asyncio.Protocol):
    """Counts events; a reader notes how late each is."""

    def __init__(self, request: bytes, is_reader: bool, tally: _Tally) -> None:
        self._request = request
        self._is_reader = is_reader
        self._tally = tally
        self.opened = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now_s = time.time()
        if not self.opened.done():
            assert data.startswith(b"HTTP/1.1 200"), data[:300]
            self.opened.set_result(None)
        self._tally.got += data.count(b"\ndata: ")
        if self._is_reader:
            self._tally.latencies_ms += [(now_s - self._tally.second(at)) * 1e3 for at in _INSTANT.findall(data)]


class _Tally:
    def __init__(self) -> None:
        self.got = 0
        self.latencies_ms: list[float] = []
        self._seconds: dict[bytes, float] = {}

    def second(self, at: bytes) -> float:
        found = self._seconds.get(at)
        if found is None:
            found = self._seconds[at] = datetime.fromisoformat(at.decode()).timestamp()
        return found


def _child(url: str, key: str, pipe: Pipe) -> None:
    uvloop.run(_follow(url, key, pipe))


async def _follow(url: str, key: str, pipe: Pipe) -> None:
    loop, tally, address = asyncio.get_running_loop(), _Tally(), urlsplit(url)
    lines = ["GET /api/v1/events/stream HTTP/1.1", f"Host: {address.netloc}", f"Authorization: Bearer {key}"]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n"
    for first in range(0, CLIENTS, OPEN_AT_ONCE):
        made = [
            loop.create_connection(
                lambda n=number: _Client(request, n % READERS_EVERY == 0, tally), address.hostname, address.port
            )
            for number in range(first, first + OPEN_AT_ONCE)
        ]
        for _, protocol in await asyncio.gather(*made):
            await protocol.opened
    pipe.send("open")
    await eventually(lambda: tally.got >= CLIENTS * EVENTS_PER_S * SECONDS, within_s=WAIT_MAX_S)
    pipe.send((sorted(tally.latencies_ms), tally.got))
