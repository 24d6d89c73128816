"""Who follows which events live, and what is handed to them.

One per gateway. Owns the one reader of PUB, the ring, the channels (clients that want the same share the bytes and one
turn of the loop) and the limits on how many may follow. Nothing is kept per client but its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime

from libs.clock import Clock
from libs.eventlog import READ_BATCH_MAX, EventLog
from libs.eventlog.wire import header
from libs.refusal import Refused, Transient
from libs.runtime.listening import PUBLIC_STREAM
from libs.telemetry import Metrics, logger
from proto.webhook_dispatch.words import wants
from services.gateway.feed.ring import SLICE_EVENTS_MAX, Ring, Told, told
from services.gateway.feed.stream import Stream, chunked

FOLLOW_RETRY_S = 0.5
GATHER_S = 0.01  # events of these milliseconds leave in one write per client; the first after a pause leaves at once
BEAT_INTERVAL_S = 15.0  # proxies cut what is quiet for 30 to 60 s
FOLLOWERS_MAX = 4_000  # about 20 kB each with their connections
FOLLOWERS_OF_ACCOUNT_MAX = 1_000
PAGES_AT_ONCE_MAX = 8  # of all who catch up; each is one request to the log and at most 8 MiB
PAGES_OF_READ_MAX = 10  # then the caller is told how far that was, and asks again
PAGES_OF_SEARCH_MAX = 50
BUSY_RETRY_S = 5
HEARTBEAT = b": alive\n\n"

_log = logger("feed")


class Channel:
    """Everybody who follows the same events of the same account."""

    def __init__(self) -> None:
        self.streams: dict[Stream, Callable[[], bool]] = {}  # with the question whether it may still listen
        self.waiting: set[asyncio.Future[None]] = set()
        self.users = 0
        self._pending: list[bytes] = []

    def add(self, event: Told) -> None:
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)
        if self.streams:
            self._pending.append(event.frame)

    def flush(self) -> None:
        """Hand over what has come together. In one go, so that nobody joins between two clients."""
        if self._pending:
            data = b"".join(self._pending)
            self._pending.clear()
            self.push(data)

    def push(self, data: bytes) -> None:
        chunk = chunked(data)
        for stream in self.streams:
            stream.push(data, chunk)


class Feed:
    """`follow` and `push` are tasks of the gateway."""

    def __init__(self, log: EventLog, clock: Clock, metrics: Metrics) -> None:
        self._log = log
        self._clock = clock
        self.ring = Ring()
        self._channels: dict[str, dict[frozenset[str], Channel]] = {}
        self._dirty: set[Channel] = set()
        self._wake = asyncio.Event()
        self._followers: dict[str, int] = {}
        self._pages = asyncio.Semaphore(PAGES_AT_ONCE_MAX)
        self._is_closing = False
        self._is_begun = False
        metrics.gauge_read(
            "dumont_event_followers", "Open event streams and waiting polls.", lambda: sum(self._followers.values())
        )
        self._ended = metrics.counter("dumont_event_streams_ended_total", "Event streams that are over.", ("reason",))

    # --- the reader -----------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Read PUB for ever, from where it stands now."""
        while True:
            try:
                if not self._is_begun:
                    self.ring.begin(await self._log.last_seq(PUBLIC_STREAM))
                    self._is_begun = True
                async for batch in self._log.follow(PUBLIC_STREAM, after_seq=self.ring.head):
                    for stored in batch:
                        event = told(stored)
                        if event is not None:
                            self.ring.add(event)
                            self._offer(event)
                    self.ring.head = batch[-1].seq
            except Transient as unwell:
                _log.warning("feed.log_away", cause=repr(unwell))
                await self._clock.sleep(FOLLOW_RETRY_S)

    async def push(self) -> None:
        """Hand out what comes, and a heartbeat when nothing does."""
        beaten_s = self._clock.monotonic_s()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, beaten_s + BEAT_INTERVAL_S - self._clock.monotonic_s())):
                    await self._wake.wait()
            self._wake.clear()
            dirty, self._dirty = self._dirty, set()
            for channel in dirty:
                channel.flush()
            if self._clock.monotonic_s() >= beaten_s + BEAT_INTERVAL_S:
                beaten_s = self._clock.monotonic_s()
                self.recheck()
                for channel in self._all():
                    channel.push(HEARTBEAT)
            await self._clock.sleep(GATHER_S)

    def recheck(self) -> None:
        """Whose key was revoked or has expired hears no more."""
        for channel in self._all():
            for stream, is_allowed in channel.streams.items():
                if not is_allowed():
                    stream.end("revoked")

    def close(self) -> None:
        """The gateway stops: streams end, polls are answered with what there is."""
        self._is_closing = True
        for channel in self._all():
            channel.flush()
            for stream in channel.streams:
                stream.end("closing")
            for waiting in channel.waiting:
                if not waiting.done():
                    waiting.set_result(None)

    # --- reading --------------------------------------------------------------------------------------------------

    async def read(
        self, account_id: str, filters: Collection[str], after_seq: int, limit: int
    ) -> tuple[Sequence[Told], int, bool]:
        """Events after a sequence, how far that is, and whether there is more. Raises Transient."""
        position, found = after_seq, list[Told]()
        for _ in range(PAGES_OF_READ_MAX):
            if position < self.ring.floor:
                page, position = await self._page(account_id, filters, position)
                found += page
            else:
                recent, position = self.ring.since(account_id, filters, position)
                found += recent
                if len(recent) < SLICE_EVENTS_MAX and len(found) <= limit:
                    return found, position, False
            if len(found) > limit:
                return found[:limit], found[limit - 1].seq, True
        return found, position, True

    async def find(self, account_id: str, event_id: str, since: datetime) -> int | None:
        """Where an event stands in PUB; it was stored `since` then. Raises Transient."""
        known = self.ring.seq_of(account_id, event_id)
        if known is not None:
            return known
        position, wanted = 0, event_id.encode()
        for _ in range(PAGES_OF_SEARCH_MAX):
            async with self._pages:
                page = await self._log.page(
                    PUBLIC_STREAM, subjects_of(account_id), after_seq=position, limit=READ_BATCH_MAX, since=since
                )
            for stored in page.messages:
                if header(stored.headers, b"ce-id") == wanted:
                    return stored.seq
            if not page.has_more:
                return None
            position = page.messages[-1].seq
        return None

    async def wait(self, account_id: str, filters: frozenset[str], after_seq: int, wait_s: float) -> None:
        """Until there is something after the sequence, or the time is over. Raises RATE_LIMIT_EXCEEDED."""
        if after_seq < self.ring.floor or self._is_closing or self.ring.since(account_id, filters, after_seq)[0]:
            return
        self.admit(account_id)
        with self._place(account_id), self._channel(account_id, filters) as channel:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            channel.waiting.add(waiting)
            try:
                async with asyncio.timeout(wait_s):
                    await waiting
            except TimeoutError:
                pass  # nothing came: the caller says so and asks again
            finally:
                channel.waiting.discard(waiting)

    # --- following ------------------------------------------------------------------------------------------------

    def require(self) -> None:
        """Raises SERVICE_UNAVAILABLE while we start or stop."""
        if self._is_closing or not self._is_begun:
            raise Refused("SERVICE_UNAVAILABLE", service="gateway", retry_after_s=1)

    def admit(self, account_id: str) -> None:
        """A place for one more. Raises RATE_LIMIT_EXCEEDED."""
        mine, everybody = self._followers.get(account_id, 0), sum(self._followers.values())
        if mine >= FOLLOWERS_OF_ACCOUNT_MAX or everybody >= FOLLOWERS_MAX:
            raise Refused("RATE_LIMIT_EXCEEDED", retry_after_s=BUSY_RETRY_S)

    async def serve(
        self, stream: Stream, account_id: str, filters: frozenset[str], after_seq: int, is_allowed: Callable[[], bool]
    ) -> None:
        """Everything after a sequence, then what happens, until the stream ends."""
        with self._place(account_id), self._channel(account_id, filters) as channel:
            try:
                await self._catch_up(stream, account_id, filters, after_seq, channel)
                channel.streams[stream] = is_allowed
                await stream.ended
            except Transient as unwell:
                _log.warning("feed.stream_ended", account_id=account_id, cause=repr(unwell))
                stream.end("unwell")  # the client comes back with the last id it has
            finally:
                channel.streams.pop(stream, None)
                self._ended.add((stream.ended.result() if stream.ended.done() else "gone",))

    async def _catch_up(
        self, stream: Stream, account_id: str, filters: frozenset[str], after_seq: int, channel: Channel
    ) -> None:
        """From the log, then from the ring. Between the last look at the ring and the return nothing is awaited, so
        the caller joins the channel just there."""
        position, has_more = after_seq, True
        while not stream.ended.done():
            if self._is_closing:
                stream.end("closing")
                return
            if position >= self.ring.floor and not has_more:
                channel.flush()  # to those who are here: the newcomer has it from the ring
                found, _ = self.ring.since(account_id, filters, position)
                if found:
                    data = _frames(found)
                    stream.push(data, chunked(data))
                return
            found, position, has_more = await self.read(account_id, filters, position, SLICE_EVENTS_MAX)
            if found:
                await stream.send(_frames(found))

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _page(self, account_id: str, filters: Collection[str], after_seq: int) -> tuple[list[Told], int]:
        floor = self.ring.floor
        async with self._pages:
            page = await self._log.page(
                PUBLIC_STREAM, subjects_of(account_id), after_seq=after_seq, limit=READ_BATCH_MAX
            )
        found = [event for event in map(told, page.messages) if event is not None and wants(filters, event.event_type)]
        reached = page.messages[-1].seq if page.messages else after_seq
        return found, reached if page.has_more else max(reached, floor)

    def _offer(self, event: Told) -> None:
        for filters, channel in self._channels.get(event.account_id, {}).items():
            if wants(filters, event.event_type):
                channel.add(event)
                self._dirty.add(channel)
                self._wake.set()

    def _all(self) -> list[Channel]:
        return [channel for channels in self._channels.values() for channel in channels.values()]

    @contextmanager
    def _place(self, account_id: str) -> Generator[None, None, None]:
        self._followers[account_id] = self._followers.get(account_id, 0) + 1
        try:
            yield
        finally:
            self._followers[account_id] -= 1
            if not self._followers[account_id]:
                del self._followers[account_id]

    @contextmanager
    def _channel(self, account_id: str, filters: frozenset[str]) -> Generator[Channel, None, None]:
        """The one of everybody who wants the same; there as long as somebody uses it."""
        channels = self._channels.setdefault(account_id, {})
        channel = channels.setdefault(filters, Channel())
        channel.users += 1
        try:
            yield channel
        finally:
            channel.users -= 1
            if not channel.users:
                del channels[filters]
            if not channels:
                self._channels.pop(account_id, None)


def subjects_of(account_id: str) -> str:
    return f"pub.{account_id}.>"


def _frames(events: Sequence[Told]) -> bytes:
    return b"".join([event.frame for event in events])
