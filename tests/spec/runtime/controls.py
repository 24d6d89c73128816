"""A toy service for the runtime's specs: a tally that counts up to a limit and tells the public about every step."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from libs.clock import SystemClock
from libs.eventlog import EventLog
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.refusal import Refused
from libs.runtime.aggregates import Aggregates
from libs.runtime.bus import Bus
from libs.runtime.memory_store import MemoryStore
from libs.runtime.run import run
from libs.runtime.service import Aggregate, Row, Service
from libs.runtime.surroundings import Surroundings
from libs.telemetry import Metrics, logger
from proto.base import Command, Event, Heard

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = 1_000


class Counted(Event, tag="tally.counted", frozen=True, kw_only=True):
    public = True
    tally_id: str
    account_id: str
    step_id: str
    total: int


class Count(Command, tag="count", frozen=True, kw_only=True):
    service: ClassVar[str] = "tally"
    aggregate: ClassVar[str] = "tally"
    tally_id: str
    step_id: str

    @property
    def aggregate_id(self) -> str:
        return self.tally_id


class Tally(Struct, frozen=True):
    total: int = 0
    steps: frozenset[str] = frozenset()


def decide(state: Tally, command: Count) -> Sequence[Event]:
    if command.step_id in state.steps:
        return []
    if state.total >= LIMIT:
        raise Refused("TALLY_FULL", total=state.total)
    return [Counted(tally_id=command.tally_id, account_id="acct_a", step_id=command.step_id, total=state.total + 1)]


def evolve(state: Tally, event: Counted) -> Tally:
    return Tally(event.total, state.steps | {event.step_id})


def project(heard: Heard) -> Sequence[Row]:
    event = heard.event
    assert isinstance(event, Counted)
    return [Row("tallies", {"tally_id": event.tally_id}, {"total": event.total})]


TALLY = Aggregate("tally", Tally(), decide, evolve, Counted)


def tally_service(**rooms: object) -> Service:
    defaults: dict[str, object] = {
        "name": "tally",
        "aggregates": [TALLY],
        "commands": Count,
        "react": lambda heard: [],
        "project": project,
        "schema_sql": "create table tallies (tally_id text primary key, total bigint);",
    }
    return Service(**{**defaults, **rooms})  # pyright: ignore[reportArgumentType]


def count(tally_id: str, step_id: str) -> Count:
    return Count(now=NOW, tally_id=tally_id, step_id=step_id)


async def steps_in(log: EventLog, tally_id: str) -> list[str]:
    """The steps as the log holds them, in order."""
    found: list[str] = []
    for stored in await log.read("EVT_TALLY", f"evt.tally.tally.{tally_id}"):
        commit = msgspec.json.decode(stored.data)
        found += [event["step_id"] for event in commit["events"]]
    return found


CLOCK = SystemClock()
IDS = SystemIds()


class Silent:
    """A bus nobody uses in these specs: commands go straight to the aggregates."""

    async def ask(self, message: Any, meta: Any) -> Any:
        raise AssertionError("these specs send nothing over the bus")

    async def serve(self, service: str, handler: Any) -> None:
        return

    async def close(self) -> None:
        return


@asynccontextmanager
async def running(
    service: Service, log: MemoryLog, store: MemoryStore, bus: Bus | None = None
) -> AsyncIterator[Aggregates]:
    """The whole service on memory adapters, leading, until the block ends. Yields aggregates on the same log."""
    stop, leading = asyncio.Event(), asyncio.Event()

    async def tell(_world: Any, _handle: Any) -> None:
        leading.set()

    service = dataclasses.replace(service, tasks=[tell])
    around = Surroundings(log, store, bus or Silent(), CLOCK, IDS, logger("tally"), Metrics())
    task = asyncio.create_task(run(service, around, stop))
    try:
        await leading.wait()
        yield Aggregates(service, log, CLOCK, IDS)
    finally:
        stop.set()
        await task
