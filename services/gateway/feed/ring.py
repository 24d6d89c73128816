"""The newest public events in memory, by account and by id. Owned by the feed; no I/O.

`floor`: everything of PUB above it that customers are told is here. What has fallen out is in the log for ever.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec

from libs.eventlog import Stored
from libs.eventlog.wire import header
from proto.webhook_dispatch.payload import payload
from proto.webhook_dispatch.words import EVENT_TYPES, wants

RING_EVENTS_MAX = 20_000  # a client that was away for a minute at 300 events a second needs no page of the log
RING_BYTES_MAX = 32 * 1024 * 1024
SLICE_EVENTS_MAX = 500  # handed out at once: at most a few hundred kB

_TOLD = frozenset(EVENT_TYPES)
_fields = msgspec.json.Decoder(dict[str, Any])
_seq = attrgetter("seq")


class Told:
    """One event that customers are told. Its bytes are those of a webhook's body, made when first asked for."""

    __slots__ = ("_body", "_frame", "_stored", "account_id", "event_id", "event_type", "seq")

    def __init__(self, stored: Stored, account_id: str, event_type: str) -> None:
        self.seq, self.account_id, self.event_type = stored.seq, account_id, event_type
        self.event_id = header(stored.headers, b"ce-id").decode()
        self._stored = stored
        self._body = b""
        self._frame = b""

    @property
    def size(self) -> int:
        return len(self._stored.data) + len(self._stored.headers)

    @property
    def body(self) -> bytes:
        if not self._body:
            headers = self._stored.headers
            at = msgspec.convert(header(headers, b"ce-time").decode(), datetime, strict=False)
            correlation = header(headers, b"ce-correlationid").decode()
            fields = _fields.decode(self._stored.data)
            self._body = payload(self.event_type, self.event_id, at, fields, correlation=correlation)
        return self._body

    @property
    def frame(self) -> bytes:
        """As server-sent events have it. No name of an event, so that `onmessage` hears all of them."""
        if not self._frame:
            self._frame = b"id: %b\ndata: %b\n\n" % (self.event_id.encode(), self.body)
        return self._frame


def told(stored: Stored) -> Told | None:
    """None for what customers are not told."""
    _, account_id, event_type = stored.subject.split(".", 2)
    return Told(stored, account_id, event_type) if event_type in _TOLD else None


class Ring:
    """Fill it in the order of PUB."""

    def __init__(self) -> None:
        self.floor = 0
        self.head = 0
        self._all: deque[Told] = deque()
        self._bytes = 0
        self._of_account: dict[str, deque[Told]] = {}
        self._of_id: dict[str, Told] = {}

    def begin(self, seq: int) -> None:
        """Nothing is known of PUB up to here."""
        self.floor = self.head = seq

    def add(self, event: Told) -> None:
        self._all.append(event)
        self._of_account.setdefault(event.account_id, deque()).append(event)
        self._of_id[event.event_id] = event
        self._bytes += event.size
        while len(self._all) > RING_EVENTS_MAX or self._bytes > RING_BYTES_MAX:
            self._forget_oldest()

    def seq_of(self, account_id: str, event_id: str) -> int | None:
        found = self._of_id.get(event_id)
        return found.seq if found is not None and found.account_id == account_id else None

    def since(self, account_id: str, filters: Collection[str], after_seq: int) -> tuple[Sequence[Told], int]:
        """Events after a sequence at or above `floor`, at most SLICE_EVENTS_MAX; and how far that is."""
        assert after_seq >= self.floor, "older than what is kept"
        known = self._of_account.get(account_id, ())
        found: list[Told] = []
        for index in range(bisect_right(known, after_seq, key=_seq), len(known)):
            if wants(filters, known[index].event_type):
                found.append(known[index])
                if len(found) == SLICE_EVENTS_MAX:
                    return found, found[-1].seq
        return found, max(after_seq, self.head)

    def _forget_oldest(self) -> None:
        oldest = self._all.popleft()
        self.floor = oldest.seq
        self._bytes -= oldest.size
        del self._of_id[oldest.event_id]
        mine = self._of_account[oldest.account_id]
        mine.popleft()
        if not mine:
            del self._of_account[oldest.account_id]
