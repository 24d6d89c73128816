"""Answering questions: who has written something never reads that it is not there."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from libs.clock import SystemClock
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.refusal import Refused
from libs.rpc_memory import MemoryBus
from libs.runtime.aggregates import Aggregates
from libs.runtime.courtesy import Courtesy
from libs.runtime.instruments import Instruments
from libs.runtime.memory_store import MemoryStore
from libs.runtime.projecting import Progress
from libs.runtime.serving import QueryContext, RowsBehind, Serving
from libs.runtime.surroundings import Surroundings
from libs.telemetry import Metrics, logger
from proto.base import Meta, Position, Query, Request, Signal
from tests.spec.runtime.controls import tally_service

SEEN = Position("EVT_TALLY", 7)


class GetTally(Query, tag="tally", frozen=True, kw_only=True):
    service: ClassVar[str] = "tally"
    reply: ClassVar[Any] = int
    tally_id: str


async def find_nothing(_question: GetTally, _context: QueryContext) -> int:
    raise Refused("INSTANCE_NOT_FOUND")


class Ring(Signal, tag="ring", frozen=True, kw_only=True):
    service: ClassVar[str] = "tally"
    reply: ClassVar[Any] = int
    times: int


async def ring(rang: Ring, _context: QueryContext) -> int:
    return rang.times


def serving(progress: Progress, log: MemoryLog | None = None, store: MemoryStore | None = None) -> Serving:
    service = tally_service(queries={GetTally: find_nothing}, signals={Ring: ring})
    clock, ids, log, metrics = SystemClock(), SystemIds(), log or MemoryLog(), Metrics()
    bus = MemoryBus(on_bug=lambda _: None)
    around = Surroundings(log, store or MemoryStore(), bus, clock, ids, logger("tally"), metrics)
    return Serving(
        service,
        around,
        Aggregates(service, log, clock, ids),
        progress,
        health=lambda: pytest.fail("nobody asks how it is"),
        seconds=Instruments(metrics, progress).requests,
        courtesy=Courtesy(),
    )


def question(seen: Position | None = None, *, must_be_current: bool = False) -> Request:
    meta = Meta(request_id="req_1", deadline=0.0, min_position=seen, must_be_current=must_be_current)
    return Request(meta=meta, body=msgspec.Raw(msgspec.json.encode(GetTally(tally_id="t"))))


async def test_signals_and_questions_are_answered_by_whom_they_name_and_others_are_not_found() -> None:
    rang = Request(meta=Meta(request_id="req_1", deadline=0.0), body=msgspec.Raw(b'{"type":"ring","times":3}'))
    assert (await serving(Progress()).answer("sig.tally.ring", rang)).body == msgspec.Raw(b"3")
    for subject in ("sig.tally.tally", "qry.tally.ring"):
        with pytest.raises(Refused, match="NOT_FOUND"):
            await serving(Progress()).answer(subject, rang)


async def test_what_is_missing_from_rows_that_are_up_to_date_is_not_found() -> None:
    progress = Progress()
    progress.advance(SEEN.seq)
    for seen in (SEEN, None):
        with pytest.raises(Refused, match="INSTANCE_NOT_FOUND"):
            await serving(progress).answer("qry.tally.tally", question(seen))


async def test_what_is_missing_from_rows_that_are_behind_may_be_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.runtime.serving.READ_YOUR_WRITES_MAX_S", 0.01)
    with pytest.raises(RowsBehind):
        await serving(Progress()).answer("qry.tally.tally", question(SEEN))


async def test_an_answer_that_must_be_current_is_not_given_from_rows_that_lost_their_last_moments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A killed database comes back with fewer rows than this process has seen in it."""
    monkeypatch.setattr("libs.runtime.serving.READ_YOUR_WRITES_MAX_S", 0.01)
    log, store, progress = MemoryLog(), MemoryStore(), Progress()
    for number in range(2):
        await log.append(SEEN.stream, f"evt.tally.tally.t{number}", b"{}", expected_seq=0)
    progress.advance(2)
    await store.project([], after_seq=0, seq=1)
    with pytest.raises(RowsBehind):
        await serving(progress, log, store).answer("qry.tally.tally", question(must_be_current=True))
    await store.project([], after_seq=1, seq=2)
    with pytest.raises(Refused, match="INSTANCE_NOT_FOUND"):
        await serving(progress, log, store).answer("qry.tally.tally", question(must_be_current=True))
