"""Deadlines: due instants in the `deadlines` table become commands (design 2: time is data).

Run by the replica that holds the service's lease. A deadline is only a hint: the decider looks at its own state and the
command's `now`, so an early, late or repeated one is harmless. The row goes away when the projection hears what came of
it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import msgspec

from libs.refusal import Refused, Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.projecting import ANY_TIME, Progress
from libs.runtime.service import Service
from libs.runtime.store import Deadline
from libs.runtime.surroundings import Surroundings
from proto.base import Command

PAGE_MAX = 1_000
POLL_MAX_S = 1.0  # the table is looked at this often even if nobody says that it changed
SIDE_BY_SIDE_MAX = 64  # as many appends as share one flush of the log with profit (docs/performance.md)
REISSUE_S = 60.0  # a deadline whose row is still there after this long is issued again
RETRY_PAUSE_S = 0.2


class Deadlines:
    def __init__(self, service: Service, around: Surroundings, aggregates: Aggregates, progress: Progress) -> None:
        self._decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._service = service
        self._world = around.world
        self._aggregates = aggregates
        self._store = around.store
        self._progress = progress
        self._clock = around.clock
        self._logger = around.logger
        self._issued: dict[tuple[str, str], tuple[datetime, datetime]] = {}

    async def run(self) -> None:
        while True:
            self._progress.looked_at_next = ANY_TIME  # what is set while we look, we may have missed
            self._progress.sooner_deadline.clear()
            is_all = False
            try:
                is_all = await self._issue_due()
                pause_s = await self._pause_s()
            except Transient:
                pause_s = RETRY_PAUSE_S
            if is_all:
                self._progress.looked_at_next = self._clock.now() + timedelta(seconds=pause_s)
            try:
                async with asyncio.timeout(pause_s):
                    await self._progress.sooner_deadline.wait()
            except TimeoutError:
                pass

    async def _issue_due(self) -> bool:
        """Whether that was all; else the next page shows when the rows of this one have changed."""
        now = self._clock.now()
        due = await self._store.due(now, limit=PAGE_MAX)
        wanted = {(deadline.aggregate_id, deadline.name) for deadline in due}
        self._issued = {key: memo for key, memo in self._issued.items() if key in wanted}
        room, unwell = asyncio.Semaphore(SIDE_BY_SIDE_MAX), list[Transient]()
        async with asyncio.TaskGroup() as group:
            for deadline in due:
                memo = self._issued.get((deadline.aggregate_id, deadline.name))
                if memo and memo[0] == deadline.due_at and now - memo[1] < timedelta(seconds=REISSUE_S):
                    continue
                await room.acquire()
                group.create_task(self._issue_one(deadline, now, room, unwell))
        if unwell:
            raise unwell[0]
        return len(due) < PAGE_MAX

    async def _issue_one(
        self, deadline: Deadline, now: datetime, room: asyncio.Semaphore, unwell: list[Transient]
    ) -> None:
        """Never fails for an unwell world: a group whose member fails forgets that it was told to stop."""
        try:
            await self._issue(deadline, now)
            self._issued[deadline.aggregate_id, deadline.name] = (deadline.due_at, now)
        except Transient as cause:
            unwell.append(cause)
        finally:
            room.release()

    async def _issue(self, deadline: Deadline, now: datetime) -> None:
        fields = self._decoder.decode(deadline.command)
        fields["now"] = msgspec.Raw(msgspec.json.encode(now))
        command: Command = msgspec.json.decode(msgspec.json.encode(fields), type=self._service.commands)
        try:
            filled = await self._service.filled(command, self._world)
            if filled is not None:
                await self._aggregates.execute(filled, cause=f"deadline.{deadline.name}")
        except Refused as refused:
            self._logger.info("deadline.refused", name=deadline.name, id=deadline.aggregate_id, code=refused.code)

    async def _pause_s(self) -> float:
        next_due = await self._store.next_due()
        if next_due is None:
            return POLL_MAX_S
        ahead_s = (next_due - self._clock.now()).total_seconds()
        return min(max(ahead_s, RETRY_PAUSE_S), POLL_MAX_S)
