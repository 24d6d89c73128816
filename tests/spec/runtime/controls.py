"""A toy service for the runtime's specs: a tally that counts up to a limit and tells the public about every step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import ClassVar

import msgspec
from msgspec import Struct

from libs.clock import SystemClock
from libs.eventlog import EventLog
from libs.ids import SystemIds
from libs.refusal import Refused
from libs.runtime.service import Aggregate, Row, Service
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
