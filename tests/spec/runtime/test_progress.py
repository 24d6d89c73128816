"""What readers are told of how far the rows are."""

from __future__ import annotations

import asyncio

from libs.eventlog.memory import MemoryLog
from libs.runtime.aggregates import Aggregates
from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from libs.runtime.memory_store import MemoryStore
from libs.runtime.projecting import Progress, Projector
from tests.spec.runtime.controls import CLOCK, IDS, count, tally_service

WAIT_MAX_S = 30.0


async def test_when_the_lease_is_lost_only_the_database_knows_how_far_the_rows_are() -> None:
    """A killed database forgets its last moments, rows and cursor together. Who believed what the projector had seen
    was told that his own failover did not exist."""
    log, store, progress, service = MemoryLog(), MemoryStore(), Progress(), tally_service()
    await Aggregates(service, log, CLOCK, IDS).execute(count("t1", "s1"))
    projector = Projector(OwnStream(service, log, Courtesy()), store, service.project, progress, CLOCK)
    task = asyncio.create_task(projector.run())
    assert await progress.wait_for(1, timeout_s=WAIT_MAX_S, store=store, clock=CLOCK)
    task.cancel()
    await asyncio.wait((task,))
    lost = MemoryStore()
    assert not await progress.wait_for(1, timeout_s=0.0, store=lost, clock=CLOCK)
    assert await progress.wait_for(1, timeout_s=WAIT_MAX_S, store=store, clock=CLOCK)
