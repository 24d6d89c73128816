"""A clock that the test moves. For tests of services in this process; the simulation has a clock of its own."""

from __future__ import annotations

from datetime import datetime, timedelta

from libs.clock import SystemClock


class HandClock(SystemClock):
    """The machine's clock, `ahead` of it by what the test says. Given an instant, it stands there between moves.

    Pauses are real either way, so what waits for others goes on.
    """

    def __init__(self, stands_at: datetime | None = None) -> None:
        self._stands_at = stands_at
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return (self._stands_at or super().now()) + self.ahead

    def monotonic_s(self) -> float:
        from_s = 0.0 if self._stands_at is not None else super().monotonic_s()
        return from_s + self.ahead.total_seconds()

    def wait(self, **how_long: float) -> None:
        """`seconds=`, `minutes=` and so on, as a timedelta takes them."""
        self.ahead += timedelta(**how_long)
