"""What the sandbox cloud charges its customer, as real clouds do: as it goes, late, by the whole minute, rounded up to
the cent.

Used by `cloud` (which says when a machine runs), `volumes` (which says when there is one) and `routes`. Owns
`bills.jsonl`: lines that say that a machine began to run or a volume to be there, or what a stretch of that came to. A
long stretch is charged as it goes: a machine by the hour, a volume by the day. A charge is published `charge_delay_s`
after its stretch ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from libs.money import cost_micros
from services.sandbox.records import Record, Volume

MINUTE_S = 60
HOUR_S, DAY_S = 3_600, 86_400
CENT_USD_MICROS = 10_000
CHARGES_PER_PAGE_MAX = 1_000


class Item(NamedTuple):
    """What is charged for: a machine that runs, or a volume that is there, in stretches of `stretch_s` at most."""

    item_id: str
    label: str
    price_usd_micros_per_hour: int
    stretch_s: int


class Charge(Struct, frozen=True):
    """One stretch of a machine's running or a volume's being there, whose id is `machine_id` in either case. `number`
    counts up; times are unix seconds."""

    number: int
    charge_id: str
    machine_id: str
    label: str
    since: float
    until: float
    usd_micros: int
    is_volume: bool = False


class _Begun(Struct, frozen=True):
    machine_id: str
    since: float


class _Line(Struct, frozen=True, omit_defaults=True):
    begun: _Begun | None = None
    charge: Charge | None = None


def machine_item(record: Record) -> Item:
    return Item(record.machine_id, record.label, record.price_usd_micros_per_hour, HOUR_S)


def volume_item(volume: Volume, price_usd_micros_per_gb_hour: int) -> Item:
    return Item(volume.volume_id, volume.name, volume.size_gb * price_usd_micros_per_gb_hour, DAY_S)


class Bills:
    """All charges ever made, and what runs unbilled. Small: a charge per stretch."""

    def __init__(self, directory: Path, delay_s: float) -> None:
        self._path = directory / "bills.jsonl"
        self._delay_s = delay_s
        self._running: dict[str, float] = {}
        self._charges: list[Charge] = []
        if self._path.exists():
            for line in self._path.read_bytes().splitlines():
                self._take(msgspec.json.decode(line, type=_Line))

    def note(self, item: Item, now: float, *, is_on: bool) -> None:
        """It is on, or off, from now on: a stretch begins, or is charged. What is known already is no news."""
        since = self._running.get(item.item_id)
        if is_on and since is None:
            self._write(_Line(begun=_Begun(item.item_id, now)))
        elif not is_on and since is not None:
            self._write(_Line(charge=self._charge(item, since, now)))

    def note_time(self, items: Iterable[Item], now: float) -> None:
        """Each whole stretch of what is still on is a charge, and a new one begins."""
        for item in items:
            since = self._running.get(item.item_id, now)
            while now - since >= item.stretch_s:
                charge = self._charge(item, since, since + item.stretch_s)
                since += item.stretch_s
                self._write(_Line(charge=charge, begun=_Begun(item.item_id, since)))

    def published(self, after: int, now: float) -> list[Charge]:
        """Charges with a higher number that are old enough to be known, at most CHARGES_PER_PAGE_MAX."""
        found: list[Charge] = []
        for charge in self._charges[after : after + CHARGES_PER_PAGE_MAX]:
            if charge.until + self._delay_s > now:
                break
            found.append(charge)
        return found

    def _charge(self, item: Item, since: float, now: float) -> Charge:
        minutes = -(-max(1, int(now - since)) // MINUTE_S)
        exact = cost_micros(minutes * MINUTE_S, item.price_usd_micros_per_hour)
        number = len(self._charges) + 1
        return Charge(
            number=number,
            charge_id=f"chg_{number}_{item.item_id}",
            machine_id=item.item_id,
            label=item.label,
            since=since,
            until=now,
            usd_micros=-(-exact // CENT_USD_MICROS) * CENT_USD_MICROS,
            is_volume=item.stretch_s == DAY_S,
        )

    def _write(self, line: _Line) -> None:
        self._take(line)
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")

    def _take(self, line: _Line) -> None:
        if line.charge is not None:
            self._running.pop(line.charge.machine_id, None)
            self._charges.append(line.charge)
        if line.begun is not None:
            self._running[line.begun.machine_id] = line.begun.since
