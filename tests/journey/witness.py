"""Somebody outside who hears PUB: what was said about which instance, in which order, and when it arrived here.

Used by the bench of failovers, the storm and the journeys that kill at a phase. Reads the stream itself, so what it
has heard is on the disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec

from libs.eventlog.connection import Connection, open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.wire import header

PUB = "PUB"


class Fact(NamedTuple):
    """One public event. `instance_id` is what it is about; `arrived_s` is this process's clock."""

    seq: int
    name: str
    instance_id: str
    body: dict[str, Any]
    size: int
    arrived_s: float


class Witness:
    """Keeps every fact since it began to listen. `heard` is told of each as it arrives."""

    def __init__(self, connection: Connection, log: JetStreamLog, after_seq: int) -> None:
        self.connection = connection
        self.log = log
        self.facts: list[Fact] = []
        self.heard: Callable[[Fact], None] = lambda _: None
        self._after_seq = after_seq
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        async for batch in self.log.follow(PUB, after_seq=self._after_seq):
            arrived_s = time.perf_counter()
            for stored in batch:
                name = header(stored.headers, b"ce-type").decode()
                about = header(stored.headers, b"ce-subject").decode()
                body = msgspec.json.decode(stored.data)
                fact = Fact(stored.seq, name, about, body, len(stored.data), arrived_s)
                self.facts.append(fact)
                self.heard(fact)
            async with self._news:
                self._news.notify_all()

    async def wait_for(self, found: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
        """The first true answer of `found`, asked again whenever something was said."""
        try:
            async with asyncio.timeout(timeout_s), self._news:
                while not (answer := found()):
                    await self._news.wait()
                return answer
        except TimeoutError:
            said = [f"{fact.name} {fact.instance_id}" for fact in self.facts[-20:]]
            raise AssertionError(f"waited {timeout_s} s for {what}; said last: {said}") from None

    async def fact(self, name: str, instance_id: str, *, since: int = 0, timeout_s: float) -> Fact:
        """The first fact of that name about that instance after `since` facts had been heard."""

        def found() -> Fact | None:
            return next((f for f in self.facts[since:] if (f.name, f.instance_id) == (name, instance_id)), None)

        return await self.wait_for(found, timeout_s=timeout_s, what=f"{name} of {instance_id}")


@asynccontextmanager
async def witness(nats_url: str) -> AsyncIterator[Witness]:
    """Listens from now on."""
    connection = await open_connection(nats_url, name="witness")
    log = JetStreamLog(connection)
    listener = Witness(connection, log, await log.last_seq(PUB))
    task = asyncio.create_task(listener.listen())
    try:
        yield listener
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await connection.close()
