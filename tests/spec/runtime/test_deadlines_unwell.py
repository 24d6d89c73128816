"""Deadlines that meet an unwell world."""

from __future__ import annotations

import asyncio

from libs.eventlog.memory import MemoryLog
from libs.refusal import Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.deadlines import Deadlines
from libs.runtime.memory_store import MemoryStore
from libs.runtime.projecting import Progress
from libs.runtime.service import deadline
from libs.runtime.surroundings import Surroundings
from libs.telemetry import Metrics, logger
from proto.base import Command
from tests.spec.runtime.controls import CLOCK, IDS, NOW, Count, tally_service
from tests.spec.runtime.test_running import WAIT_MAX_S, Silent


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
