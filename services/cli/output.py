"""Printing: one JSON document for programs, a table for people. Imports `rich` only when a table is printed."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import msgspec
import typer

GAP = 2  # characters between two columns
CUT_CHARS_MIN = 12  # of a cell that is cut; less of it says nothing
FLAG = ""  # as `metavar`: help says `<bool>` of a flag otherwise, which reads as if a value went with it

AsJson = Annotated[bool, typer.Option("--json", metavar=FLAG, help="Print JSON on standard output and nothing else.")]


def as_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def as_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """`columns` come in the order of what matters: where the terminal is too narrow, the last ones are left out.

    `empty` is what is said when there are no rows. A pipe has no width: its lines are whole, for grep.
    """
    from rich.console import Console  # noqa: PLC0415 - 80 ms, and `--json` does not need it
    from rich.table import Table  # noqa: PLC0415

    if not rows:
        tell(empty)
        return
    cells = [[_text(cell) for cell in row] for row in rows]
    natural = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = sum(natural) + GAP * len(natural)
    shown = fitting(natural, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, width in shown.items():
        table.add_column(columns[place], width=width, no_wrap=place > 0, overflow="ellipsis" if place else "fold")
    for row in cells:
        table.add_row(*(row[place] for place in shown))
    console.print(table)
    left_out = [name for place, name in enumerate(columns) if place not in shown]
    if left_out:
        warn(f"too narrow for {', '.join(left_out)}; a wider terminal, a pipe or --json has all")


def fitting(natural: Sequence[int], width: int) -> dict[int, int]:
    """Place and width of each column that has room: the first always, others whole or cut to what is left."""
    shown = {0: min(natural[0], width)}
    left = width - natural[0]
    for place, wanted in list(enumerate(natural))[1:]:
        given = min(wanted, left - GAP)
        if given < min(wanted, CUT_CHARS_MIN):
            continue
        shown[place] = given
        left -= given + GAP
    return shown


def as_fields(fields: Mapping[str, object]) -> None:
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        tell(f"{name:<{width}}  {_text(value)}")


def facts_of(data: Mapping[str, Any], *, but: Collection[str] = ()) -> str:
    """`status running, gpu RTX 4090`: what is plain in an object, without empty values and what was said before it."""
    told = {name: value for name, value in data.items() if not isinstance(value, dict | list)}
    return ", ".join(
        f"{name} {_text(value)}" for name, value in told.items() if value not in (None, "") and name not in but
    )


def _text(value: object) -> str:
    """As the API writes instants and truth; of what has parts, the parts."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        case Mapping():
            return facts_of(cast("Mapping[str, Any]", value))
        case list():
            return ", ".join(_text(part) for part in cast("list[object]", value))
        case _:
            return str(value)


def tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    sys.stderr.write(f"dumont: {text}\n")
    sys.stderr.flush()
