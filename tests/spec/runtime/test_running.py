"""A whole service on memory adapters: what follows from a fact follows once, in order, and after a crash as well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest

from libs.eventlog.memory import MemoryLog
from libs.refusal import Refused, Transient
from libs.runtime.courtesy import BURST_COMMANDS, Courtesy
from libs.runtime.hands import PATIENT_JOBS_MAX
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Effect, Job
from proto.base import Command
from tests.spec.runtime.controls import Counted, count, running, steps_in, tally_service

WAIT_MAX_S = 5.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_MAX_S):
        while not await condition():
            await asyncio.sleep(0.005)


async def published(log: MemoryLog) -> list[tuple[str, str]]:
    """(account's subject, step) of everything in PUB."""
    found: list[tuple[str, str]] = []
    last_seq = await log.last_seq("PUB")
    if last_seq:
        async for batch in log.follow("PUB", after_seq=0):
            found += [(stored.subject, msgspec.json.decode(stored.data)["step_id"]) for stored in batch]
            if batch[-1].seq >= last_seq:
                break
    return found


async def test_public_facts_reach_everybody_in_order_and_rows_follow():
    log, store = MemoryLog(), MemoryStore()
    async with running(tally_service(), log, store) as aggregates:
        for step in ("one", "two", "three"):
            await aggregates.execute(count("t", step))

        async def told() -> bool:
            return len(await published(log)) == 3 and (await store.cursor("project"))[0] == 3

        await until(told)
    assert await published(log) == [("pub.acct_a.tally.counted", step) for step in ("one", "two", "three")]
    assert store.rows("tallies") == [{"tally_id": "t", "total": 3}]


async def test_a_restart_publishes_nothing_twice_though_the_cursor_was_never_saved():
    class Forgetful(MemoryStore):
        async def save_cursor(self, name: str, seq: int, companion: int = 0) -> None:
            return

    class WithoutDedup(MemoryLog):
        """As after the dedup window has passed: every publish is stored."""

        number = 0

        async def publish(self, stream: str, subject: str, data: bytes, *, message_id: str, headers: Any) -> int:
            self.number += 1
            return await super().publish(
                stream, subject, data, message_id=f"{message_id}#{self.number}", headers=headers
            )

    log, store = WithoutDedup(), Forgetful()
    for expected in (1, 2, 3):
        async with running(tally_service(), log, store) as aggregates:
            await aggregates.execute(count("t", str(expected)))

            async def told(expected: int = expected) -> bool:
                return len(await published(log)) >= expected

            await until(told)
    assert [step for _, step in await published(log)] == ["1", "2", "3"]


async def test_an_effect_that_fails_for_a_while_is_tried_again_and_its_outcome_becomes_a_fact():
    attempts: list[tuple[int, bool]] = []

    async def flaky(job: Job, world: Any) -> Sequence[Command]:
        event = job.heard.event
        assert isinstance(event, Counted)
        if event.step_id != "one":
            return []
        attempts.append((job.attempt, job.maybe_done))
        if job.attempt < 3:
            raise Transient("not yet")
        return [count("t", "outcome")]

    log, store = MemoryLog(), MemoryStore()
    async with running(tally_service(effects={Counted: Effect(flaky)}), log, store) as aggregates:
        await aggregates.execute(count("t", "one"))

        async def done() -> bool:
            return "outcome" in await steps_in(log, "t")

        await until(done)
    assert attempts == [(1, False), (2, True), (3, True)]


async def test_an_effect_that_never_succeeds_ends_as_a_dead_letter_with_its_cause():
    async def hopeless(job: Job, world: Any) -> Sequence[Command]:
        raise Transient("the cloud is closed")

    log, store = MemoryLog(), MemoryStore()
    effects = {Counted: Effect(hopeless, tries_max=2)}
    async with running(tally_service(effects=effects), log, store) as aggregates:
        await aggregates.execute(count("t", "one"))

        async def parked() -> bool:
            return await log.last_seq("DEAD") == 1

        await until(parked)
    letter = msgspec.json.decode((await log.read("DEAD", "dead.tally.effect"))[0].data)
    assert letter["cause"] == "Transient: the cloud is closed"
    assert letter["event"]["step_id"] == "one"


@pytest.mark.parametrize("bug", [KeyError("brush"), Refused("NO_BRUSH")])
async def test_a_bug_ends_two_lives_and_the_third_parks_its_job_and_goes_on(bug: Exception):
    lives = 0

    async def broken(job: Job, world: Any) -> Sequence[Command]:
        nonlocal lives
        if job.heard.event.step_id != "one":
            return [count("t", "after")]
        lives += 1
        raise bug

    async def met(times: int) -> bool:
        return lives == times

    async def went_on() -> bool:
        return "after" in await steps_in(log, "t")

    log, store = MemoryLog(), MemoryStore()
    service = tally_service(effects={Counted: Effect(broken)})
    for life in (1, 2):
        with pytest.raises(ExceptionGroup):
            async with running(service, log, store) as aggregates:
                await aggregates.execute(count("t", "one"))
                await until(lambda life=life: met(life))
    async with running(service, log, store) as aggregates:
        await aggregates.execute(count("t", "two"))
        await until(went_on)
    assert lives == 3
    (letter,) = await log.read("DEAD", "dead.tally.effect")
    assert msgspec.json.decode(letter.data)["cause"] == repr(bug)


async def test_jobs_of_one_aggregate_run_in_order_and_others_do_not_wait_for_them():
    order: list[str] = []
    release = asyncio.Event()

    async def slow_first(job: Job, world: Any) -> Sequence[Command]:
        event = job.heard.event
        assert isinstance(event, Counted)
        if event.step_id == "a1":
            await release.wait()
        order.append(event.step_id)
        return []

    log, store = MemoryLog(), MemoryStore()
    async with running(tally_service(effects={Counted: Effect(slow_first)}), log, store) as aggregates:
        for tally, step in (("a", "a1"), ("a", "a2"), ("b", "b1")):
            await aggregates.execute(count(tally, step))

        async def seen(steps: int) -> bool:
            return len(order) == steps

        await until(lambda: seen(1))
        assert order == ["b1"]
        release.set()
        await until(lambda: seen(3))
    assert order == ["b1", "a1", "a2"]


async def test_only_so_many_patient_jobs_are_at_work_at_once_and_the_others_follow():
    at_work: set[str] = set()
    most, release = [0], asyncio.Event()

    async def slow(job: Job, world: Any) -> Sequence[Command]:
        event = job.heard.event
        assert isinstance(event, Counted)
        at_work.add(event.tally_id)
        most[0] = max(most[0], len(at_work))
        await release.wait()
        at_work.remove(event.tally_id)
        done.append(event.tally_id)
        return []

    done: list[str] = []
    tallies = [f"t{number}" for number in range(PATIENT_JOBS_MAX + 20)]
    log, store = MemoryLog(), MemoryStore()
    effects = {Counted: Effect(slow, patient=lambda event: True)}
    async with running(tally_service(effects=effects), log, store) as aggregates:
        for tally in tallies:
            await aggregates.execute(count(tally, "one"))

        async def full() -> bool:
            return len(at_work) == PATIENT_JOBS_MAX

        async def over() -> bool:
            return len(done) == len(tallies)

        await until(full)
        release.set()
        await until(over)
    assert most == [PATIENT_JOBS_MAX]
    assert set(done) == set(tallies)


async def test_work_that_was_not_finished_before_a_crash_is_taken_up_again_and_says_so():
    jobs: list[tuple[str, bool]] = []
    never = asyncio.Event()

    async def stuck(job: Job, world: Any) -> Sequence[Command]:
        await never.wait()
        return []

    async def noted(job: Job, world: Any) -> Sequence[Command]:
        event = job.heard.event
        assert isinstance(event, Counted)
        jobs.append((event.step_id, job.maybe_done))
        return []

    log, store = MemoryLog(), MemoryStore()
    async with running(tally_service(effects={Counted: Effect(stuck)}), log, store) as aggregates:
        await aggregates.execute(count("t", "one"))
    async with running(tally_service(effects={Counted: Effect(noted)}), log, store) as aggregates:
        await aggregates.execute(count("t", "two"))

        async def both() -> bool:
            return len(jobs) == 2

        await until(both)
    assert jobs == [("one", True), ("two", False)]


async def test_during_a_burst_patient_work_waits_and_streams_gather_but_neither_for_ever():
    courtesy, order = Courtesy(), list[str]()

    async def waiting(name: str, make_way: Callable[[], Awaitable[None]]) -> None:
        await make_way()
        order.append(name)

    with ExitStack() as burst:
        for _ in range(BURST_COMMANDS):
            burst.enter_context(courtesy.answering())
        late = [
            asyncio.create_task(waiting("patient", courtesy.make_way)),
            asyncio.create_task(waiting("gathered", courtesy.let_gather)),
        ]
        await asyncio.sleep(0)
        order.append("answered")
        async with asyncio.timeout(WAIT_MAX_S):  # a lasting load starves nobody
            await asyncio.wait(late)
    assert order == ["answered", "gathered", "patient"]


async def test_one_caller_after_another_is_no_burst():
    courtesy = Courtesy()
    for _ in range(3 * BURST_COMMANDS):
        with courtesy.answering():
            for way in (courtesy.make_way(), courtesy.let_gather()):
                with pytest.raises(StopIteration):  # returns without waiting for anything
                    way.send(None)
