"""Connections of one service to PostgreSQL: a pool without the reset round trip, and what its errors mean.

Called by `libs.postgres.*`, and by a service's `queries.py` and effects through `Database.fetch*`, `execute`,
`transaction`. Owns the session settings and the mapping of PostgreSQL's errors to `Transient`. Survives a killed and
restarted server: a dead connection fails its statement with `Transient`, the next use connects again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from libs.refusal import Transient

if TYPE_CHECKING:
    Connection: TypeAlias = PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]
    _Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]

# More only queue up in PostgreSQL on the machines we run on; 8 services x 8 < its default of 100.
POOL_CONNECTIONS_MAX = 8
CONNECT_TIMEOUT_S = 5.0
ACQUIRE_TIMEOUT_S = 10.0  # longer than this means that every connection is stuck: better to say so
STATEMENTS_IN_FLIGHT_MAX = 1000  # about 50 ms of reads; beyond it the service is better told so
STATEMENT_TIMEOUT_S = 10.0  # the slowest honest statement of a service is a 1000-row merge, about 0.1 s
COMMAND_TIMEOUT_S = STATEMENT_TIMEOUT_S + 2.0  # ours fires only when the server cannot (stopped, cut off)
IDLE_TRANSACTION_TIMEOUT_S = 30.0
LONG_STATEMENT_TIMEOUT_S = 3600.0  # COPY and index builds of a rebuild

SERVICE_NAME = re.compile(r"[a-z][a-z_]{0,40}")

# The server is away, restarting, full, or chose us as the victim of a deadlock or a timeout: all worth another try.
_UNWELL = (
    OSError,  # includes TimeoutError and refused connections
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InvalidCachedStatementError,  # a schema was switched under a statement inside a transaction
    asyncpg.OutdatedSchemaCacheError,
)
# asyncpg's words for a statement on a connection whose last error (state 2, ERROR_CONSUME) nobody asked for: a server
# process was killed, its sibling said goodbye, and the end of the connection itself has not been read yet.
DYING_CONNECTION = "another operation (2) is in progress"
# And for a statement that ends (or is cancelled) in the moment in which the pool takes back its dying connection.
RELEASED_TWICE = "called on a free connection holder"


@contextmanager
def postgres_errors() -> Generator[None]:
    """Turn "the database is unwell" into Transient; let everything else through as the bug that it is.

    Who is told to stop meanwhile stops: `wait_for` of Python 3.11 loses a cancel that meets the end of what it waits
    for, and asyncpg's pool covers one with an error of its own. A loop that went on would be waited for for ever.
    """
    task = _current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except Exception as error:
        if _is_unwell(error):
            _stop_if_told(task, before)
            raise Transient(f"postgres: {type(error).__name__}: {error}") from error
        raise
    _stop_if_told(task, before)


def _is_unwell(error: Exception) -> bool:
    if isinstance(error, _UNWELL):
        return True
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        # asyncpg has one class for "connection is closed" and for misuse; only the text tells them apart. The pool
        # takes a connection back as soon as it notices its end, also while a transaction does something else.
        return any(words in str(error) for words in ("clos", "released back"))
    if isinstance(error, asyncpg.InternalClientError):
        return any(words in str(error) for words in (DYING_CONNECTION, RELEASED_TWICE))
    return False


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None


def _stop_if_told(task: asyncio.Task[Any] | None, before: int) -> None:
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


class Database:
    """One service's pool. `queries.py` writes unqualified table names: `search_path` finds the active projection.

    jsonb columns come back as text: `msgspec.json.decode(row["facts"], type=...)` decodes straight into a struct.
    """

    def __init__(self, pool: _Pool, url: str, service: str) -> None:
        self._pool = pool
        self._url = url
        self._in_flight = 0
        self.service = service

    def __repr__(self) -> str:
        return f"Database({self.service})"  # never the URL: it holds a password

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        with self._admitted():
            return await self._pool.fetch(sql, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> asyncpg.Record | None:
        with self._admitted():
            return await self._pool.fetchrow(sql, *arguments)

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        with self._admitted():
            return await self._pool.fetchval(sql, *arguments)

    async def execute(self, sql: str, *arguments: Any) -> str:
        """Run one statement; returns its command tag, e.g. `UPDATE 1`."""
        with self._admitted():
            return await self._pool.execute(sql, *arguments)

    @contextmanager
    def _admitted(self) -> Generator[None]:
        """Bounds the queue for a connection by its length: a timeout on each wait cost a sixth of all reads."""
        if self._in_flight >= STATEMENTS_IN_FLIGHT_MAX:
            raise Transient(f"postgres: {self._in_flight} statements of {self.service} are already waiting")
        self._in_flight += 1
        try:
            with postgres_errors():
                yield
        finally:
            self._in_flight -= 1

    @asynccontextmanager
    async def transaction(self, begin: str = "begin") -> AsyncGenerator[Connection]:
        """A connection inside a transaction: committed at the end of the body, given up when it raises.

        `begin` may carry `set local` settings, so that they cost no round trip. A failed transaction's connection is
        thrown away: cheaper to reason about than a rollback on a connection in an unknown state, and failures are
        rare.
        """
        with postgres_errors():
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S) as connection:
                try:
                    await connection.execute(begin)
                    yield connection
                    await connection.execute("commit")
                except BaseException:
                    # The pool has already let go of a connection whose end it has noticed, and says so.
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                    raise

    async def connect(self, *, statement_timeout_s: float = STATEMENT_TIMEOUT_S) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of its own, for locks and long statements. The caller closes it."""
        with postgres_errors():
            return await asyncpg.connect(
                self._url,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=statement_timeout_s + 2.0,
                server_settings=_server_settings(self.service, statement_timeout_s),
            )

    async def close(self) -> None:
        """Close every connection; work in flight is cut off."""
        self._pool.terminate()


async def open_database(url: str, *, service: str, connections_max: int = POOL_CONNECTIONS_MAX) -> Database:
    """Connect once to see that it works, the rest on demand. Raises Transient while the server is away."""
    if not SERVICE_NAME.fullmatch(service):
        raise ValueError(f"not a service name: {service!r}")
    with postgres_errors():
        pool = await asyncpg.create_pool(
            url,
            min_size=0,  # with a floor, asyncpg would log on its own while the server is away
            max_size=connections_max,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=COMMAND_TIMEOUT_S,
            reset=_keep_session,
            server_settings=_server_settings(service, STATEMENT_TIMEOUT_S),
        )
    database = Database(pool, url, service)
    try:
        await database.fetchval("select 1")
    except BaseException:
        pool.terminate()
        raise
    return database


async def _keep_session(_connection: Any) -> None:
    """No reset statement when a connection returns to the pool: that round trip cost a third of all reads.

    Safe because nobody changes session state on the pool: settings are made with `set local` inside a transaction;
    advisory locks and LISTEN use connections of their own (`Database.connect`). asyncpg still rolls back an open
    transaction.
    """


def _server_settings(service: str, statement_timeout_s: float) -> dict[str, str]:
    return {
        "application_name": f"dumont-{service}",
        "search_path": f"{service}, {service}_live, public",
        "statement_timeout": str(int(statement_timeout_s * 1000)),
        "idle_in_transaction_session_timeout": str(int(IDLE_TRANSACTION_TIMEOUT_S * 1000)),
        "timezone": "UTC",
        "jit": "off",  # compiling costs more than any statement of ours runs
    }
