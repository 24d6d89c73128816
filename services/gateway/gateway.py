"""What the gateway is made of: ports, settings and its own small memories. Made by `__main__` and by tests.

Owns nothing but `Positions`: where an account's and an instance's newest commits stand, so that a read that follows a
write sees it even when the client does not send `X-Dumont-Position` back. It is a courtesy: an entry may be gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from libs.clock import Clock
from libs.ids import Ids
from libs.runtime.bus import Bus
from libs.sealing import Sealer
from libs.telemetry import Logger
from proto.base import Position
from services.gateway.config import GatewaySettings
from services.gateway.feed.feed import Feed
from services.gateway.keys import Keys
from services.gateway.limits.charging import Limits
from services.gateway.vitals import Vitals

# A projection is normally milliseconds behind; after this long a reader need not wait for it.
POSITION_AGE_S_MAX = 5.0
POSITIONS_MAX = 20_000  # about 200 bytes each


class Positions:
    """The newest commit we know of, by instance and by account, for POSITION_AGE_S_MAX seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[Position, float]] = OrderedDict()
        self.hits = 0
        self.misses = 0
        self.sets = 0
        self.evictions = 0

    def remember(self, subject: str, position: Position) -> None:
        self.sets += 1
        self._known[subject] = (position, self._clock.monotonic_s() + POSITION_AGE_S_MAX)
        self._known.move_to_end(subject)
        if len(self._known) > POSITIONS_MAX:
            self._known.popitem(last=False)
            self.evictions += 1

    def last(self, subject: str) -> Position | None:
        found = self._known.get(subject)
        if found is None:
            self.misses += 1
            return None
        if found[1] < self._clock.monotonic_s():
            del self._known[subject]
            self.misses += 1
            return None
        self.hits += 1
        return found[0]

    def __len__(self) -> int:
        return len(self._known)


@dataclass
class Gateway:
    """The ports and memories a request may use."""

    settings: GatewaySettings
    bus: Bus
    keys: Keys
    limits: Limits
    vitals: Vitals
    positions: Positions
    feed: Feed
    clock: Clock
    ids: Ids
    logger: Logger
    is_connected: Callable[[], bool]
    openapi: Callable[[], bytes]
    specs: Sealer  # of what only a machine may know
