"""The end of a service's own stream, read and decoded once for all who follow it.

Used by `listening`. Owns the one reader and the decoded commits that some follower has not had yet. Rows, relay and
hands each keep their own cursor and nearly always stand at the same place, the end: three consumers would have every
commit delivered, parsed and decoded three times. Who is further behind than what is kept here reads alone until he has
come near.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import NamedTuple

from proto.base import Heard

# Always kept, so that who comes from reading alone finds the place where he left off.
KEPT_COMMITS_MIN = 256
# About 2 KB each, decoded. Who is further behind (a database that is away, thousands of jobs at work) reads alone.
KEPT_COMMITS_MAX = 10_000
BATCH_MAX = 500  # commits handed out at once


class Decoded(NamedTuple):
    """One commit's events."""

    seq: int
    kind: str  # of its aggregate
    events: list[Heard]


class Tail:
    """Commits in their order. One task `read`s; any number `follow`."""

    def __init__(self) -> None:
        self._commits: list[Decoded] = []
        self._dropped = 0  # how many were ever let go: a follower's place counts from the first
        self._begins_after = 0  # sequence before the first that is kept
        self._is_read = False
        self._places: dict[object, int] = {}
        self._moved = asyncio.Event()

    @property
    def kept(self) -> int:
        """Commits that are held in memory."""
        return len(self._commits)

    def has_what_follows(self, seq: int) -> bool:
        """Whether `follow(seq)` may be called."""
        return self._is_read and seq >= self._begins_after

    async def read(self, batches: AsyncIterator[Sequence[Decoded]], after_seq: int) -> None:
        """Take in what comes after `after_seq`, for as long as `batches` goes on. Followers end when this does."""
        self._dropped += len(self._commits)
        self._commits.clear()
        self._begins_after, self._is_read = after_seq, True
        try:
            async for batch in batches:
                self._commits += batch
                self._let_go()
                self._wake()
        finally:
            self._is_read = False
            self._wake()

    async def follow(self, after_seq: int) -> AsyncGenerator[Sequence[Decoded], None]:
        """Everything after `after_seq`. Ends when nobody reads any more, or when the follower has fallen behind."""
        me = object()
        place = self._dropped + bisect_right(self._commits, after_seq, key=lambda commit: commit.seq)
        try:
            while self._is_read and place >= self._dropped:
                start = place - self._dropped
                batch = self._commits[start : start + BATCH_MAX]
                place += len(batch)
                self._places[me] = place
                if batch:
                    yield batch
                else:
                    await self._moved.wait()
        finally:
            self._places.pop(me, None)

    def _let_go(self) -> None:
        """What everybody has had, but for the newest; at the limit also what somebody has not."""
        has_had = min(self._places.values(), default=self._dropped + len(self._commits)) - self._dropped
        spare = max(min(has_had, len(self._commits) - KEPT_COMMITS_MIN), len(self._commits) - KEPT_COMMITS_MAX)
        if spare >= KEPT_COMMITS_MIN:
            self._begins_after = self._commits[spare - 1].seq
            del self._commits[:spare]
            self._dropped += spare

    def _wake(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
