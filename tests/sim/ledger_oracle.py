"""What really ran, and what it comes to in exact fractions: the closed form that ledgers are compared with.

Used by `ledger`. It shares no code with the billing service: stretches of time at a price, cut to whole seconds and
rounded half up once each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import NamedTuple

from proto.billing.words import Line

START = datetime(2026, 11, 20, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Stretch(NamedTuple):
    since: float
    until: float
    price: int
    machine: str


@dataclass
class Running:
    """One thing that costs money while it runs."""

    line: Line
    since: float | None = None
    price: int = 0
    machine: str = ""
    stretches: list[Stretch] = field(default_factory=list[Stretch])

    def begin(self, when: float, price: int, machine: str = "") -> None:
        self.end(when)
        self.since, self.price, self.machine = when, price, machine

    def end(self, when: float) -> None:
        if self.since is not None and when > self.since:
            self.stretches.append(Stretch(self.since, when, self.price, self.machine))
        self.since = None

    def cut(self, when: float) -> None:
        """Nothing of it after then, not even what was already on its way."""
        self.end(when)
        cut = [stretch._replace(until=min(stretch.until, when)) for stretch in self.stretches]
        self.stretches = [stretch for stretch in cut if stretch.since < stretch.until]

    def cost(self) -> int:
        """Half up, on whole seconds, in exact fractions."""
        total = 0
        for stretch in _merged(self.stretches):
            seconds = (at(stretch.until) - at(stretch.since)) // timedelta(seconds=1)
            total += int(Fraction(seconds * stretch.price, 3_600) + Fraction(1, 2))
        return total


def _merged(stretches: list[Stretch]) -> list[Stretch]:
    """Stretches that meet at one price on one machine are one: a repeated fact is no new beginning."""
    joined: list[Stretch] = []
    for stretch in stretches:
        last = joined[-1] if joined else None
        if last is not None and (last.until, last.price, last.machine) == (
            stretch.since,
            stretch.price,
            stretch.machine,
        ):
            joined[-1] = last._replace(until=stretch.until)
        else:
            joined.append(stretch)
    return joined


def closed_form(running: list[Running]) -> dict[Line, int]:
    """What everything comes to, by line."""
    totals: dict[Line, int] = {"gpu": 0, "cpu_standby": 0, "volume": 0, "warm_pool": 0}
    for one in running:
        totals[one.line] += one.cost()
    return totals
