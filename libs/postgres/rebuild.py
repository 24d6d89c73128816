"""Blue/green rebuild: fold the whole log in memory, COPY it into a new version beside the one that is read, then
switch.

Called by the CLI's `rebuild` and by composition roots when the fingerprint has changed. Owns `<service>_v<k>` schemas.

Steps, each of which may be killed: the active version is only touched by the switch, one transaction; whatever an
interrupted rebuild leaves behind (`building` rows, `_v<k>` schemas) is removed by the next one.
1. create the next version's tables, take its indexes and constraints off (as PostgreSQL's catalogue describes them);
2. fold batches up to `target_seq` in memory; COPY; put indexes and constraints back;
3. follow on in batches; freeze the active checkpoint (reads go on), pass it, rename both schemas, thaw.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import asyncpg

from libs.postgres.folding import TableFold, fold_rows
from libs.postgres.pool import LONG_STATEMENT_TIMEOUT_S, Database, postgres_errors
from libs.postgres.schema import Definition, create_tables
from libs.postgres.writing import BY_PRIMARY_KEY, RowWriter, misfits_rejected, quoted, row_arrays
from libs.refusal import Transient
from libs.runtime.service import Row

if TYPE_CHECKING:
    _Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]

FOLD_ROWS_MAX = 500_000  # folded rows held in memory, about 1 KB each; beyond it the rest goes in as ordinary batches
COPY_CHUNK_ROWS = 2_000  # rows turned into records at a time, about 5 ms during which the event loop waits
BATCH_WAIT_S = 60.0  # the log has what we ask for, so a longer silence means that it is unwell
FREEZE_S_MAX = 5.0  # how long the live projector may be kept waiting by the switch; below its statement timeout
SWITCH_TRIES_MAX = 5
DROP_LOCK_TIMEOUT_MS = 5_000  # readers of the retired version are done by then; else the next rebuild drops it

# Rows in order, taken once, and the sequence they reach up to.
Batch: TypeAlias = tuple[Iterable[Row], int]


class RebuildRunning(Transient):
    """Another process is rebuilding this service's projection."""


@dataclass(frozen=True)
class RebuildProgress:
    """How far a rebuild is: `seq` of `target_seq`, and the rows folded or written so far."""

    phase: Literal["fold", "copy", "index", "catch_up", "switched"]
    seq: int
    target_seq: int
    rows: int


@dataclass(frozen=True)
class Rebuilt:
    version: int
    seq: int
    rows: int


async def rebuild(
    database: Database,
    definition: Definition,
    batches: AsyncIterator[Batch],
    *,
    target_seq: int,
    on_progress: Callable[[RebuildProgress], None],
) -> Rebuilt:
    """Build the next version from `batches` (from the start of the log, in order, for ever) and make it the active one.

    `target_seq` is the log's end when the rebuild starts. Raises RebuildRunning, Transient, RowRejected; the active
    version is untouched then. `ensure_schema` must have run.
    """
    async with _only_rebuild(database) as connection:
        with postgres_errors():
            build = await _begin(connection, definition)
            build.report = lambda phase: on_progress(RebuildProgress(phase, build.seq, target_seq, build.rows))
            await _fold_and_copy(build, batches, target_seq)
            while build.seq < target_seq:
                await _catch_up(build, batches)
            await _switch(build, database, batches)
            build.report("switched")
            with suppress(asyncpg.LockNotAvailableError):
                await _drop_versions(connection, definition.service)
    return Rebuilt(build.version, build.seq, build.rows)


class _Build:
    """The version being built."""

    def __init__(self, connection: _Connection, service: str, version: int) -> None:
        self.connection = connection
        self.service = service
        self.version = version
        self.schema = f"{service}_v{version}"
        self.writer = RowWriter(self.schema)
        self.seq = 0
        self.rows = 0
        self.taken: tuple[list[Row], int] | None = None  # from the log, and not yet in the tables
        self.report: Callable[[Literal["fold", "copy", "index", "catch_up", "switched"]], None] = lambda _: None


@asynccontextmanager
async def _only_rebuild(database: Database) -> AsyncGenerator[_Connection]:
    connection = await database.connect(statement_timeout_s=LONG_STATEMENT_TIMEOUT_S)
    try:
        with postgres_errors():
            lock = f"dumont.rebuild.{database.service}"
            if not await connection.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", lock):
                raise RebuildRunning(f"a rebuild of {database.service} is already running")
        yield connection
    finally:
        connection.terminate()


async def _begin(connection: _Connection, definition: Definition) -> _Build:
    """Sweep up after earlier rebuilds and create the tables of the next version."""
    service = definition.service
    await _drop_versions(connection, service)
    async with connection.transaction():
        version = await connection.fetchval(
            f"insert into {service}_live.projections (version, fingerprint, status) "  # noqa: S608
            f"select coalesce(max(version), 0) + 1, $1, 'building' from {service}_live.projections returning version",
            definition.fingerprint,
        )
        build = _Build(connection, service, version)
        await create_tables(connection, definition, build.schema)
        await build.writer.tables(connection)
    return build


async def _drop_versions(connection: _Connection, service: str) -> None:
    """Drop everything that is not the active version. The rebuild lock is ours, so nobody is building them."""
    await connection.execute(f"set lock_timeout = {DROP_LOCK_TIMEOUT_MS}")
    for (schema,) in await connection.fetch(
        "select nspname from pg_catalog.pg_namespace where nspname ~ ('^' || $1 || '_v[0-9]+$')", service
    ):
        await connection.execute(f"drop schema {quoted(schema)} cascade")
    await connection.execute("set lock_timeout = 0")
    await connection.execute(f"delete from {service}_live.projections where status <> 'active'")  # noqa: S608


