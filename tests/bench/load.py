"""A load generator lean enough not to be what is measured: raw HTTP/1.1 over kept-alive connections, closed loop.

Runs in its own process (`run_load`), because on two cores a generator inside the measuring process would share its
loop.
Sends only to 127.0.0.1; bounded in connections and seconds.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import time
from dataclasses import dataclass
from typing import Any

import uvloop

CONNECTIONS_MAX = 512
SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Slice:
    """One closed-loop slice: requests finished per second, latency in milliseconds, answers by status."""

    per_second: float
    p50_ms: float
    p99_ms: float
    statuses: dict[int, int]


@dataclass(frozen=True)
class Call:
    """What to send: paths and keys in turn, each on its own; `{n}` in header or body is a number that never repeats
    within a process."""

    port: int
    method: str
    paths: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    keys: tuple[str, ...] = ()

    def encode(self, number: int) -> bytes:
        body = self.body.replace("{n}", str(number)).encode()
        lines = [f"{self.method} {self.paths[number % len(self.paths)]} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value.replace('{n}', str(number))}" for name, value in self.headers]
        lines += [f"Authorization: Bearer {self.keys[number % len(self.keys)]}"] if self.keys else []
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    def __init__(self, call: Call, numbers: Any, deadline: float, latencies: list[float], statuses: dict[int, int]):
        self.call, self.numbers, self.deadline = call, numbers, deadline
        self.latencies, self.statuses = latencies, statuses
        self.buffer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        if self.sent_at >= self.deadline:
            self.transport.close()
            return
        self.transport.write(self.call.encode(next(self.numbers)))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self.buffer[:head_end].lower()
        start = head.find(b"content-length:")
        end = head.find(b"\r\n", start)
        length = int(head[start + 15 : end if end > 0 else None]) if start >= 0 else 0
        if len(self.buffer) < head_end + 4 + length:
            return
        self.latencies.append(time.perf_counter() - self.sent_at)
        status = int(self.buffer[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.buffer = self.buffer[head_end + 4 + length :]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # a broken connection shows as requests that did not finish
        if not self.done.done():
            self.done.set_result(None)


async def _slice(call: Call, connections: int, seconds: float, first_number: int) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    numbers = iter(range(first_number, first_number + 10_000_000))
    started = time.perf_counter()
    made = [
        (
            await loop.create_connection(
                lambda: _Connection(call, numbers, started + seconds, latencies, statuses), "127.0.0.1", call.port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.wait([protocol.done for protocol in made], timeout=seconds + 10)
    took = time.perf_counter() - started
    latencies.sort()
    return {
        "per_second": len(latencies) / took,
        "p50_ms": latencies[len(latencies) // 2] * 1e3 if latencies else 0.0,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3 if latencies else 0.0,
        "statuses": statuses,
    }


def _child(call: Call, connections: int, seconds: float, first_number: int, out: Any) -> None:
    uvloop.install()
    out.send(json.dumps(asyncio.run(_slice(call, connections, seconds, first_number))))


def run_load(call: Call, *, connections: int, seconds: float, first_number: int = 0) -> Slice:
    """One slice from a fresh process."""
    assert connections <= CONNECTIONS_MAX and seconds <= SECONDS_MAX
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(
        target=_child, args=(call, connections, seconds, first_number, there)
    )
    process.start()
    result = json.loads(here.recv())
    process.join()
    return Slice(
        result["per_second"],
        result["p50_ms"],
        result["p99_ms"],
        {int(status): count for status, count in result["statuses"].items()},
    )
