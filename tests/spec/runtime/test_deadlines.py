"""Keeping time: what falls due is wished, soon after it is set as well, and the table is not looked at for nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import pytest

from libs.eventlog.memory import MemoryLog
from libs.refusal import Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.deadlines import REISSUE_S, Deadlines
from libs.runtime.memory_store import MemoryStore
from libs.runtime.projecting import Progress
from libs.runtime.service import Row, deadline, no_deadline
from libs.runtime.store import Deadline
from libs.runtime.surroundings import Surroundings
from libs.spec.hand_clock import HandClock
from libs.telemetry import Metrics, logger
from proto.base import Command, Heard
from tests.spec.runtime.controls import CLOCK, IDS, NOW, Count, Counted, Silent, count, running, steps_in, tally_service

NEVER_S = 3_600.0
WAIT_MAX_S = 30.0
DUE = "due"


class CountingStore(MemoryStore):
    """Knows how often somebody asked what is due."""

    looks = 0

    async def due(self, now: datetime, *, limit: int) -> Sequence[Deadline]:
        self.looks += 1
        return await super().due(now, limit=limit)


def project(heard: Heard) -> Sequence[Row]:
    """`in <seconds>` sets a deadline; the wish that comes of it withdraws it."""
    event = heard.event
    assert isinstance(event, Counted)
    if event.step_id == DUE:
        return [no_deadline(event.tally_id, "ring")]
    command = {"type": "count", "tally_id": event.tally_id, "step_id": DUE}
    due_at = heard.at + timedelta(seconds=float(event.step_id.removeprefix("in ")))
    return [deadline(event.tally_id, "ring", due_at, msgspec.json.encode(command).decode())]


KEEPING_TIME = dataclasses.replace(tally_service(), project=project)


async def until_due(log: MemoryLog, *tally_ids: str) -> None:
    async with asyncio.timeout(WAIT_MAX_S):
        for tally_id in tally_ids:
            while DUE not in await steps_in(log, tally_id):
                await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then only being told of a sooner one can be why it is looked for."""
    monkeypatch.setattr("libs.runtime.deadlines.POLL_MAX_S", NEVER_S)


async def test_one_that_falls_due_before_the_next_look_is_looked_for() -> None:
    log, store = MemoryLog(), MemoryStore()
    async with running(KEEPING_TIME, log, store) as aggregates:
        await aggregates.execute(count("far", "in 3000"))
        await aggregates.execute(count("near", "in 0.05"))
        await until_due(log, "near")
        await aggregates.execute(count("past", "in -5"))
        await until_due(log, "past")
        assert await steps_in(log, "far") == ["in 3000"]


async def test_those_that_are_far_away_are_not_looked_at_one_by_one() -> None:
    log, store = MemoryLog(), CountingStore()
    async with running(KEEPING_TIME, log, store) as aggregates:
        await aggregates.execute(count("first", "in 1"))
        for number in range(50):
            await aggregates.execute(count(f"far{number}", "in 3000"))
            while (await store.cursor("project"))[0] < number + 2:
                await asyncio.sleep(0.001)
        looks = store.looks
        await until_due(log, "first")
    assert looks <= 4


async def test_more_than_a_page_that_is_due_at_once_is_issued_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.runtime.deadlines.PAGE_MAX", 3)
    log, store = MemoryLog(), MemoryStore()
    names = [f"t{number}" for number in range(20)]
    async with running(KEEPING_TIME, log, store) as aggregates:
        for name in names:
            await aggregates.execute(count(name, "in 0.3"))
        await until_due(log, *names)


async def test_what_was_wished_is_wished_again_when_its_time_was_moved_or_nothing_came_of_it_for_a_minute() -> None:
    clock, log, store = HandClock(NOW), MemoryLog(), MemoryStore()
    wishes: list[datetime] = []

    async def note(command: Command, world: object) -> None:
        del world
        wishes.append(command.now)

    around = Surroundings(log, store, Silent(), clock, IDS, logger("tally"), Metrics())
    service, progress = tally_service(intake={Count: note}), Progress()
    wish = '{"type":"count","tally_id":"t1","step_id":"s1"}'
    await store.project([deadline("t1", "count", NOW, wish)], after_seq=0, seq=1)
    task = asyncio.create_task(Deadlines(service, around, Aggregates(service, log, clock, IDS), progress).run())

    async def looked() -> list[datetime]:
        for _ in range(2):  # the second look begins after the first has ended
            progress.sooner_deadline.set()
            async with asyncio.timeout(WAIT_MAX_S):
                while progress.sooner_deadline.is_set():
                    await asyncio.sleep(0)
        return wishes

    assert await looked() == [NOW]
    clock.wait(seconds=REISSUE_S - 1)
    assert await looked() == [NOW]
    await store.project([deadline("t1", "count", clock.now(), wish)], after_seq=1, seq=2)
    assert await looked() == [NOW, moved := clock.now()]
    clock.wait(seconds=REISSUE_S)
    assert await looked() == [NOW, moved, clock.now()]
    task.cancel()
    await asyncio.wait((task,), timeout=WAIT_MAX_S)


async def test_who_is_told_to_stop_while_a_deadline_meets_an_unwell_world_stops() -> None:
    """The lease and the database go in one moment; who went on then would be waited for for ever."""
    begun = asyncio.Event()

    async def ask_the_database(command: Command, world: object) -> Command:
        del world
        if not begun.is_set():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise Transient("connection refused")  # what the loss of a connection makes of a cancel
        return command

    log, store = MemoryLog(), MemoryStore()
    service = tally_service(intake={Count: ask_the_database})
    due = deadline("t1", "count", NOW, '{"type":"count","tally_id":"t1","step_id":"s1"}')
    await store.project([due], after_seq=0, seq=1)
    around = Surroundings(log, store, Silent(), CLOCK, IDS, logger("tally"), Metrics())
    deadlines = Deadlines(service, around, Aggregates(service, log, CLOCK, IDS), Progress())
    task = asyncio.create_task(deadlines.run())
    await begun.wait()
    task.cancel()
    await asyncio.wait((task,), timeout=WAIT_MAX_S)
    assert task.cancelled()
