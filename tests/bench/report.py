"""One line of the bench, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Line(NamedTuple):
    """`ratio` is product over ceiling, measured in one run; "-" where only an absolute goal exists."""

    name: str
    product: str
    ceiling: str
    ratio: str
    goal: str
    met: bool


def show(lines: Sequence[Line]) -> None:
    table = Table("path", "product", "ceiling, same run", "ratio", "goal", "met")
    for line in lines:
        table.add_row(*line[:5], "yes" if line.met else "no")
    Console(width=150).print(table)
