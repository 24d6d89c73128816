"""The Store port in memory, for specs and simulation: same rules as `libs.postgres`, nothing outlives the object.

Called by `libs.spec`, `libs.sim` and tests. A simulated crash keeps the object and starts a new runtime on it;
replicas share one object. Passes `libs/spec/store_contract.py`. Deterministic: no clock, no randomness, leases are
handed over in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec

from libs.runtime.service import DEADLINES_TABLE, Row
from libs.runtime.store import PROJECT_CURSOR, Deadline, Overtaken

_NESTED = frozenset({dict, list})
_Key = tuple[tuple[str, Any], ...]


class MemoryStore:
    """One service's rows.

    `tables` (table -> all columns) and `keys` (table -> primary key) make a row that does not fit an error, as it is in
    PostgreSQL; without them any row goes.
    """

    def __init__(
        self,
        tables: Mapping[str, Collection[str]] | None = None,
        *,
        keys: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._columns = {name: frozenset(columns) for name, columns in (tables or {}).items()}
        self._keys = {name: tuple(columns) for name, columns in (keys or {}).items()}
        self._tables: dict[str, dict[_Key, dict[str, Any]]] = {}
        self._seq = 0
        self._cursors: dict[str, tuple[int, int]] = {}
        self._leases: dict[str, asyncio.Lock] = {}

    async def project(self, rows: Sequence[Row], *, after_seq: int, seq: int) -> None:
        if seq < after_seq:
            raise ValueError(f"the projection cursor cannot go back from {after_seq} to {seq}")
        if after_seq != self._seq:
            raise Overtaken(f"the projection is at {self._seq}, not at {after_seq}")
        for row in rows:
            self._check(row)
        for row in rows:
            self._apply(row)
        self._seq = seq

    async def cursor(self, name: str) -> tuple[int, int]:
        return (self._seq, 0) if name == PROJECT_CURSOR else self._cursors.get(name, (0, 0))

    async def save_cursor(self, name: str, seq: int, companion: int = 0) -> None:
        if name == PROJECT_CURSOR:
            raise ValueError("the projection cursor moves with its rows: call project")
        self._cursors[name] = max(self._cursors.get(name, (0, 0)), (seq, companion))

    async def due(self, now: datetime, *, limit: int) -> Sequence[Deadline]:
        waiting = [
            msgspec.convert({**dict(key), **columns}, Deadline)
            for key, columns in self._tables.get(DEADLINES_TABLE, {}).items()
            if columns["due_at"] is not None and columns["due_at"] <= now
        ]
        waiting.sort(key=lambda deadline: (deadline.due_at, deadline.aggregate_id, deadline.name))
        return waiting[:limit]

    async def next_due(self) -> datetime | None:
        dues = (columns["due_at"] for columns in self._tables.get(DEADLINES_TABLE, {}).values())
        return min((due_at for due_at in dues if due_at is not None), default=None)

    def lease(self, name: str) -> AbstractAsyncContextManager[None]:
        return self._hold(self._leases.setdefault(name, asyncio.Lock()))

    def rows(self, table: str, *only: str) -> list[dict[str, Any]]:
        """All rows of a table, ordered by key: copies, key and columns in one dict; of the columns `only` these.

        Columns never mentioned are None when the store knows the table, and missing otherwise.
        """
        found = self._tables.get(table, {})
        unmentioned = dict.fromkeys(only or sorted(self._columns.get(table, ()))) if table in self._columns else {}
        return [{**unmentioned, **dict(key), **_copy(found[key], only)} for key in sorted(found)]

    @asynccontextmanager
    async def _hold(self, lock: asyncio.Lock) -> AsyncGenerator[None]:
        async with lock:
            yield

    def _apply(self, row: Row) -> None:
        table = self._tables.setdefault(row.table, {})
        key = tuple((name, row.key[name]) for name in self._keys.get(row.table, sorted(row.key)))
        if row.columns is None:
            table.pop(key, None)
            return
        columns = {name: _column_value(value) for name, value in row.columns.items()}
        table.setdefault(key, {}).update(columns)

    def _check(self, row: Row) -> None:
        if not self._columns or row.table == DEADLINES_TABLE:
            return
        if row.table not in self._columns:
            raise ValueError(f"no table {row.table!r}; there are {sorted(self._columns)}")
        unknown = {*row.key, *(row.columns or ())} - self._columns[row.table]
        if unknown:
            raise ValueError(f"{row.table}: no such column: {sorted(unknown)}")
        if row.table in self._keys and row.key.keys() != set(self._keys[row.table]):
            raise ValueError(f"{row.table}: the primary key is {self._keys[row.table]}, the row says {tuple(row.key)}")


def _column_value(value: Any) -> Any:
    """What a column would hold: structs, lists and dicts as plain JSON values, so that no caller shares our state."""
    if value is None or isinstance(value, str | int | datetime):
        return value
    return msgspec.json.decode(msgspec.json.encode(value))


def _copy(columns: dict[str, Any], only: tuple[str, ...]) -> dict[str, Any]:
    """Shares nothing that a caller could change: the rest of what `_column_value` leaves does not change."""
    names = [name for name in only if name in columns] if only else columns
    return {
        name: msgspec.to_builtins(value) if (value := columns[name]).__class__ in _NESTED else value for name in names
    }
