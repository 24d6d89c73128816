"""The Store port on PostgreSQL: rows with their checkpoint, cursors, deadlines, lease.

Called by `libs.runtime`; made by composition roots after `ensure_schema`. Passes `libs/spec/store_contract.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import msgspec

from libs.postgres.lease import Lease
from libs.postgres.pool import Database
from libs.postgres.writing import BY_PRIMARY_KEY, RowWriter
from libs.runtime.service import DEADLINES_TABLE, Row
from libs.runtime.store import PROJECT_CURSOR, Deadline, Overtaken

# Rows and checkpoint are lost together and replayed from the log, so this commit need not wait for the disk.
BEGIN_PROJECT = "begin; set local synchronous_commit = off; " + BY_PRIMARY_KEY


class PostgresStore:
    """One service's store. `fingerprint` is that of the code that projects: when another version has become active,
    this code's rows no longer fit and `project` says Overtaken."""

    def __init__(self, database: Database, *, fingerprint: str) -> None:
        self._database = database
        self._fingerprint = fingerprint
        self._writer = RowWriter(database.service)
        live = f"{database.service}_live"
        # $1 fingerprint, $2 the cursor we know, $3 the cursor we make. The row lock keeps every other writer out.
        self._checkpoint_sql = (
            f"update {live}.projections set seq = $3 "  # noqa: S608
            "where status = 'active' and fingerprint = $1 and seq = $2"
        )
        self._active_seq_sql = f"select seq from {live}.projections where status = 'active'"  # noqa: S608
        self._cursor_sql = f"select seq, companion from {live}.cursors where name = $1"  # noqa: S608
        # $1 name, $2 low-water mark, $3 companion
        self._save_cursor_sql = (
            f"insert into {live}.cursors as c (name, seq, companion) values ($1, $2, $3) "  # noqa: S608
            "on conflict (name) do update set seq = excluded.seq, companion = excluded.companion "
            "where (c.seq, c.companion) < (excluded.seq, excluded.companion)"
        )

    async def project(self, rows: Sequence[Row], *, after_seq: int, seq: int) -> None:
        """See the port. Raises RowRejected when a row does not fit `schema.sql`, Transient when the outcome is
        unknown."""
        if seq < after_seq:
            raise ValueError(f"the projection cursor cannot go back from {after_seq} to {seq}")
        async with self._database.transaction(BEGIN_PROJECT) as connection:
            if await connection.execute(self._checkpoint_sql, self._fingerprint, after_seq, seq) != "UPDATE 1":
                raise Overtaken(f"the projection of {self._database.service} is not at {after_seq} any more")
            if rows:
                await self._writer.write(connection, rows)

    async def cursor(self, name: str) -> tuple[int, int]:
        if name == PROJECT_CURSOR:
            return (await self._database.fetchval(self._active_seq_sql) or 0, 0)
        row = await self._database.fetchrow(self._cursor_sql, name)
        return (row["seq"], row["companion"]) if row else (0, 0)

    async def save_cursor(self, name: str, seq: int, companion: int = 0) -> None:
        if name == PROJECT_CURSOR:
            raise ValueError("the projection cursor moves with its rows: call project")
        await self._database.execute(self._save_cursor_sql, name, seq, companion)

    async def due(self, now: datetime, *, limit: int) -> Sequence[Deadline]:
        rows = await self._database.fetch(
            f"select aggregate_id, name, due_at, command from {DEADLINES_TABLE} where due_at <= $1 "  # noqa: S608
            'order by due_at, aggregate_id collate "C", name collate "C" limit $2',
            now,
            limit,
        )
        return [msgspec.convert(dict(row), Deadline) for row in rows]

    async def next_due(self) -> datetime | None:
        return await self._database.fetchval(f"select min(due_at) from {DEADLINES_TABLE}")  # noqa: S608

    def lease(self, name: str) -> AbstractAsyncContextManager[None]:
        return Lease(self._database, f"dumont.lease.{self._database.service}.{name}")
