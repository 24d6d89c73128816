"""The event log port: append with an expectation, read one subject, follow a stream.

Called by `libs.runtime`; implemented by `jetstream.py` (nats-server) and `memory.py` (simulation and specs), which
pass one conformance suite (`libs/spec/eventlog_contract.py`). Only composition roots, `libs.embedded`, `libs.spec` and
`libs.sim` may choose an adapter.

Ground rules (docs/adr/0001):
- One message is one commit, so a commit is atomic by nature.
- Optimistic concurrency is per exact subject; the expectation is the *stream* sequence of the subject's last message
  (0 = the subject is empty), not an aggregate version.
- A timeout or lost connection leaves the outcome unknown (`AppendUnknown`): the caller reads the subject's tail and
  looks for its own commit id. The log never publishes again by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from msgspec import Struct

from libs.refusal import OutcomeUnknown, Transient

READ_BATCH_MAX = 1000
FOLLOW_BATCH_MAX = 1000


class Stored(Struct, frozen=True, gc=False):
    """One message of a stream. `data` is the raw body; `headers` stay unparsed until asked for."""

    seq: int
    subject: str
    data: bytes
    headers: bytes = b""


class Page(NamedTuple):
    """A stretch of a stream as `page` found it. `has_more`: messages that match stood behind it at that moment."""

    messages: Sequence[Stored]
    has_more: bool


class WrongExpectation(Exception):
    """Somebody else wrote to this subject first (definitive: JetStream error 10071)."""


class Contended(Transient):
    """Another write to this subject is in flight (JetStream 10164): read again after a short pause."""


class AppendUnknown(OutcomeUnknown):
    """No answer came: the commit may or may not be stored."""


class EventLog(Protocol):
    """Durable, ordered streams of messages."""

    async def append(self, stream: str, subject: str, data: bytes, *, expected_seq: int) -> int:
        """Store one commit if the subject's last message has `expected_seq`; return the new sequence, once durable.

        Raises WrongExpectation, Contended or AppendUnknown.
        """
        ...

    async def publish(
        self, stream: str, subject: str, data: bytes, *, message_id: str, headers: Mapping[str, str]
    ) -> int:
        """Store one message without an expectation; a repeat of `message_id` within the dedup window is stored once."""
        ...

    async def read(self, stream: str, subject: str, *, after_seq: int = 0) -> Sequence[Stored]:
        """All messages of one exact subject after a sequence, oldest first. Sees every append acknowledged before."""
        ...

    async def page(
        self, stream: str, subjects: str, *, after_seq: int, limit: int, since: datetime | None = None
    ) -> Page:
        """The first messages after a sequence whose subject fits the filter `subjects` (`pub.acct_7.>`), oldest first.

        At most `limit`, itself at most READ_BATCH_MAX, and fewer when they are large. Leaves nothing behind at the
        server, so any number of readers may page. `since`: messages stored before that instant may be left out.
        """
        ...

    async def newest(self, stream: str, subject: str) -> Stored | None:
        """The last message of one exact subject; in a cluster perhaps one that is a moment old."""
        ...

    def follow(self, stream: str, *, after_seq: int, subjects: Sequence[str] = ()) -> AsyncIterator[Sequence[Stored]]:
        """Batches (1..FOLLOW_BATCH_MAX) of messages after a sequence, in order, for ever; survives reconnects.

        `subjects` are filters with wildcards; empty means the whole stream.
        """
        ...

    async def last_seq(self, stream: str) -> int:
        """Sequence of the newest message, 0 when the stream is empty."""
        ...
