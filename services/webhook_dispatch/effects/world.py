"""What the effects, the dispatcher and the queries of webhook dispatch live in. Made by `__main__` (and by tests)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.clock import Clock
from libs.eventlog import EventLog
from libs.postgres import Database
from libs.runtime.store import Store
from libs.sealing import Sealer
from libs.signing import Keys, keys_of
from libs.telemetry import Logger, Metrics
from services.webhook_dispatch.effects.posting import Poster

if TYPE_CHECKING:
    from services.webhook_dispatch.effects.dispatching import Dispatcher

KEYS_CACHED_MAX = 10_000


class Instruments:
    """What the dispatcher measures of itself; names are part of the operators' interface."""

    def __init__(self, metrics: Metrics) -> None:
        self.attempts = metrics.histogram(
            "dumont_webhook_attempt_seconds", "Time of one POST to a receiver.", ("outcome",)
        )
        self.first_attempts = metrics.histogram(
            "dumont_webhook_first_attempt_delay_seconds", "From the fact to its first POST.", ("kind",)
        )
        self.backlog = metrics.gauge("dumont_webhook_backlog", "Deliveries waiting, in flight or to be tried again.")


@dataclass
class World:
    """`dispatcher` is there while this process holds the lease."""

    log: EventLog
    store: Store
    pool: Database
    clock: Clock
    random: random.Random
    sealer: Sealer
    platform_key: Ed25519PrivateKey
    poster: Poster
    logger: Logger
    instruments: Instruments
    pace_ppm: int = 1_000_000
    dispatcher: Dispatcher | None = None
    keys: dict[tuple[str, ...], Keys] = field(default_factory=dict[tuple[str, ...], Keys])

    def keys_for(self, owner: str, *sealed: str) -> Keys:
        """Opened once and remembered."""
        found = self.keys.get(sealed)
        if found is None:
            if len(self.keys) >= KEYS_CACHED_MAX:
                self.keys.clear()
            found = self.keys[sealed] = keys_of(*(self.sealer.open(each, owner=owner) for each in sealed if each))
        return found
