"""How a wish becomes a fact: the retry rules of the log, on a log that misbehaves on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from libs.eventlog import AppendUnknown, Contended
from libs.eventlog.memory import MemoryLog
from libs.refusal import Refused
from libs.runtime import aggregates as remembering
from libs.runtime.aggregates import Aggregates, TooContended
from proto.base import Event
from tests.spec.runtime.controls import CLOCK, IDS, LIMIT, TALLY, Count, Tally, count, decide, steps_in, tally_service


class Misbehaving(MemoryLog):
    """A memory log whose next appends go wrong as listed: "lost_ack", "not_stored", "contended" or "fine"."""

    def __init__(self, *faults: str) -> None:
        super().__init__()
        self.faults = deque(faults)
        self.appends = 0

    async def append(self, stream: str, subject: str, data: bytes, *, expected_seq: int) -> int:
        self.appends += 1
        fault = self.faults.popleft() if self.faults else "fine"
        if fault == "not_stored":
            raise AppendUnknown(subject)
        if fault == "contended":
            raise Contended(subject)
        seq = await super().append(stream, subject, data, expected_seq=expected_seq)
        if fault == "lost_ack":
            raise AppendUnknown(subject)
        return seq


def over(log: MemoryLog) -> Aggregates:
    return Aggregates(tally_service(), log, CLOCK, IDS)


async def test_a_lost_acknowledgement_is_found_in_the_log_and_not_written_twice():
    log = Misbehaving("lost_ack")
    position = await over(log).execute(count("t", "one"))
    assert (position.seq, log.appends, await steps_in(log, "t")) == (1, 1, ["one"])


async def test_an_append_that_never_arrived_is_made_again():
    log = Misbehaving("not_stored")
    assert (await over(log).execute(count("t", "one"))).seq == 1
    assert await steps_in(log, "t") == ["one"]


async def test_a_write_in_flight_elsewhere_is_waited_for():
    log = Misbehaving("contended", "contended")
    await over(log).execute(count("t", "one"))
    assert await steps_in(log, "t") == ["one"]


async def test_somebody_who_always_writes_first_is_given_up_on_after_five_tries():
    log = Misbehaving(*["contended"] * 9)
    with pytest.raises(TooContended):
        await over(log).execute(count("t", "one"))
    assert log.appends == 5


async def test_two_replicas_decide_on_what_the_other_has_written():
    log = MemoryLog()
    here, there = over(log), over(log)
    await here.execute(count("t", "one"))
    await there.execute(count("t", "two"))
    await here.execute(count("t", "three"))
    assert await steps_in(log, "t") == ["one", "two", "three"]


async def test_a_repeat_that_another_replica_has_done_is_not_done_again():
    log = MemoryLog()
    here, there = over(log), over(log)
    await here.execute(count("t", "one"))
    position = await there.execute(count("t", "two"))
    assert await here.execute(count("t", "two")) == position
    assert await steps_in(log, "t") == ["one", "two"]


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_no_from_an_old_memory_is_checked_against_the_log(is_refused: bool):
    """Neither a refusal nor "nothing to do" is guarded by an append: what another replica wrote meanwhile decides."""

    def once_it_has_begun(state: Tally, command: Count) -> Sequence[Event]:
        if state.total:
            return decide(state, command)
        if is_refused:
            raise Refused("NOT_BEGUN")
        return []

    log = MemoryLog()
    rule = replace(TALLY, decide=once_it_has_begun)
    waiting = Aggregates(tally_service(aggregates=[rule]), log, CLOCK, IDS)

    async def ask() -> None:
        with suppress(Refused):
            await waiting.execute(count("t", "second"))

    await ask()
    assert await steps_in(log, "t") == []
    await over(log).execute(count("t", "first"))
    await ask()
    assert await steps_in(log, "t") == ["first", "second"]


async def test_no_more_aggregates_are_remembered_than_the_limit_whether_written_or_only_looked_at(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(remembering, "CACHE_ENTRIES_MAX", 3)
    log = MemoryLog()
    tallies = over(log)
    for number in range(5):
        await tallies.execute(count(f"written{number}", "one"))
    for number in range(5):
        await tallies.state("tally", f"looked_at{number}")
    assert len(tallies._cache) == 3
    assert (await tallies.state("tally", "written0")).total == 1


async def test_commands_side_by_side_on_one_aggregate_all_take_effect_once():
    log = Misbehaving(*["lost_ack", "fine", "not_stored", "contended"] * 10)
    here, there = over(log), over(log)
    wishes: list[Any] = [replica.execute(count("t", str(step))) for step in range(20) for replica in (here, there)]
    outcomes = await asyncio.gather(*wishes, return_exceptions=True)
    assert [o for o in outcomes if isinstance(o, BaseException) and not isinstance(o, TooContended)] == []
    steps = await steps_in(log, "t")
    assert sorted(steps, key=int) == [str(step) for step in range(20)]


async def test_wishes_for_one_aggregate_decided_together_share_a_commit_and_refusals_harm_no_other():
    log = Misbehaving("lost_ack")
    aggregates = over(log)
    wishes = [count("t", str(step)) for step in [*range(99), 0]]
    assert await aggregates.execute_together(wishes) == []
    assert await log.last_seq("EVT_TALLY") == 1
    assert await steps_in(log, "t") == [str(step) for step in range(99)]


async def test_what_is_refused_among_wishes_decided_together_is_said():
    log = MemoryLog()
    aggregates = over(log)
    for step in range(LIMIT - 1):
        await aggregates.execute(count("t", str(step)))
    last, refused = count("t", "last"), count("t", "one too many")
    assert [(c, r.code) for c, r in await aggregates.execute_together([last, refused])] == [(refused, "TALLY_FULL")]
    assert len(await steps_in(log, "t")) == LIMIT