async def _fold_and_copy(build: _Build, batches: AsyncIterator[Batch], target_seq: int) -> None:
    tables = await build.writer.tables(build.connection)
    folds: dict[str, TableFold] = {}
    while build.seq < target_seq and build.rows < FOLD_ROWS_MAX:
        rows, build.seq = await _next(batches)
        fold_rows(rows, tables, folds)
        for fold in folds.values():
            fold.deleted.clear()  # nothing lies below the fold: a deleted key is simply not there
        build.rows = sum(len(fold.merged) for fold in folds.values())
        build.report("fold")
        await asyncio.sleep(0)  # a service that rebuilds because its projection has changed answers meanwhile
    async with build.connection.transaction():
        restore = await _strip(build.connection, build.schema)
        for name in tables:  # files made in this transaction: with wal_level = minimal, COPY into them skips the WAL
            await build.connection.execute(f"truncate {build.schema}.{quoted(name)}")
        for fold in folds.values():
            await _copy(build, fold)
        build.report("index")
        for statement in restore:
            await build.connection.execute(statement)
        for name in tables:
            await build.connection.execute(f"analyze {build.schema}.{quoted(name)}")
        await _checkpoint(build, 0, build.seq)


async def _strip(connection: _Connection, schema: str) -> list[str]:
    """Take constraints and indexes off the empty tables; returns the statements that put them back."""
    constraints = await connection.fetch(
        "select conrelid::regclass::text as table_name, conname, pg_get_constraintdef(c.oid) as definition "
        "from pg_catalog.pg_constraint c join pg_catalog.pg_namespace n on n.oid = c.connamespace "
        "where n.nspname = $1 and contype in ('p', 'u', 'x', 'f') and conrelid <> 0 "
        "order by contype = 'f', conrelid, conname",  # foreign keys come back last: they need the keys they point to
        schema,
    )
    restore: list[str] = []
    for table, name, _ in reversed(constraints):
        await connection.execute(f"alter table {table} drop constraint {quoted(name)}")
    restore.extend(f"alter table {table} add constraint {quoted(name)} {text}" for table, name, text in constraints)
    for name, text in await connection.fetch(
        "select indexname, indexdef from pg_catalog.pg_indexes where schemaname = $1 order by indexname", schema
    ):
        await connection.execute(f"drop index {schema}.{quoted(name)}")
        restore.append(text)
    return restore


async def _copy(build: _Build, fold: TableFold) -> None:
    with misfits_rejected(fold.table):
        await build.connection.copy_records_to_table(
            fold.table.name,
            schema_name=build.schema,
            columns=[*fold.table.key, *fold.table.columns],
            records=_records(build, fold),
        )


async def _records(build: _Build, fold: TableFold) -> AsyncIterator[tuple[Any, ...]]:
    items = iter(fold.merged.items())
    while chunk := list(islice(items, COPY_CHUNK_ROWS)):
        for record in zip(*row_arrays(fold.table, fold.table.columns, chunk), strict=True):
            yield record
        build.report("copy")
        await asyncio.sleep(0)  # asyncpg waits for nothing while PostgreSQL keeps up: a large table is a long turn


async def _catch_up(build: _Build, batches: AsyncIterator[Batch]) -> None:
    """Project one more batch into the version being built; if that was interrupted, the next call tries it again."""
    if build.taken is None:
        rows, seq = await _next(batches)
        build.taken = list(rows), seq
    rows, seq = build.taken
    async with build.connection.transaction():
        await build.connection.execute(BY_PRIMARY_KEY)
        await _checkpoint(build, build.seq, seq)
        await build.writer.write(build.connection, rows)
    build.taken = None
    build.seq = seq
    build.rows += len(rows)
    build.report("catch_up")


async def _checkpoint(build: _Build, after_seq: int, seq: int) -> None:
    tag = await build.connection.execute(
        f"update {build.service}_live.projections set seq = $3 "  # noqa: S608
        "where version = $1 and seq = $2 and status = 'building'",
        build.version,
        after_seq,
        seq,
    )
    if tag != "UPDATE 1":
        raise RebuildRunning(f"version {build.version} of {build.service} was taken away by another rebuild")


async def _next(batches: AsyncIterator[Batch]) -> Batch:
    try:
        async with asyncio.timeout(BATCH_WAIT_S):
            return await anext(batches)
    except (TimeoutError, StopAsyncIteration) as error:
        raise Transient("the log gave no further batch, though the rebuild has not reached its end") from error


async def _switch(build: _Build, database: Database, batches: AsyncIterator[Batch]) -> None:
    """Make the new version the active one, at a checkpoint no older than what readers have already seen."""
    live = f"{build.service}_live.projections"
    active_sql = f"select version, seq from {live} where status = 'active'"  # noqa: S608
    for _ in range(SWITCH_TRIES_MAX):
        while build.seq < await build.connection.fetchval(active_sql, column=1):
            await _catch_up(build, batches)
        try:
            async with asyncio.timeout(FREEZE_S_MAX), database.transaction() as frozen:
                row = await frozen.fetchrow(active_sql + " for update")
                assert row is not None  # ensure_schema ran, and the active row is only ever replaced under this lock
                while build.seq < row["seq"]:
                    await _catch_up(build, batches)
                await frozen.execute(f"update {live} set status = 'retired' where status = 'active'")  # noqa: S608
                await frozen.execute(f"alter schema {build.service} rename to {build.service}_v{row['version']}")
                await frozen.execute(f"alter schema {build.schema} rename to {build.service}")
                await frozen.execute(
                    f"update {live} set status = 'active' where version = $1",  # noqa: S608
                    build.version,
                )
        except TimeoutError:
            continue
        return
    raise Transient(f"the rebuild of {build.service} could not catch up with the live projection")
