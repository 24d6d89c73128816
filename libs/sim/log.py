"""The event log as one simulated process sees it: slow, sometimes silent, never wrong.

Made by `libs.sim.world` for each life; all lives share one `MemoryLog`. Keeps the port's promises (order, expectation,
durability of what was acknowledged) and breaks everything that the port does not promise.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime

from libs.eventlog import AppendUnknown, Contended, Page, Stored, WrongExpectation
from libs.eventlog.memory import MemoryLog
from libs.refusal import Transient
from libs.sim.life import Life
from libs.sim.trace import Trace

LATE_S_MAX = 3.0  # how long a message may wander about after its sender has given up
# Much shorter than the server's two minutes, so that runs of a minute outlive it; longer than any message is late.
DEDUP_WINDOW_S = 6.0


class DedupWindow:
    """Which message ids the server still remembers; shared by all lives. `MemoryLog` would remember them for ever."""

    def __init__(self) -> None:
        self._first_s: dict[tuple[str, str], float] = {}
        self._round: dict[tuple[str, str], int] = {}

    def id_of(self, stream: str, message_id: str) -> str:
        """The id under which to store: the same within the window, another one once it has been forgotten."""
        key, now_s = (stream, message_id), asyncio.get_running_loop().time()
        if key not in self._first_s:
            self._first_s[key] = now_s
        elif now_s - self._first_s[key] > DEDUP_WINDOW_S:
            self._first_s[key] = now_s
            self._round[key] = self._round.get(key, 0) + 1
        repeat = self._round.get(key, 0)
        return f"{message_id}~{repeat}" if repeat else message_id


class SimLog:
    """The `EventLog` port."""

    def __init__(self, inner: MemoryLog, window: DedupWindow, life: Life, trace: Trace) -> None:
        self._inner = inner
        self._window = window
        self._life = life
        self._draws = life.draws
        self._trace = trace

    async def append(self, stream: str, subject: str, data: bytes, *, expected_seq: int) -> int:
        await self._life.step()
        if self._draws.happens(self._draws.faults.append_contended):
            raise Contended(subject)

        async def write() -> int:
            seq = await self._inner.append(stream, subject, data, expected_seq=expected_seq)
            self._trace.note("append", self._life.name, stream, seq, subject, data)
            return seq

        return await self._written(write, subject)

    async def publish(
        self, stream: str, subject: str, data: bytes, *, message_id: str, headers: Mapping[str, str]
    ) -> int:
        await self._life.step()

        async def write() -> int:
            known_as = self._window.id_of(stream, message_id)
            seq = await self._inner.publish(stream, subject, data, message_id=known_as, headers=headers)
            self._trace.note("publish", self._life.name, stream, seq, subject, data)
            return seq

        return await self._written(write, subject)

    async def _written(self, write: Callable[[], Awaitable[int]], subject: str) -> int:
        faults, draws = self._draws.faults, self._draws
        if draws.happens(faults.append_lost):
            await self._life.pause(faults.unknown_after_s)
            raise AppendUnknown(f"lost: {subject}")
        if draws.happens(faults.append_late):
            late_s = draws.up_to(LATE_S_MAX)
            asyncio.get_running_loop().call_later(late_s, _write_unasked, write)
            await self._life.pause(faults.unknown_after_s)
            raise AppendUnknown(f"late: {subject}")
        seq = await write()
        if draws.happens(faults.append_ack_lost):
            await self._life.pause(faults.unknown_after_s)
            raise AppendUnknown(f"acknowledgement lost: {subject}")
        await self._life.step()
        return seq

    async def read(self, stream: str, subject: str, *, after_seq: int = 0) -> Sequence[Stored]:
        await self._maybe_fail("read")
        found = await self._inner.read(stream, subject, after_seq=after_seq)
        await self._life.step()
        return found

    async def page(
        self, stream: str, subjects: str, *, after_seq: int, limit: int, since: datetime | None = None
    ) -> Page:
        await self._maybe_fail("page")
        found = await self._inner.page(stream, subjects, after_seq=after_seq, limit=limit, since=since)
        await self._life.step()
        return found

    async def newest(self, stream: str, subject: str) -> Stored | None:
        await self._maybe_fail("newest")
        found = await self._inner.newest(stream, subject)
        await self._life.step()
        return found

    async def follow(
        self, stream: str, *, after_seq: int, subjects: Sequence[str] = ()
    ) -> AsyncIterator[Sequence[Stored]]:
        async for batch in self._inner.follow(stream, after_seq=after_seq, subjects=subjects):
            await self._life.step()
            if len(batch) > 1 and self._draws.happens(self._draws.faults.batch_split):
                middle = 1 + int(self._draws.up_to(len(batch) - 1))
                yield batch[:middle]
                await self._life.step()
                yield batch[middle:]
            else:
                yield batch

    async def last_seq(self, stream: str) -> int:
        await self._maybe_fail("last_seq")
        return await self._inner.last_seq(stream)

    async def _maybe_fail(self, what: str) -> None:
        await self._life.step()
        if self._draws.happens(self._draws.faults.read_fails):
            raise Transient(f"{what}: the log did not answer")


def _write_unasked(write: Callable[[], Awaitable[int]]) -> None:
    """A message arrives after its sender has given up; if it no longer fits, the log drops it."""

    async def arrive() -> None:
        try:
            await write()
        except WrongExpectation:
            return

    task = asyncio.get_running_loop().create_task(arrive())
    _arriving.add(task)
    task.add_done_callback(_arriving.discard)


_arriving: set[asyncio.Task[None]] = set()
