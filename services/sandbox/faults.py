"""What goes wrong next: faults an operator asked for, and those that options leave to luck.

Used by `cloud` (boots, lag) and `routes` (creates, limits). Counts are used up one by one.
"""

from __future__ import annotations

from random import Random

import msgspec
from msgspec import Struct

from services.sandbox.options import PPM_OF_ALL, Options
from services.sandbox.wire import FaultBody


class BootLuck(Struct, frozen=True):
    """How one boot will go."""

    delay_s: float
    fails: bool
    unwell_until: float  # unix seconds; 0: well from the start


class Faults:
    """Armed faults. `list_lag_ms` and `sold_out` hold until they are changed."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._armed = FaultBody(list_lag_ms=options.list_lag_ms)

    def arm(self, body: FaultBody) -> FaultBody:
        """Add `body` to what is armed; its absent fields change nothing. Returns everything armed."""
        said = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not None}
        self._armed = msgspec.structs.replace(self._armed, **said)
        return self._armed

    @property
    def armed(self) -> FaultBody:
        return self._armed

    @property
    def list_lag_ms(self) -> int:
        return self._armed.list_lag_ms or 0

    def create_fails(self, luck: Random) -> bool:
        return self._use("creates_failing") or drawn(luck, self._options.create_failure_ppm)

    def create_times_out(self, luck: Random) -> bool:
        return self._use("creates_timing_out") or drawn(luck, self._options.create_timeout_ppm)

    def request_limited(self) -> bool:
        return self._use("requests_limited")

    def boot(self, luck: Random, now_s: float) -> BootLuck:
        span = self._options.boot_delay_ms
        delay_ms = luck.randint(span.min, span.max)
        if self._use("boots_slow"):
            delay_ms += self._armed.boot_slow_ms or 0
        fails = self._use("boots_failing") or drawn(luck, self._options.boot_failure_ppm)
        unwell_ms = (self._armed.unwell_ms or 0) if self._use("boots_unwell") else 0
        unwell_until = now_s + (delay_ms + unwell_ms) / 1000 if unwell_ms else 0.0
        return BootLuck(delay_ms / 1000, fails, unwell_until)

    def _use(self, name: str) -> bool:
        left = getattr(self._armed, name)
        if not left:
            return False
        self._armed = msgspec.structs.replace(self._armed, **{name: left - 1})
        return True


def drawn(luck: Random, ppm: int) -> bool:
    return ppm > 0 and luck.randrange(PPM_OF_ALL) < ppm
