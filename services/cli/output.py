"""Printing: one JSON document for programs, a table for people. Imports `rich` only when a table is printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]


def as_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def as_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """`empty` is what is said when there are no rows."""
    from rich.console import Console  # noqa: PLC0415 - 80 ms, and `--json` does not need it
    from rich.table import Table  # noqa: PLC0415

    if not rows:
        tell(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else _text(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 240  # a pipe has no width: lines are not folded for grep
    console.print(table)


def as_fields(fields: Mapping[str, object]) -> None:
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        tell(f"{name:<{width}}  {_text(value)}")


def _text(value: object) -> str:
    """Instants as the API writes them."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if isinstance(value, datetime) else str(value)


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    sys.stderr.write(f"dumont: {text}\n")
    sys.stderr.flush()
