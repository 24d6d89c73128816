"""What effects, queries and background tasks of the instance service live in: clouds, clock, secret, database.

Made by `__main__` (and by the simulation). Owns the short-lived caches that make many callers ask the outside only
once.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp

from libs.clock import Clock
from libs.config import Secret
from libs.postgres import Database
from libs.refusal import Transient
from libs.runtime.recent import Recent
from libs.s3 import Objects
from libs.telemetry import Logger
from proto.instance.words import Offer
from services.instance.decider.market import Lot, Stock, lot_of
from services.instance.providers import Provider, TellsCharges

MARKET_AGE_MAX_S = 2.0  # a market older than this is asked for again
MARKET_AGE_FRESH_S = 0.25  # one not older than this is believed when it says that there is nothing


@dataclass
class Market:
    """The offers of all clouds as last seen, and what this replica was refused since (`stock`). `models`: every GPU
    model ever seen, so that sold out is not unknown. `gpus_ordered`: whose order is not answered yet."""

    stock: Stock = field(default_factory=Stock)
    seen_at_s: float | None = None
    models: set[str] = field(default_factory=set[str])
    gpus_ordered: Counter[Lot] = field(default_factory=Counter[Lot])
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class World:
    """Outside of the instance service."""

    providers: Mapping[str, Provider]
    clock: Clock
    random: random.Random
    secret: Secret
    gateway_url: str
    http: aiohttp.ClientSession
    pool: Database
    logger: Logger
    poll_s: float = 10.0
    orphan_seen_s: float = 30.0
    orphan_grace_s: float = 600.0
    heartbeat_s: float = 30.0
    heartbeat_misses_max: int = 3
    heartbeat_loss_s: float = 300.0
    storage: Objects | None = None  # where snapshots go; None: this installation takes none
    snapshot_interval_s: float = 0.0  # 0: only when asked for
    hibernate_idle_s: float = 0.0  # 0: only when asked for
    hibernate_notice_s: float = 0.0
    market: Market = field(default_factory=Market)
    recent: Recent = field(default_factory=Recent)
    bills: Mapping[str, TellsCharges] = field(default_factory=dict[str, TellsCharges])  # clouds that tell charges
    billed: dict[str, int] = field(default_factory=dict[str, int])  # the newest charge told, by cloud

    async def offers(self, age_s_max: float = MARKET_AGE_MAX_S) -> Stock:
        """Everything one could rent now at any cloud, at most so old. Transient when no cloud answers."""
        async with self.market.lock:
            seen_at_s = self.market.seen_at_s
            if seen_at_s is None or self.clock.monotonic_s() - seen_at_s > age_s_max:
                self.market.stock = Stock(await _ask_all(self.providers))
                self.market.seen_at_s = self.clock.monotonic_s()
                self.market.models |= self.market.stock.models
            return self.market.stock

    def is_gone(self, offer: Offer, decided_at: datetime) -> bool:
        """Whether a listing as new as that of a decision, or a refusal after it, says that an offer is not to be had.

        A replica whose listing is older than that knows nothing of the offer.
        """
        if self.market.seen_at_s is None:
            return False
        age_s = self.clock.monotonic_s() - self.market.seen_at_s
        is_as_new = age_s <= (self.clock.now() - decided_at).total_seconds() + MARKET_AGE_MAX_S
        return is_as_new and not self.market.stock.has(offer)

    @contextmanager
    def ordering(self, offer: Offer) -> Generator[None]:
        """While a cloud is asked for it."""
        ordered, lot = self.market.gpus_ordered, lot_of(offer)
        ordered[lot] += offer.gpu_count
        try:
            yield
        finally:
            ordered[lot] -= offer.gpu_count
            if not ordered[lot]:
                del ordered[lot]

    def is_crowded(self, offer: Offer) -> bool:
        """Whether others are just ordering all that its host surely has."""
        lot = lot_of(offer)
        return self.market.gpus_ordered[lot] + offer.gpu_count > self.market.stock.gpus_of(lot)

    def forget_offers(self, stock: Stock) -> None:
        """This market has turned out to be out of date: ask again next time, unless somebody has done so meanwhile."""
        if stock is self.market.stock:
            self.market.seen_at_s = None


async def _ask_all(providers: Mapping[str, Provider]) -> tuple[Offer, ...]:
    """A cloud that does not answer is left out; if none answers, the last one's reason is raised."""
    answers = await asyncio.gather(*(p.offers() for p in providers.values()), return_exceptions=True)
    found: list[Offer] = []
    unwell: Transient | None = None
    for answer in answers:
        if isinstance(answer, Transient):
            unwell = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.extend(answer)
    if unwell is not None and all(isinstance(answer, Transient) for answer in answers):
        raise unwell
    return tuple(found)
