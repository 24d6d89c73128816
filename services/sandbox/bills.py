"""What the sandbox cloud charges its customer, as real clouds do: as it goes, late, by the whole minute, rounded up to
the cent.

Used by `cloud` (which says when a machine runs) and `routes`. Owns `bills.jsonl`: lines that say that a machine began
to run, or what a stretch of running came to. A long stretch is charged by the hour. A charge is published
`charge_delay_s` after its stretch ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from libs.money import cost_micros
from services.sandbox.records import Record
from services.sandbox.wire import MachineStatus

MINUTE_S = 60
HOUR_S = 3_600
CENT_USD_MICROS = 10_000
CHARGES_PER_PAGE_MAX = 1_000


class Charge(Struct, frozen=True):
    """One stretch of running. `number` counts up; times are unix seconds."""

    number: int
    charge_id: str
    machine_id: str
    label: str
    since: float
    until: float
    usd_micros: int


class _Begun(Struct, frozen=True):
    machine_id: str
    since: float


class _Line(Struct, frozen=True, omit_defaults=True):
    begun: _Begun | None = None
    charge: Charge | None = None


class Bills:
    """All charges ever made, and what runs unbilled. Small: a charge per stretch of running."""

    def __init__(self, directory: Path, delay_s: float) -> None:
        self._path = directory / "bills.jsonl"
        self._delay_s = delay_s
        self._running: dict[str, float] = {}
        self._charges: list[Charge] = []
        if self._path.exists():
            for line in self._path.read_bytes().splitlines():
                self._take(msgspec.json.decode(line, type=_Line))

    def note(self, record: Record, status: MachineStatus, now: float) -> None:
        """A machine has changed its status: a stretch of running begins, or is charged."""
        since = self._running.get(record.machine_id)
        if status == "running" and since is None:
            self._write(_Line(begun=_Begun(record.machine_id, now)))
        elif status != "running" and since is not None:
            self._write(_Line(charge=self._charge(record, since, now)))

    def note_time(self, running: Iterable[Record], now: float) -> None:
        """Each whole hour of what still runs is a charge, and a new stretch begins."""
        for record in running:
            since = self._running.get(record.machine_id, now)
            while now - since >= HOUR_S:
                charge = self._charge(record, since, since + HOUR_S)
                since += HOUR_S
                self._write(_Line(charge=charge, begun=_Begun(record.machine_id, since)))

    def published(self, after: int, now: float) -> list[Charge]:
        """Charges with a higher number that are old enough to be known, at most CHARGES_PER_PAGE_MAX."""
        found: list[Charge] = []
        for charge in self._charges[after : after + CHARGES_PER_PAGE_MAX]:
            if charge.until + self._delay_s > now:
                break
            found.append(charge)
        return found

    def _charge(self, record: Record, since: float, now: float) -> Charge:
        minutes = -(-max(1, int(now - since)) // MINUTE_S)
        exact = cost_micros(minutes * MINUTE_S, record.price_usd_micros_per_hour)
        number = len(self._charges) + 1
        return Charge(
            number=number,
            charge_id=f"chg_{number}_{record.machine_id}",
            machine_id=record.machine_id,
            label=record.label,
            since=since,
            until=now,
            usd_micros=-(-exact // CENT_USD_MICROS) * CENT_USD_MICROS,
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
