"""The event log in memory, deterministic: for specs and the simulation.

Used by `libs.spec` and `libs.sim` (which puts its faults around it). Owns the streams, which appear at their first
use. Passes the same conformance suite as the JetStream log.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from itertools import islice

from libs.eventlog import FOLLOW_BATCH_MAX, READ_BATCH_MAX, Page, Stored, WrongExpectation
from libs.eventlog.wire import header_block
from proto.base import COMMIT_BYTES_MAX


class _Stream:
    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.by_subject: defaultdict[str, list[Stored]] = defaultdict(list)
        self.by_message_id: dict[str, int] = {}
        self.changed = asyncio.Event()

    def store(self, subject: str, data: bytes, headers: bytes) -> int:
        message = Stored(len(self.messages) + 1, subject, data, headers)
        self.messages.append(message)
        self.by_subject[subject].append(message)
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        return message.seq


class MemoryLog:
    """The `EventLog` port. Duplicates are known for ever, as if the dedup window had no end."""

    def __init__(self) -> None:
        self._streams: defaultdict[str, _Stream] = defaultdict(_Stream)

    async def append(self, stream: str, subject: str, data: bytes, *, expected_seq: int) -> int:
        if len(data) > COMMIT_BYTES_MAX:
            raise ValueError(f"a commit of {len(data)} bytes is over the limit of {COMMIT_BYTES_MAX}")
        _require_exact(subject)
        held = self._streams[stream]
        earlier = held.by_subject.get(subject)
        if (earlier[-1].seq if earlier else 0) != expected_seq:
            raise WrongExpectation(subject)
        return held.store(subject, data, b"")

    async def publish(
        self, stream: str, subject: str, data: bytes, *, message_id: str, headers: Mapping[str, str]
    ) -> int:
        _require_exact(subject)
        held = self._streams[stream]
        if message_id not in held.by_message_id:
            block = header_block({"Nats-Msg-Id": message_id, **headers})
            held.by_message_id[message_id] = held.store(subject, data, block)
        return held.by_message_id[message_id]

    async def read(self, stream: str, subject: str, *, after_seq: int = 0) -> Sequence[Stored]:
        _require_exact(subject)
        found = self._streams[stream].by_subject.get(subject, [])
        return found[bisect_right(found, after_seq, key=_seq) :]

    async def page(
        self, stream: str, subjects: str, *, after_seq: int, limit: int, since: datetime | None = None
    ) -> Page:
        del since  # nothing is known of when a message was stored, so nothing is left out
        pattern = subjects.split(".")
        newer = islice(self._streams[stream].messages, after_seq, None)
        fits = (message for message in newer if subject_matches(pattern, message.subject))
        size = min(limit, READ_BATCH_MAX)
        found = list(islice(fits, size + 1))
        return Page(found[:size], len(found) > size)

    async def newest(self, stream: str, subject: str) -> Stored | None:
        _require_exact(subject)
        found = self._streams[stream].by_subject.get(subject)
        return found[-1] if found else None

    async def follow(
        self, stream: str, *, after_seq: int, subjects: Sequence[str] = ()
    ) -> AsyncIterator[Sequence[Stored]]:
        filters = [subject.split(".") for subject in subjects]
        held = self._streams[stream]
        position = after_seq
        while True:
            changed = held.changed
            page = held.messages[position : position + FOLLOW_BATCH_MAX]
            if not page:
                await changed.wait()
                continue
            position = page[-1].seq
            batch = [m for m in page if not filters or any(subject_matches(f, m.subject) for f in filters)]
            if batch:
                yield batch

    async def last_seq(self, stream: str) -> int:
        return len(self._streams[stream].messages)


def subject_matches(pattern: Sequence[str], subject: str) -> bool:
    """Whether a filter, split into tokens, lets a subject through: `*` is one token, a last `>` is one or more."""
    tokens = subject.split(".")
    for index, wanted in enumerate(pattern):
        if wanted == ">":
            return len(tokens) > index
        if index >= len(tokens) or wanted not in ("*", tokens[index]):
            return False
    return len(tokens) == len(pattern)


def _seq(message: Stored) -> int:
    return message.seq


def _require_exact(subject: str) -> None:
    if not all(subject.split(".")) or set(subject) & set("*> \t\r\n"):
        raise ValueError(f"not one exact subject: {subject!r}")
