"""Answers that are kept: the same as asking again, whatever changes in between."""

from __future__ import annotations

import asyncio
import random
from typing import Any, ClassVar

import msgspec
import pytest

from libs.eventlog.memory import MemoryLog
from libs.refusal import Refused
from libs.rpc_memory import MemoryBus
from libs.runtime.memory_store import MemoryStore
from libs.runtime.recent import KEPT_MAX, QUESTIONS_MAX, Recent
from libs.runtime.serving import QueryContext
from proto.base import Meta, Position, Query
from tests.spec.runtime.controls import CLOCK, count, running, tally_service

ANSWER_MAX_S = 30.0
WRITERS, STEPS = 5, 40


class Rows:
    """Something to ask, that counts how often it is asked and can be made to wait."""

    def __init__(self) -> None:
        self.value = 1
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self) -> int:
        self.asked += 1
        read = self.value
        await self.may_answer.wait()
        return read

    async def fail(self) -> int:
        self.asked += 1
        raise Refused("INSTANCE_NOT_FOUND")


async def test_an_answer_is_asked_for_once_until_its_rows_change() -> None:
    recent, rows = Recent(), Rows()
    with recent.following():
        assert [await recent.answer("a", "q", rows.ask) for _ in range(3)] == [1, 1, 1]
        rows.value = 2
        recent.forget(["b"])
        assert await recent.answer("a", "q", rows.ask) == 1
        recent.forget(["a"])
        assert [await recent.answer("a", "q", rows.ask) for _ in range(3)] == [2, 2, 2]
    assert rows.asked == 2


async def test_another_question_about_the_same_thing_is_asked() -> None:
    recent, mine, theirs = Recent(), Rows(), Rows()
    with recent.following():
        assert await recent.answer("a", "of me", mine.ask) == 1
        for _ in range(2):
            with pytest.raises(Refused):
                await recent.answer("a", "of another", theirs.fail)
        assert await recent.answer("a", "of me", mine.ask) == 1
    assert (mine.asked, theirs.asked) == (1, 2)


async def test_what_was_read_before_a_change_is_answered_and_not_kept() -> None:
    recent, rows = Recent(), Rows()
    with recent.following():
        rows.may_answer.clear()
        early = asyncio.create_task(recent.answer("a", "q", rows.ask))
        while not rows.asked:
            await asyncio.sleep(0)
        rows.value = 2
        recent.forget(["a"])
        rows.may_answer.set()
        assert await recent.answer("a", "q", rows.ask) == 2
        assert await early == 1
        assert await recent.answer("a", "q", rows.ask) == 2


async def test_who_does_not_follow_the_log_keeps_nothing() -> None:
    recent, rows = Recent(), Rows()
    with recent.following():
        await recent.answer("a", "q", rows.ask)
    rows.value = 2
    assert [await recent.answer("a", "q", rows.ask) for _ in range(2)] == [2, 2]
    with recent.following():
        assert await recent.answer("a", "q", rows.ask) == 2
    assert rows.asked == 4


async def test_what_is_kept_is_bounded_and_the_oldest_goes() -> None:
    recent, rows = Recent(), Rows()
    with recent.following():
        for number in range(KEPT_MAX + 1):
            await recent.answer(str(number), "q", rows.ask)
        await recent.answer(str(KEPT_MAX), "q", rows.ask)
        assert rows.asked == KEPT_MAX + 1
        await recent.answer("0", "q", rows.ask)
        assert rows.asked == KEPT_MAX + 2


async def test_the_answers_about_one_thing_are_bounded() -> None:
    recent, rows = Recent(), Rows()
    with recent.following():
        for number in range(QUESTIONS_MAX + 1):
            await recent.answer("table", str(number), rows.ask)
        await recent.answer("table", str(QUESTIONS_MAX), rows.ask)
        assert rows.asked == QUESTIONS_MAX + 1


# --- in a whole service -----------------------------------------------------------------------------------------------


class GetTally(Query, tag="tally", frozen=True, kw_only=True):
    service: ClassVar[str] = "tally"
    reply: ClassVar[Any] = int
    tally_id: str


async def test_whoever_has_written_reads_it_though_answers_are_kept() -> None:
    log, store = MemoryLog(), MemoryStore()
    bus = MemoryBus(on_bug=lambda error: pytest.fail(repr(error)))
    asked = 0

    async def read(tally_id: str) -> int:
        nonlocal asked
        asked += 1
        found = [row["total"] for row in store.rows("tallies") if row["tally_id"] == tally_id]
        await asyncio.sleep(0)
        return found[0] if found else 0

    async def get_tally(question: GetTally, context: QueryContext) -> int:
        return await context.recent.answer(question.tally_id, "", lambda: read(question.tally_id))

    def meta(seen: Position | None = None) -> Meta:
        return Meta(request_id="req_1", deadline=CLOCK.now().timestamp() + ANSWER_MAX_S, min_position=seen)

    async def ask(question: GetTally, seen: Position | None = None) -> int:
        body = (await bus.ask(question, meta(seen))).body
        assert body is not None
        return msgspec.json.decode(body, type=int)

    async def write(tally_id: str, chance: random.Random) -> None:
        for step in range(1, STEPS + 1):
            position = (await bus.ask(count(tally_id, f"{tally_id}{step}"), meta())).position
            for _ in range(chance.randrange(4)):
                assert await ask(GetTally(tally_id=tally_id), position) == step

    async with running(tally_service(queries={GetTally: get_tally}), log, store, bus):
        async with asyncio.TaskGroup() as group:
            for writer in range(WRITERS):
                group.create_task(write(f"t{writer}", random.Random(writer)))
        before = asked
        assert [await ask(GetTally(tally_id="t0")) for _ in range(10)] == [STEPS] * 10
        assert asked <= before + 1
