"""The bus within one process: for specs and the simulation.

Used by `libs.spec` and `libs.sim`. Owns who serves what. Messages go through their JSON form, so that what works here
works on NATS; it passes the same conformance suite.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec

from libs.clock import Clock, SystemClock
from libs.rpc import OVERLOADED, SERVED_AT_ONCE_MAX, OnBug, accepted_reply, answer, request_bytes, subject_of
from libs.runtime.bus import NobodyThere, Serve, Unanswered
from proto.base import Command, Meta, Query, Refusal, Reply, Request, Signal


class MemoryExchange:
    """What the buses of one simulated world share: who serves which service, in turn."""

    def __init__(self) -> None:
        self.replicas: defaultdict[str, list[MemoryBus]] = defaultdict(list)

    def next_replica(self, service: str) -> MemoryBus | None:
        """Round robin, so that a run repeats itself exactly."""
        replicas = self.replicas[service]
        if not replicas:
            return None
        replicas.append(replicas.pop(0))
        return replicas[-1]


class MemoryBus:
    """The `Bus` port. Each simulated process has its own, on a common exchange."""

    def __init__(self, *, on_bug: OnBug, clock: Clock | None = None, exchange: MemoryExchange | None = None) -> None:
        self._clock = clock or SystemClock()
        self._on_bug = on_bug
        self._exchange = exchange or MemoryExchange()
        self._handlers: dict[str, Serve] = {}
        self._serving: set[asyncio.Task[bytes]] = set()

    async def ask(self, message: Command | Query | Signal, meta: Meta) -> Reply:
        subject = subject_of(message)
        left_s = meta.deadline - self._clock.now().timestamp()
        if left_s <= 0:
            raise Unanswered(f"{subject}: the deadline has passed")
        replica = self._exchange.next_replica(message.service)
        if replica is None:
            raise NobodyThere(f"nobody answers on {subject}")
        working = replica.take(message.service, subject, request_bytes(message, meta))
        sleeping = asyncio.ensure_future(self._clock.sleep(left_s))
        try:
            await asyncio.wait({working, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
        if not working.done() or working.cancelled():
            raise Unanswered(f"{subject}: no answer in time")
        return accepted_reply(working.result())

    async def serve(self, service: str, handler: Serve) -> None:
        self._handlers[service] = handler
        self._exchange.replicas[service].append(self)

    async def close(self) -> None:
        for service in self._handlers:
            self._exchange.replicas[service].remove(self)
        self._handlers.clear()
        for task in tuple(self._serving):
            task.cancel()

    def take(self, service: str, subject: str, data: bytes) -> asyncio.Future[bytes]:
        """Begin to serve one request; the future holds the encoded reply, and is cancelled when this process dies."""
        task = asyncio.get_running_loop().create_task(self._serve_one(service, subject, data))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _serve_one(self, service: str, subject: str, data: bytes) -> bytes:
        if len(self._serving) > SERVED_AT_ONCE_MAX:
            return msgspec.json.encode(Reply(refused=Refusal(OVERLOADED)))
        request = msgspec.json.decode(data, type=Request)
        reply = await answer(subject, request, self._handlers[service], self._on_bug)
        return msgspec.json.encode(reply)
