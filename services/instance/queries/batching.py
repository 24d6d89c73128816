"""Ask once for many: callers that wait at the same time share one statement.

Used by `instances` (GET of one instance). Natural batching: while one statement runs, the next batch gathers; nobody
waits for a timer. Owns no task: the first caller of a batch asks for all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

BATCH_MAX = 500  # keys in one statement; more would make everybody wait for the slowest page
BATCHES_AT_ONCE_MAX = 2  # while two run, a third gathers: more would only split the same work

T = TypeVar("T")
Fetch = Callable[[Sequence[str]], Awaitable[Mapping[str, T]]]


class Batches(Generic[T]):
    """Coalesces lookups by key."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[T | None]] = {}
        self._turns = asyncio.Semaphore(BATCHES_AT_ONCE_MAX)
        self._has_asker = False

    async def get(self, key: str, fetch: Fetch[T]) -> T | None:
        """The value of `key`, None when there is none. Never an answer that was read before this call."""
        while True:
            future = self._waiting.get(key)
            if future is None:
                future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if not self._has_asker:
                await self._ask_for_all(fetch)
            await asyncio.wait((future,))
            if not future.cancelled():
                return future.result()

    async def _ask_for_all(self, fetch: Fetch[T]) -> None:
        """Wait for a turn, then take what has gathered meanwhile and answer all of it."""
        self._has_asker = True
        try:
            async with self._turns:
                self._has_asker = False
                keys = list(self._waiting)[:BATCH_MAX]
                await self._ask({key: self._waiting.pop(key) for key in keys}, fetch)
        except BaseException:
            self._let_go()
            raise

    async def _ask(self, batch: Mapping[str, asyncio.Future[T | None]], fetch: Fetch[T]) -> None:
        try:
            found = await fetch(list(batch))
        except BaseException as error:
            for future in batch.values():
                _fail(future, error)
            raise
        for key, future in batch.items():
            if not future.done():
                future.set_result(found.get(key))

    def _let_go(self) -> None:
        """The asker was cancelled before its turn: everybody who waits asks again."""
        if self._has_asker:
            self._has_asker = False
            for future in self._waiting.values():
                future.cancel()
            self._waiting.clear()


def _fail(future: asyncio.Future[T | None], error: BaseException) -> None:
    """Whoever asked for us was cancelled: the others did not fail, they ask again."""
    if future.done():
        return
    if isinstance(error, Exception):
        future.set_exception(error)
        future.exception()  # a waiter may have gone; then nobody else would look at it
    else:
        future.cancel()
