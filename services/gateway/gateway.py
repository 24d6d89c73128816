"""What the gateway is made of: ports, settings and its own small memories. Made by `__main__` and by tests.

Owns two memories of which any entry may be gone. `Positions`: where an account's and an instance's newest commits
stand, so that a read that follows a write sees it even when the client does not send `X-Dumont-Position` back.
`Protections`: what an account's failover settings say for its new machines, so that not every create asks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from libs.clock import Clock
from libs.ids import Ids
from libs.runtime.bus import Bus
from libs.sealing import Sealer
from libs.telemetry import Logger
from proto.base import Position
from proto.failover.queries import NewMachineProtection
from services.gateway.config import GatewaySettings
from services.gateway.feed.feed import Feed
from services.gateway.keys import Keys
from services.gateway.limits.charging import Limits
from services.gateway.vitals import Vitals

# A projection is normally milliseconds behind; after this long a reader need not wait for it.
POSITION_AGE_S_MAX = 5.0
POSITIONS_MAX = 20_000  # about 200 bytes each
# A change of settings made through this gateway counts at once, one made through another replica within this time.
PROTECTION_AGE_S_MAX = 1.0
PROTECTIONS_MAX = 20_000  # about 300 bytes each

T = TypeVar("T")


class _Recent(Generic[T]):
    """Values by key, each until an instant; beyond `entries_max` the one kept longest goes."""

    def __init__(self, clock: Clock, *, entries_max: int) -> None:
        self._clock = clock
        self._entries_max = entries_max
        self._known: OrderedDict[str, tuple[T, float]] = OrderedDict()

    def keep(self, key: str, value: T, until_s: float) -> bool:
        """Whether another entry had to go."""
        self._known[key] = (value, until_s)
        self._known.move_to_end(key)
        is_full = len(self._known) > self._entries_max
        if is_full:
            self._known.popitem(last=False)
        return is_full

    def find(self, key: str) -> T | None:
        found = self._known.get(key)
        if found is None:
            return None
        value, until_s = found
        if until_s <= self._clock.monotonic_s():
            del self._known[key]
            return None
        return value

    def forget(self, key: str) -> None:
        self._known.pop(key, None)

    def __len__(self) -> int:
        return len(self._known)


class Positions:
    """The newest commit we know of, by instance and by account, for POSITION_AGE_S_MAX seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known = _Recent[Position](clock, entries_max=POSITIONS_MAX)
        self.hits = 0
        self.misses = 0
        self.sets = 0
        self.evictions = 0

    def remember(self, subject: str, position: Position) -> None:
        self.sets += 1
        self.evictions += self._known.keep(subject, position, self._clock.monotonic_s() + POSITION_AGE_S_MAX)

    def last(self, subject: str) -> Position | None:
        found = self._known.find(subject)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    def __len__(self) -> int:
        return len(self._known)


class Protections:
    """By account, for creates that name no strategy of their own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known = _Recent[NewMachineProtection](clock, entries_max=PROTECTIONS_MAX)
        self._changes = 0

    async def of(self, account_id: str, ask: Callable[[], Awaitable[NewMachineProtection]]) -> NewMachineProtection:
        known = self._known.find(account_id)
        if known is not None:
            return known
        changes, asked_at_s = self._changes, self._clock.monotonic_s()
        protection = await ask()
        if changes == self._changes:  # else it may be what held before
            self._known.keep(account_id, protection, asked_at_s + PROTECTION_AGE_S_MAX)
        return protection

    def forget(self, account_id: str) -> None:
        """Its settings have changed."""
        self._changes += 1
        self._known.forget(account_id)


@dataclass
class Gateway:
    """The ports and memories a request may use."""

    settings: GatewaySettings
    bus: Bus
    keys: Keys
    limits: Limits
    vitals: Vitals
    positions: Positions
    protections: Protections
    feed: Feed
    clock: Clock
    ids: Ids
    logger: Logger
    is_connected: Callable[[], bool]
    openapi: Callable[[], bytes]
    specs: Sealer  # of what only a machine may know
