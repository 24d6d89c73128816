"""Writes a batch of rows with one statement per table: UNNEST arrays into an upsert or a MERGE.

Called inside a transaction by `libs.postgres.store` and, to catch up, by `libs.postgres.rebuild`. Owns the SQL of row
writes.

A batch whose rows all name every column is an `insert ... on conflict`. Otherwise a MERGE writes only what each row
mentions (a bit mask per row says what): nothing has to be read first and there is no cache that could be wrong. An
upsert could not do that, because PostgreSQL checks NOT NULL on the proposed row before it looks for a conflict. Both
are safe without further locks: the caller holds the projection's checkpoint row, so there is one writer.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import asyncpg

from libs.postgres.columns import COLUMNS_MAX, RowRejected, Table, column_values, read_catalogue
from libs.postgres.folding import TableFold, fold_rows
from libs.runtime.service import Row

if TYPE_CHECKING:
    from libs.postgres.pool import Connection

STATEMENT_ROWS_MAX = 1000  # 100 to 1000 is where PostgreSQL merges fastest (about 20 ms); more only holds locks longer
STATEMENT_CHARS_MAX = 8 * 1024 * 1024  # text in one statement; a thousand rows at the commit limit would be 256 MiB
STATEMENTS_CACHED_MAX = 500

# To be set in the transaction. A MERGE planned while its table was small would otherwise read the whole table for every
# batch, for as long as PostgreSQL keeps that plan; finding each row by its key is right at any size.
BY_PRIMARY_KEY = "set local enable_seqscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off"

_Item = tuple[Any, dict[str, Any]]


class RowWriter:
    """Writes rows to the tables of one schema. Reads the catalogue once: a schema's tables never change, versions
    do."""

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._tables: dict[str, Table] | None = None
        self._statements: dict[tuple[str, ...], str] = {}

    async def tables(self, connection: Connection) -> dict[str, Table]:
        if self._tables is None:
            self._tables = await read_catalogue(connection, self._schema)
        return self._tables

    async def write(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Merge and delete rows in order. Raises RowRejected when they do not fit the tables."""
        folds: dict[str, TableFold] = {}
        fold_rows(rows, await self.tables(connection), folds)
        for fold in folds.values():
            with misfits_rejected(fold.table):
                await self._delete(connection, fold)
                await self._merge(connection, fold)

    async def _delete(self, connection: Connection, fold: TableFold) -> None:
        table = fold.table
        gone = iter(fold.deleted - fold.merged.keys())
        while keys := list(islice(gone, STATEMENT_ROWS_MAX)):
            arrays = [
                column_values(table, column, values)
                for column, values in zip(table.key, table.key_arrays(keys), strict=True)
            ]
            await connection.execute(self._delete_sql(table), *arrays)

    async def _merge(self, connection: Connection, fold: TableFold) -> None:
        table = fold.table
        for key in fold.deleted & fold.merged.keys():
            columns = fold.merged[key]
            for column in table.columns:
                columns.setdefault(column, None)  # what the deleted row had must not shine through
        items = iter(fold.merged.items())
        while chunk := list(islice(items, STATEMENT_ROWS_MAX)):
            await self._merge_chunk(connection, table, chunk)

    async def _merge_chunk(self, connection: Connection, table: Table, chunk: list[_Item]) -> None:
        shapes = {tuple(columns) for _, columns in chunk}
        mentioned = frozenset[str]().union(*shapes)
        columns = tuple(column for column in table.columns if column in mentioned)
        arrays = row_arrays(table, columns, chunk)
        if len(chunk) > 1 and _chars(arrays) > STATEMENT_CHARS_MAX:
            half = len(chunk) // 2
            await self._merge_chunk(connection, table, chunk[:half])
            await self._merge_chunk(connection, table, chunk[half:])
            return
        if all(len(shape) == len(columns) for shape in shapes):
            kind = "upsert" if len(columns) == len(table.columns) else "merge"
        else:
            kind = "masked merge"
            arrays.append(_masks(table, columns, chunk))
        await connection.execute(self._merge_sql(kind, table, columns), *arrays)

    def _merge_sql(self, kind: str, table: Table, columns: tuple[str, ...]) -> str:
        cached = (kind, table.name, *columns)
        sql = self._statements.get(cached)
        if sql is None:
            if len(self._statements) >= STATEMENTS_CACHED_MAX:
                self._statements.clear()
            build = {"upsert": upsert_sql, "merge": merge_sql, "masked merge": masked_merge_sql}[kind]
            sql = self._statements[cached] = build(f"{self._schema}.{quoted(table.name)}", table, columns)
        return sql

    def _delete_sql(self, table: Table) -> str:
        source = _unnest(table, table.key)
        return f"delete from {self._schema}.{quoted(table.name)} t using {source} where {_same_key(table)}"  # noqa: S608


