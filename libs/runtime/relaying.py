"""Relay: a service's public events go from its private stream to PUB, in order, each exactly once.

Run by the replica that holds the service's lease. Owns the cursor `relay` and its companion, the PUB sequence at that
moment.

After a crash the messages published since the cursor was saved are found by reading PUB from the companion on, so the
exactly-once promise does not rest on the two-minute deduplication window (which is only a second line of defence).
Events of one instance keep their order; events of different instances are published side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from libs.clock import Clock
from libs.eventlog import EventLog
from libs.eventlog.wire import header
from libs.refusal import Transient
from libs.runtime.listening import PUBLIC_STREAM, OwnStream, closing
from libs.runtime.store import Store
from proto.base import Event, Heard

RELAY_CURSOR = "relay"
SAVE_INTERVAL_S = 0.5  # a crash costs one read of PUB since the last save, so saving more often buys nothing
RETRY_PAUSE_S = 0.2


class Relay:
    """Publishes for ever; `seq` is how far it has come."""

    def __init__(self, service: str, own: OwnStream, log: EventLog, store: Store, clock: Clock) -> None:
        self._service = service
        self._source = f"/dumont/{service}"
        self._own = own
        self._log = log
        self._store = store
        self._clock = clock
        self._encoder = msgspec.json.Encoder()
        self._published: set[str] = set()  # found in PUB at start: stored before the cursor was saved
        self._public_seq = 0
        self.seq = 0

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except Transient:
                await self._clock.sleep(RETRY_PAUSE_S)

    async def _follow(self) -> None:
        self.seq, companion = await self._store.cursor(RELAY_CURSOR)
        self._public_seq = max(self._public_seq, companion)
        await self._find_published(companion)
        saved_at_s = self._clock.monotonic_s()
        async for batch in self._own.follow_heard(self.seq):
            waves = self._waves([heard for _, events in batch for heard in events])
            for wave in waves:
                outcomes = await asyncio.gather(*map(self._publish, wave), return_exceptions=True)
                for outcome in outcomes:
                    if isinstance(outcome, BaseException):
                        raise outcome
            self.seq = batch[-1][0]
            self._published.difference_update(heard.event_id for _, events in batch for heard in events)
            # While events ahead of us stand in PUB already, its newest sequence would hide them from the next life.
            if not self._published and self._clock.monotonic_s() - saved_at_s >= SAVE_INTERVAL_S:
                await self._store.save_cursor(RELAY_CURSOR, self.seq, self._public_seq)
                saved_at_s = self._clock.monotonic_s()

    def _waves(self, events: list[Heard]) -> list[list[Heard]]:
        """The n-th event of every aggregate goes into the n-th wave: order within one, speed across all."""
        waves: list[list[Heard]] = []
        position: dict[str, int] = {}
        for heard in events:
            if not heard.event.public or heard.event_id in self._published:
                continue
            wave = position.get(heard.aggregate_id, 0)
            position[heard.aggregate_id] = wave + 1
            if wave == len(waves):
                waves.append([])
            waves[wave].append(heard)
        return waves

    async def _publish(self, heard: Heard) -> None:
        subject, headers = envelope(heard, self._source)
        seq = await self._log.publish(
            PUBLIC_STREAM, subject, self._encoder.encode(heard.event), message_id=heard.event_id, headers=headers
        )
        self._public_seq = max(self._public_seq, seq)

    async def _find_published(self, after_seq: int) -> None:
        last_seq = await self._log.last_seq(PUBLIC_STREAM)
        if last_seq <= after_seq:
            return
        source = self._source
        async with closing(self._log.follow(PUBLIC_STREAM, after_seq=after_seq)) as batches:
            async for batch in batches:
                for stored in batch:
                    if header(stored.headers, b"ce-source").decode() == source:
                        self._published.add(header(stored.headers, b"ce-id").decode())
                if batch[-1].seq >= last_seq:
                    return


def envelope(heard: Heard, source: str) -> tuple[str, Mapping[str, str]]:
    """Subject and CloudEvents binary-mode headers of a public event (design 3)."""
    wire_name = wire_name_of(heard.event)
    headers = {
        "ce-specversion": "1.0",
        "ce-id": heard.event_id,
        "ce-type": wire_name,
        "ce-source": source,
        "ce-subject": heard.aggregate_id,
        "ce-time": rfc3339(heard.at),
        "content-type": "application/json",
    }
    if heard.correlation:
        headers["ce-correlationid"] = heard.correlation
    if heard.trace:
        headers["traceparent"] = heard.trace
    return f"pub.{account_of(heard.event)}.{wire_name}", headers


def wire_name_of(event: Event) -> str:
    """The tag: `instance.created`."""
    tag = event.__struct_config__.tag
    assert isinstance(tag, str), f"{type(event).__name__} has no wire name"
    return tag


def account_of(event: Event) -> str:
    """Whose event it is. Every public event has the field (a tidy test says so)."""
    account_id: str = getattr(event, "account_id")  # noqa: B009 - the base class has no such field, public ones do
    return account_id


def rfc3339(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
