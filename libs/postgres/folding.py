"""Rows in, the last word per key out: what a batch means once its rows have been applied in order.

Called by `libs.postgres.writing` for one batch and by `libs.postgres.rebuild` for a whole log. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from libs.postgres.columns import RowRejected, Table
from libs.runtime.service import Row


class TableFold:
    """`merged[key]`: the columns to merge into that row. A key in `deleted` starts from nothing: what it had is
    gone."""

    __slots__ = ("deleted", "merged", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.merged: dict[Any, dict[str, Any]] = {}
        self.deleted: set[Any] = set()


def fold_rows(rows: Iterable[Row], tables: Mapping[str, Table], folds: dict[str, TableFold]) -> None:
    """Apply rows in order to `folds`. Raises RowRejected for a table, key or column that `schema.sql` does not know."""
    for row in rows:
        fold = folds.get(row.table)
        if fold is None:
            fold = folds[row.table] = TableFold(_known(row, tables))
        table = fold.table
        try:
            key = table.key_of(row.key)
        except KeyError as missing:
            raise RowRejected(f"{row.table}: key column {missing} is not given") from missing
        if len(row.key) != len(table.key):
            raise RowRejected(f"{row.table}: the primary key is {table.key}, the row says {tuple(row.key)}")
        columns = row.columns
        if columns is None:
            fold.merged.pop(key, None)
            fold.deleted.add(key)
        elif columns.keys() <= table.column_set:
            merged = fold.merged.get(key)
            if merged is None:
                fold.merged[key] = dict(columns)
            else:
                merged.update(columns)
        else:
            unknown = sorted(columns.keys() - table.column_set)
            raise RowRejected(f"{row.table}: no such column outside the key: {unknown}")


def _known(row: Row, tables: Mapping[str, Table]) -> Table:
    table = tables.get(row.table)
    if table is None:
        raise RowRejected(f"no table {row.table!r}; schema.sql has {sorted(tables)}")
    return table
