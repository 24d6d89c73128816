"""Hear events in order: decode a service's own stream and the public stream for whoever listens.

Used by `projecting`, `relaying` and `hands`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence, Set
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec

from libs.eventlog import EventLog, Stored
from libs.eventlog.wire import header
from libs.runtime.codec import EventDecoder, stream_of
from libs.runtime.courtesy import Courtesy
from libs.runtime.service import Service
from libs.runtime.tail import Decoded, Tail
from proto.base import Heard

PUBLIC_STREAM = "PUB"


class OwnStream:
    """The private stream of one service, decoded."""

    def __init__(self, service: Service, log: EventLog, courtesy: Courtesy) -> None:
        self.stream = stream_of(service.name)
        self._log = log
        self._courtesy = courtesy
        self._unheard = {a.kind for a in service.aggregates if not a.is_heard}
        self._decoders = {a.kind: EventDecoder(a.events, service.upcast) for a in service.aggregates}
        self._tail = Tail()

    async def read(self, after_seq: int) -> None:
        """Read what comes after `after_seq` once for all followers, for ever. Without it each reads alone."""
        async with aclosing(self._alone(after_seq)) as batches:
            await self._tail.read(batches, after_seq)

    def follow(self, after_seq: int) -> AsyncGenerator[list[tuple[int, list[Heard]]], None]:
        """Batches of (sequence, events of that commit), for ever."""
        return self._batches(after_seq, frozenset())

    def follow_heard(self, after_seq: int) -> AsyncGenerator[list[tuple[int, list[Heard]]], None]:
        """The same without the events of aggregates that nobody hears of."""
        return self._batches(after_seq, self._unheard)

    async def replay(self, after_seq: int) -> AsyncGenerator[tuple[Iterator[Heard], int], None]:
        """Batches of (their events, the sequence they reach up to), for ever.

        Each commit is decoded when its first event is asked for: taken through to the end one by one, events are still
        in the processor's cache when they are worked on, which makes replaying a long log twice as fast.
        """
        async with closing(self._log.follow(self.stream, after_seq=after_seq)) as batches:
            async for batch in batches:
                yield self._decoded(batch), batch[-1].seq

    def _decoded(self, batch: Sequence[Stored]) -> Iterator[Heard]:
        for stored in batch:
            yield from self.decode(stored)

    async def _batches(self, after_seq: int, without: Set[str]) -> AsyncGenerator[list[tuple[int, list[Heard]]], None]:
        while True:
            is_shared = self._tail.has_what_follows(after_seq)
            source = self._tail.follow(after_seq) if is_shared else self._alone(after_seq, without)
            async with aclosing(source) as batches:
                async for batch in batches:
                    yield [(seq, [] if kind in without else events) for seq, kind, events in batch]
                    after_seq = batch[-1].seq
                    await self._courtesy.let_gather()
                    if not is_shared and self._tail.has_what_follows(after_seq):
                        break

    async def _alone(self, after_seq: int, without: Set[str] = frozenset()) -> AsyncGenerator[list[Decoded], None]:
        async with closing(self._log.follow(self.stream, after_seq=after_seq)) as batches:
            async for batch in batches:
                yield [self._commit(stored, without) for stored in batch]

    def _commit(self, stored: Stored, without: Set[str]) -> Decoded:
        kind = stored.subject.split(".", 3)[2]
        return Decoded(stored.seq, kind, [] if kind in without else self.decode(stored))

    def decode(self, stored: Stored) -> list[Heard]:
        _, _, kind, aggregate_id = stored.subject.split(".", 3)
        return self._decoders[kind].heard(stored, aggregate_id, self.stream)


class PublicStream:
    """What other services say, as far as this service wants to hear it."""

    def __init__(self, service: Service, log: EventLog) -> None:
        self.subjects = list(service.hears)
        self._log = log
        self._decoder = EventDecoder(service.hears_events, service.upcast) if service.hears else None

    async def follow(self, after_seq: int) -> AsyncGenerator[list[tuple[int, list[Heard]]], None]:
        assert self._decoder is not None, "a service that hears nothing does not follow PUB"
        async with closing(self._log.follow(PUBLIC_STREAM, after_seq=after_seq, subjects=self.subjects)) as batches:
            async for batch in batches:
                yield [(stored.seq, [self._heard(stored)]) for stored in batch]

    def _heard(self, stored: Stored) -> Heard:
        assert self._decoder is not None
        return Heard(
            event=self._decoder.decode(stored.data),
            event_id=header(stored.headers, b"ce-id").decode(),
            aggregate_id=header(stored.headers, b"ce-subject").decode(),
            at=msgspec.convert(header(stored.headers, b"ce-time").decode(), datetime, strict=False),
            stream=PUBLIC_STREAM,
            seq=stored.seq,
            correlation=header(stored.headers, b"ce-correlationid").decode(),
            trace=header(stored.headers, b"traceparent").decode(),
        )


@contextlib.asynccontextmanager
async def closing(batches: AsyncIterator[Sequence[Stored]]) -> AsyncGenerator[AsyncIterator[Sequence[Stored]], None]:
    """Close a follower at once when its reader leaves: left to the garbage collector it would keep its consumer."""
    try:
        yield batches
    finally:
        close: Any = getattr(batches, "aclose", None)
        if close is not None:
            await close()
