"""A wish that carries a request id takes effect once, however late it comes again (docs/adr/0021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from libs.eventlog import AppendUnknown
from libs.eventlog.memory import MemoryLog
from libs.refusal import Refused
from libs.runtime.aggregates import HEEDED_REMEMBERED_MAX, Aggregates
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Aggregate, Service
from proto.base import Command, Event
from tests.spec.runtime.controls import CLOCK, IDS, NOW, running, tally_service

SUBJECT = "evt.tally.lamp.l"
HIGHEST = 9


class Turned(Event, tag="lamp.turned", frozen=True, kw_only=True):
    level: int


class Told(Turned, tag="lamp.told", frozen=True, kw_only=True):
    """The whole state of a lamp."""


class Turn(Command, tag="turn", frozen=True, kw_only=True):
    """What it comes to depends on how the lamp is: it says nothing when it is so already."""

    service: ClassVar[str] = "tally"
    aggregate: ClassVar[str] = "lamp"
    level: int
    tells: bool = False

    @property
    def aggregate_id(self) -> str:
        return "l"


class Lamp(Struct, frozen=True):
    level: int = 0


def decide(state: Lamp, command: Turn) -> Sequence[Event]:
    if command.level > HIGHEST:
        raise Refused("TALLY_FULL", total=state.level)
    if state.level == command.level:
        return []
    return [Told(level=command.level) if command.tells else Turned(level=command.level)]


def evolve(state: Lamp, event: Turned) -> Lamp:
    del state
    return Lamp(event.level)


LAMP = Aggregate("lamp", Lamp(), decide, evolve, Turned | Told, whole=Told)


def lamp_service() -> Service:
    return tally_service(aggregates=[LAMP], commands=Turn, project=lambda heard: [])


class Deaf(MemoryLog):
    """Says nothing of an append that it has made, once."""

    is_deaf = True

    async def append(self, stream: str, subject: str, data: bytes, *, expected_seq: int) -> int:
        seq = await super().append(stream, subject, data, expected_seq=expected_seq)
        if self.is_deaf:
            self.is_deaf = False
            raise AppendUnknown(subject)
        return seq


def over(log: MemoryLog) -> Aggregates:
    return Aggregates(lamp_service(), log, CLOCK, IDS)


def turn(level: int, request_id: str = "", **more: Any) -> Turn:
    return Turn(now=NOW, request_id=request_id or f"req_{level}", level=level, **more)


async def levels(log: MemoryLog) -> list[int | None]:
    """What each commit says; None: nothing."""
    found: list[int | None] = []
    for stored in await log.read("EVT_TALLY", SUBJECT):
        said = msgspec.json.decode(stored.data)["events"]
        found += [event["level"] for event in said] or [None]
    return found


async def test_a_late_repeat_does_nothing_after_another_wish():
    log = MemoryLog()
    aggregates = over(log)
    for wish in (turn(1), turn(2), turn(1), turn(2), turn(1)):
        position = await aggregates.execute(wish)
    assert (await levels(log), position.seq) == ([1, 2], 2)
    await aggregates.execute(turn(1, "req_new"))
    assert await levels(log) == [1, 2, 1]


async def test_a_wish_that_needed_nothing_to_happen_is_done_too():
    log = MemoryLog()
    aggregates = over(log)
    for wish in (turn(0), turn(1), turn(0)):
        await aggregates.execute(wish)
    assert await levels(log) == [None, 1]


async def test_what_is_heeded_is_known_to_other_lives_and_replicas():
    log = MemoryLog()
    here, there = over(log), over(log)
    await here.execute(turn(1))
    await there.execute(turn(2))
    await here.execute(turn(2))
    await there.execute(turn(1))
    await over(log).execute(turn(1))
    assert await levels(log) == [1, 2]


async def test_a_lost_acknowledgement_of_a_wish_that_needed_nothing_is_found():
    log = Deaf()
    assert (await over(log).execute(turn(0))).seq == 1
    assert await levels(log) == [None]


async def test_a_refused_wish_may_be_granted_when_it_comes_again():
    log = MemoryLog()
    aggregates = over(log)
    assert [r.code for _, r in await aggregates.execute_together([turn(10), turn(1)])] == ["TALLY_FULL"]
    await aggregates.execute(turn(3, "req_10"))
    assert await levels(log) == [1, 3]


async def test_wishes_decided_together_are_each_heeded_once():
    log = MemoryLog()
    aggregates = over(log)
    await aggregates.execute_together([turn(1), turn(2), turn(1)])
    await aggregates.execute_together([turn(3), turn(1), turn(2)])
    assert await levels(log) == [1, 2, 3]


async def test_a_commit_that_tells_the_whole_state_names_what_was_heeded_before():
    log = MemoryLog()
    aggregates = over(log)
    for wish in (turn(1), turn(2, tells=True), turn(3)):
        await aggregates.execute(wish)
    await over(log).execute(turn(1))
    assert await levels(log) == [1, 2, 3]


async def test_only_the_newest_are_remembered():
    log = MemoryLog()
    aggregates = over(log)
    for number in range(HEEDED_REMEMBERED_MAX + 1):
        await aggregates.execute(turn(number % 2, f"req_{number}"))
    before = await levels(log)
    await aggregates.execute(turn(1, "req_1"))
    assert await levels(log) == before, "the oldest of those that are remembered"
    await aggregates.execute(turn(1, "req_0"))
    assert len(await levels(log)) == len(before) + 1


async def test_rows_and_readers_get_past_a_commit_without_events():
    log, store = MemoryLog(), MemoryStore()
    async with running(lamp_service(), log, store) as aggregates:
        position = await aggregates.execute(turn(0))
        while (await store.cursor("project"))[0] < position.seq:
            await CLOCK.sleep(0.001)
    assert await levels(log) == [None]


async def test_a_wish_without_an_id_is_decided_as_often_as_it_comes():
    log = MemoryLog()
    aggregates = over(log)
    for wish in (turn(1), turn(2), turn(1)):
        await aggregates.execute(replace(wish, request_id=""))
    assert await levels(log) == [1, 2, 1]
