"""Projection: own events become rows, exactly once, and readers can wait for them.

Run by the replica that holds the service's lease. Owns the cursor `project`, which moves in the same transaction as the
rows, so no acknowledgement is needed and a replay is harmless (design 4).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from libs.clock import Clock
from libs.refusal import Transient
from libs.runtime.listening import OwnStream
from libs.runtime.recent import Recent
from libs.runtime.service import DEADLINES_TABLE, Row
from libs.runtime.store import PROJECT_CURSOR, Overtaken, Store
from proto.base import Heard

ROWS_PER_TRANSACTION_MAX = 5_000  # one transaction stays under about 0.2 s, so readers waiting for it do too
RETRY_PAUSE_S = 0.2
# A batch of so many commits says that they come faster than they are projected one by one. Rows of forty commits cost
# little more than rows of four, so they are let gather: a reader waits so much longer, and everybody has the CPU.
BUSY_COMMITS = 4
BUSY_PAUSE_S = 0.02
ANY_TIME = datetime.max.replace(tzinfo=UTC)
REPLICA_POLL_S = 0.005  # how often a replica that does not project looks at the checkpoint while a reader waits


class Progress:
    """How far this process knows the projection to be; wakes those who wait for a position."""

    def __init__(self, recent: Recent | None = None) -> None:
        self.seq = 0
        self.head_seq = 0  # newest sequence seen in the log, for the lag
        self.active = False  # this process is the one that projects
        self.recent = recent or Recent()
        self.looked_at_next = ANY_TIME  # when deadlines are looked at again without being told
        self.sooner_deadline = asyncio.Event()
        self._moved = asyncio.Event()

    def advance(self, seq: int) -> None:
        self.seq = max(self.seq, seq)
        self.head_seq = max(self.head_seq, seq)
        self._moved.set()
        self._moved = asyncio.Event()

    def forget(self) -> None:
        """The database may be lost, and with it the rows of its last moments (they are replayed): only it knows now."""
        self.seq = 0

    def deadline_set(self, rows: Iterable[Row]) -> None:
        """Whoever keeps time must know of one that falls due before it looks again; of others it need not."""
        for row in rows:
            if row.table != DEADLINES_TABLE:
                continue
            due_at = None if row.columns is None else row.columns["due_at"]
            if (due_at or ANY_TIME) < self.looked_at_next or self.looked_at_next == ANY_TIME:
                self.sooner_deadline.set()
                return

    async def wait_for(self, seq: int, *, timeout_s: float, store: Store, clock: Clock) -> bool:
        """True once everything up to `seq` is in the rows; False when `timeout_s` have passed first."""
        give_up = clock.monotonic_s() + timeout_s
        while self.seq < seq:
            remaining_s = give_up - clock.monotonic_s()
            if remaining_s <= 0:
                return False
            if self.active:
                moved = self._moved
                try:
                    async with asyncio.timeout(remaining_s):
                        await moved.wait()
                except TimeoutError:
                    return False
            else:
                self.advance((await store.cursor(PROJECT_CURSOR))[0])
                await clock.sleep(REPLICA_POLL_S)
        return True


class Projector:
    """Follows the own stream and keeps the rows in step, for ever."""

    def __init__(
        self,
        own: OwnStream,
        store: Store,
        project: Callable[[Heard], Iterable[Row]],
        progress: Progress,
        clock: Clock,
    ) -> None:
        self._own = own
        self._store = store
        self._project = project
        self._progress = progress
        self._clock = clock

    async def run(self) -> None:
        self._progress.active = True
        try:
            while True:
                try:
                    await self._follow()
                except (Transient, Overtaken):
                    self._progress.forget()
                    await self._clock.sleep(RETRY_PAUSE_S)
        finally:
            self._progress.active = False
            self._progress.forget()

    async def _follow(self) -> None:
        cursor, _ = await self._store.cursor(PROJECT_CURSOR)
        self._progress.advance(cursor)
        with self._progress.recent.following():
            async for batch in self._own.follow(cursor):
                self._progress.head_seq = max(self._progress.head_seq, batch[-1][0])
                rows: list[Row] = []
                changed: set[str] = set()
                for index, (seq, events) in enumerate(batch):
                    for heard in events:
                        rows.extend(self._project(heard))
                        changed.add(heard.aggregate_id)
                    if len(rows) >= ROWS_PER_TRANSACTION_MAX or index == len(batch) - 1:
                        await self._store.project(rows, after_seq=cursor, seq=seq)
                        self._progress.recent.forget(changed | {row.table for row in rows})
                        cursor = seq
                        self._progress.advance(seq)
                        self._progress.deadline_set(rows)
                        rows, changed = [], set()
                if len(batch) >= BUSY_COMMITS:
                    await self._clock.sleep(BUSY_PAUSE_S)