@contextmanager
def misfits_rejected(table: Table) -> Generator[None]:
    """Name the table when PostgreSQL or asyncpg will not take a value."""
    try:
        yield
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as error:
        raise RowRejected(f"{table.name}: {type(error).__name__}: {error.args[0]}") from error
    except asyncpg.InterfaceError as error:
        if not isinstance(error, ValueError):  # asyncpg's own word for a value of the wrong type
            raise
        raise RowRejected(f"{table.name}: a value of the wrong type: {error}") from error


def row_arrays(table: Table, columns: Sequence[str], items: Sequence[_Item]) -> list[list[Any]]:
    """One array per key column, then one per column; a column that a row does not mention is NULL there."""
    keys = table.key_arrays([key for key, _ in items])
    arrays = [column_values(table, column, values) for column, values in zip(table.key, keys, strict=True)]
    merged = [columns_of_row for _, columns_of_row in items]
    arrays.extend(column_values(table, column, [row.get(column) for row in merged]) for column in columns)
    return arrays


def upsert_sql(target: str, table: Table, columns: tuple[str, ...]) -> str:
    """Every row names every column."""
    names = _list(table.key + columns)
    action = (
        f"do update set {', '.join(f'{quoted(c)} = excluded.{quoted(c)}' for c in columns)}"
        if columns
        else "do nothing"
    )
    return (
        f"insert into {target} ({names}) select {names} from {_unnest(table, table.key + columns)} "  # noqa: S608
        f"on conflict ({_list(table.key)}) {action}"
    )


def merge_sql(target: str, table: Table, columns: tuple[str, ...]) -> str:
    """Every row names the same columns, but not all the table has."""
    changes = ", ".join(f"{quoted(column)} = s.{quoted(column)}" for column in columns)
    return _merge(target, table, columns, _unnest(table, table.key + columns), changes)


def masked_merge_sql(target: str, table: Table, columns: tuple[str, ...]) -> str:
    """Rows name different columns: bit n of the last array says that the row names the n-th column."""
    changes = ", ".join(
        f"{quoted(c)} = case when s.mentioned & {1 << bit} <> 0 then s.{quoted(c)} else t.{quoted(c)} end"
        for bit, c in enumerate(columns)
    )
    return _merge(target, table, columns, _unnest(table, table.key + columns, mask=True), changes)


def _merge(target: str, table: Table, columns: tuple[str, ...], source: str, changes: str) -> str:
    names = table.key + columns
    update = f"when matched then update set {changes} " if columns else ""
    return (
        f"merge into {target} t using {source} on {_same_key(table)} {update}"  # noqa: S608
        f"when not matched then insert ({_list(names)}) values ({', '.join(f's.{quoted(name)}' for name in names)})"
    )


def _unnest(table: Table, names: Sequence[str], *, mask: bool = False) -> str:
    types = [table.types[name] for name in names] + (["int8"] if mask else [])
    aliases = [*names, "mentioned"] if mask else names
    arrays = ", ".join(f"${number}::{type_name}[]" for number, type_name in enumerate(types, 1))
    return f"unnest({arrays}) as s({_list(aliases)})"


def _masks(table: Table, columns: tuple[str, ...], chunk: list[_Item]) -> list[int]:
    if len(columns) > COLUMNS_MAX:
        raise RowRejected(f"{table.name}: more than {COLUMNS_MAX} columns")
    bits = {column: 1 << bit for bit, column in enumerate(columns)}
    return [sum(map(bits.__getitem__, mentioned)) for _, mentioned in chunk]


def _chars(arrays: list[list[Any]]) -> int:
    return sum(len(value) for array in arrays for value in array if type(value) is str)


def _same_key(table: Table) -> str:
    return " and ".join(f"t.{quoted(column)} = s.{quoted(column)}" for column in table.key)


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))


def quoted(name: str) -> str:
    """An identifier as SQL text; names come from the catalogue, so this only keeps reserved words harmless."""
    return '"' + name.replace('"', '""') + '"'
