"""One holder at a time: a session advisory lock on a connection of its own.

Called by `libs.postgres.store`. The lock lives as long as its connection, so a killed process gives it back at once,
and a lost connection ends the body: whoever holds the lock next must not meet us at work.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

from libs.postgres.pool import Database, postgres_errors
from libs.refusal import Transient

if TYPE_CHECKING:
    import asyncpg

TRY_LOCK_SQL = "select pg_try_advisory_lock(hashtextextended($1, 0))"  # $1: name of the lease
RETRY_S = 0.25  # how long a free lease may go unnoticed
PING_S = 2.0  # how long a connection that died without a word goes unnoticed, plus the ping's own timeout
PING_TIMEOUT_S = 3.0


class Lease:
    """`async with Lease(database, key):` waits for the lock, holds it, and cancels its body when the connection is
    lost."""

    def __init__(self, database: Database, key: str) -> None:
        self._database = database
        self._key = key
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._holder: asyncio.Task[Any] | None = None
        self._cancels_before = 0
        self._lost = False

    async def __aenter__(self) -> None:
        connection = self._connection = await self._database.connect()
        try:
            with postgres_errors():
                while not await connection.fetchval(TRY_LOCK_SQL, self._key):  # noqa: ASYNC110 - held elsewhere
                    await asyncio.sleep(RETRY_S)
        except BaseException:
            connection.terminate()
            raise
        self._holder = asyncio.current_task()
        # Not 0 for ever: a TaskGroup of Python 3.11 whose member fails while it waits leaves its own cancel counted.
        self._cancels_before = self._holder.cancelling() if self._holder is not None else 0
        self._watch = asyncio.create_task(self._ping(connection))
        connection.add_termination_listener(self._on_lost)
        if connection.is_closed():
            self._on_lost()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        assert self._watch is not None
        self._connection.remove_termination_listener(self._on_lost)
        self._watch.cancel()
        self._connection.terminate()  # closing the session is the unlock
        await asyncio.gather(self._watch, return_exceptions=True)
        # As in asyncio.timeout: our own cancel becomes our own error, a cancel from outside goes on.
        if not self._lost or self._holder is None:
            return
        if self._holder.uncancel() <= self._cancels_before and kind is asyncio.CancelledError:
            raise Transient(f"postgres: connection lost while holding the lease {self._key}") from error

    def _on_lost(self, *_: object) -> None:
        if not self._lost and self._holder is not None:
            self._lost = True
            self._holder.cancel()

    async def _ping(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        try:
            while True:
                await asyncio.sleep(PING_S)
                await connection.execute("select 1", timeout=PING_TIMEOUT_S)
        except Exception:  # whatever it is, we can no longer show that the lease is ours
            self._on_lost()
