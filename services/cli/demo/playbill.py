"""What a person reads while the demo runs, and the table at its end. Called by `verb` and `acts`."""

from __future__ import annotations

import sys

from services.cli import output
from services.cli.demo.acts import Show
from services.cli.demo.proofs import Proof
from services.cli.demo.timeline import Moment

BOLD, DIM, RED, PLAIN = "\033[1m", "\033[2m", "\033[31m", "\033[0m"
COLUMNS = ("act", "detected", "recovered", "may be lost", "was lost", "files", "events", "proofs")


class Playbill:
    """`quiet`: only what goes wrong is said (for --json)."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._colours = sys.stdout.isatty()
        self._act = 0

    def tell(self, text: str) -> None:
        if not self._quiet:
            output.tell(f"  {text}")

    def act(self, title: str) -> None:
        self._act += 1
        if not self._quiet:
            output.tell(f"\n{self._in(BOLD, f'{self._act}. {title}')}")

    def moment(self, moment: Moment) -> None:
        self.tell(f"{moment.after_ms:>6} ms  {moment.who:<9} {moment.event:<28} {self._in(DIM, moment.facts)}".rstrip())

    def proof(self, proof: Proof) -> None:
        mark = "ok" if proof.holds else self._in(RED, "NO")
        self.tell(f"{mark:>9}  {proof.promise}: {self._in(DIM, proof.seen)}")

    def summary(self, show: Show) -> None:
        output.tell("")
        rows = [
            [
                act.strategy,
                f"{act.detection_ms} ms",
                f"{act.recovery_ms} ms",
                f"{act.data_loss_window_s} s",
                f"{act.measured_loss_s:.1f} s",
                f"{act.files_intact}/{act.files_written}",
                len(act.events),
                f"{sum(proof.holds for proof in act.proofs)}/{len(act.proofs)}",
            ]
            for act in show.acts
        ]
        output.as_table(COLUMNS, rows, empty="nothing was shown")
        output.tell(f"\n{show.took_s + show.started_in_s:.0f} s; everything that was started is stopped again.")

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._colours and text else text
