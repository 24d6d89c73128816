"""The store as one simulated process sees it: calls fail before or after they took effect, leases get lost.

Made by `libs.sim.world` for each life; all lives of a service share one `MemoryStore`, as they would a database.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TypeVar

from libs.refusal import Transient
from libs.runtime.service import Row
from libs.runtime.store import Deadline, Store
from libs.sim.life import Life

T = TypeVar("T")


class SimStore:
    """The `Store` port."""

    def __init__(self, inner: Store, life: Life) -> None:
        self._inner = inner
        self._life = life
        self._draws = life.draws

    async def project(self, rows: Sequence[Row], *, after_seq: int, seq: int) -> None:
        await self._call(lambda: self._inner.project(rows, after_seq=after_seq, seq=seq))

    async def cursor(self, name: str) -> tuple[int, int]:
        return await self._call(lambda: self._inner.cursor(name))

    async def save_cursor(self, name: str, seq: int, companion: int = 0) -> None:
        await self._call(lambda: self._inner.save_cursor(name, seq, companion))

    async def due(self, now: datetime, *, limit: int) -> Sequence[Deadline]:
        return await self._call(lambda: self._inner.due(now, limit=limit))

    async def next_due(self) -> datetime | None:
        return await self._call(self._inner.next_due)

    def lease(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._lease(name)

    @contextlib.asynccontextmanager
    async def _lease(self, name: str) -> AsyncGenerator[None, None]:
        await self._life.step()
        async with self._inner.lease(name):
            self._life.must_live()
            async with self._until_lost():
                yield

    @contextlib.asynccontextmanager
    async def _until_lost(self) -> AsyncGenerator[None, None]:
        """Now and then the connection that holds the lease breaks: the body is cancelled and Transient raised."""
        faults = self._draws.faults
        if not self._draws.happens(faults.lease_lost):
            yield
            return
        limit = asyncio.timeout(self._draws.up_to(faults.lease_lost_after_s_max))
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise Transient("the lease was lost with its connection") from error

    async def _call(self, act: Callable[[], Awaitable[T]]) -> T:
        await self._life.step()
        if self._draws.happens(self._draws.faults.store_fails):
            raise Transient("the database did not answer")
        answer = await act()
        if self._draws.happens(self._draws.faults.store_ack_lost):
            raise Transient("the connection broke before the answer")
        return answer
