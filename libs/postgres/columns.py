"""What tables a schema has and how a `Row`'s values become column values.

Called by `libs.postgres.folding`, `writing` and `rebuild`. Owns the list of column types a projection may write.
Types come from PostgreSQL's catalogue, so `schema.sql` is the only place that says them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from libs.postgres.pool import Connection

# Scalars asyncpg can send as arrays, and jsonb. Arrays and floats are missing on purpose: write jsonb and integers.
WRITABLE_TYPES = frozenset({"text", "varchar", "bool", "int2", "int4", "int8", "timestamptz", "jsonb"})
COLUMNS_MAX = 62  # one bit each in the bigint that says which columns a row mentions


class RowRejected(Exception):
    """A projection said something its `schema.sql` cannot hold: a bug in that service, never retried."""


@dataclass(frozen=True)
class Table:
    """One table: its primary key and the other columns, each name with its type."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    types: Mapping[str, str]
    column_set: frozenset[str]
    key_of: Callable[[Mapping[str, Any]], Any]  # the key's value, or their tuple when the key has several columns

    def key_arrays(self, keys: Sequence[Any]) -> list[list[Any]]:
        """One array per key column."""
        if len(self.key) == 1:
            return [list(keys)]
        return [list(values) for values in zip(*keys, strict=True)] or [[] for _ in self.key]


# CATALOGUE_SQL $1: schema name. Generated columns are computed by PostgreSQL, so they are not ours to write.
CATALOGUE_SQL = """
select c.relname as table_name, a.attname as column_name, t.typname as type_name,
       coalesce(array_position(i.indkey::int2[], a.attnum), -1) as key_position
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_index i on i.indrelid = c.oid and i.indisprimary
where n.nspname = $1 and c.relkind = 'r'
order by c.relname, a.attnum
"""


async def read_catalogue(connection: Connection, schema: str) -> dict[str, Table]:
    """The tables of one schema by name. Primary keys must still be there."""
    tables: dict[str, list[tuple[str, str, int]]] = {}
    for name, column, type_name, position in await connection.fetch(CATALOGUE_SQL, schema):
        tables.setdefault(name, []).append((column, type_name, position))
    return {name: _table(name, columns) for name, columns in tables.items()}


def _table(name: str, columns: Iterable[tuple[str, str, int]]) -> Table:
    columns = list(columns)
    key = tuple(
        column for column, _, _ in sorted((c for c in columns if c[2] >= 0), key=lambda described: described[2])
    )
    others = tuple(column for column, _, position in columns if position < 0)
    return Table(
        name=name,
        key=key,
        columns=others,
        types={column: type_name for column, type_name, _ in columns},
        column_set=frozenset(others),
        key_of=_key_getter(key),
    )


def _key_getter(key: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Any]:
    if not key:
        return _no_key
    return cast("Callable[[Mapping[str, Any]], Any]", itemgetter(*key))  # the stub cannot say what it returns


def _no_key(_key: Mapping[str, Any]) -> Any:
    raise RowRejected("the table has no primary key")


def column_values(table: Table, column: str, values: list[Any]) -> list[Any]:
    """The values as asyncpg wants them for this column; a str for jsonb is taken to be JSON text already.

    Raises RowRejected for a type that projections do not write.
    """
    match table.types[column]:
        case "jsonb":
            return [
                value if value is None or type(value) is str else msgspec.json.encode(value).decode()
                for value in values
            ]
        case "timestamptz":
            if any(value is not None and value.tzinfo is None for value in values):
                raise RowRejected(f"{table.name}.{column}: an instant without a time zone")
            return values
        case type_name if type_name in WRITABLE_TYPES:
            return values
        case type_name:
            raise RowRejected(f"{table.name}.{column}: type {type_name} is not written by projections; use jsonb")
