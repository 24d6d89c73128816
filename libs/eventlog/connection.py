"""One connection to NATS: nats-py's client with a fast path for requests, raw publishing and raw subscriptions.

Used by the JetStream log and by `libs.rpc`. TLS, reconnecting, authentication and the subscription table stay nats-
py's; this module owns the wildcard inbox, the requests that wait on it, and the outgoing frames of one turn of the
event loop.

Why protected members of nats-py 2.16 are used (`tests/integration/test_eventlog_connection.py` pins the version):
- `_ps` (parser): replaced by `RoutingParser`, so that our own inbox never builds a `Msg`, a header dict or a queue
  entry.
- `_transport`, `_sid`, `_remove_sub`: raw frames and routes; the public `publish` formats, validates and wakes a
  flusher task for every message (32,000 publishes/s against 100,000+ here).
- `_process_op_err`, `_process_err`, `_process_connect_init`: waiting requests fail at the moment the connection is
  lost; a transport whose peer is frozen is aborted instead of awaited for ever; and no error sent by the server closes
  the client for good.
- `_connect_to_server`, `_flush_pending`: both lose a cancellation; whoever is cancelled while it reconnects or
  subscribes ends all the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, cast

from nats import errors
from nats.aio.client import Client, Srv
from nats.aio.subscription import Subscription

from libs.eventlog.wire import NO_RESPONDERS, STATUS_PREFIX, Deliver, RoutingParser, status_of
from libs.refusal import OutcomeUnknown, Transient
from libs.telemetry import logger

CONNECT_TIMEOUT_S = 2  # one TCP connect and handshake on a network worth using
FIRST_CONNECT_TIMEOUT_S = 15.0  # a server that starts beside us replays its streams first (1 M subjects: 1 s)
RECONNECT_WAIT_S = 0.1  # an outage is as long as the server's restart plus at most this
PING_INTERVAL_S = 5  # a frozen server is noticed after two of these
PINGS_OUTSTANDING_MAX = 2
SETTLE_TIMEOUT_S = 5.0
SWEEP_S = 0.025  # resolution of request time-outs; a sweep over 1,000 waiting requests costs 50 us
WAITING_MAX = 16_384  # requests in flight on one connection; more means that the server has stopped answering

Answer: TypeAlias = tuple[bytes, bytes]  # payload, raw header block
_Waiting: TypeAlias = "tuple[asyncio.Future[Any], float, list[Answer] | None]"

log = logger("eventlog")


class NotSent(Transient):
    """The request never left this process: nothing was done."""


class NoResponders(Transient):
    """The server says that nobody listens to this subject: nothing was done."""


class NoAnswer(OutcomeUnknown):
    """The connection was lost or the time ran out before the answer came."""


class Connection(Client):
    """See the module. Open it with `open_connection`; close it with `close()`."""

    def __init__(self) -> None:
        super().__init__()
        self._routing = RoutingParser(self)
        self._ps = self._routing
        self._loop = asyncio.get_running_loop()
        self._tokens = itertools.count(1)
        self._waiting: dict[bytes, _Waiting] = {}
        self._sweeping = False
        self._frames: list[bytes] = []
        self._flushing = False
        self._up = asyncio.Event()
        self._inbox = b""
        self._lost_callbacks: set[Callable[[], None]] = set()

    # Requests ---------------------------------------------------------------------------------------------------

    async def call(self, subject: str, data: bytes, *, headers: bytes = b"", timeout_s: float) -> Answer:
        """Send and wait for one answer; while reconnecting, wait for the connection first.

        Raises NotSent, NoResponders or NoAnswer.
        """
        if not self.is_connected:
            timeout_s = await self.connected(timeout_s)
        answer = await self.ask(subject, data, headers, timeout_s)
        if answer[1].startswith(STATUS_PREFIX) and status_of(answer[1]) == NO_RESPONDERS:
            raise NoResponders(f"nobody answers on {subject}")
        return answer

    def ask(self, subject: str, data: bytes, headers: bytes, timeout_s: float) -> asyncio.Future[Answer]:
        """Send now; the future holds the answer whatever its status, or NoAnswer. Raises NotSent."""
        return self._ask(subject, data, headers, timeout_s, None)

    def collect(self, subject: str, data: bytes, timeout_s: float) -> asyncio.Future[list[Answer]]:
        """Send now; the future holds all answers up to and including the first that carries a status."""
        return self._ask(subject, data, b"", timeout_s, [])

    def send(self, subject: bytes, data: bytes, *, reply: bytes = b"", headers: bytes = b"") -> None:
        """Publish without waiting; frames of one turn of the loop leave in one write. Lost while disconnected.

        Raises ValueError when the server would refuse the size (it closes the connection over it).
        """
        size = len(headers) + len(data)
        self.require_room(size)
        if headers:
            self._write(b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, len(headers), size, headers, data))
        else:
            self._write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, size, data))

    def require_room(self, size: int) -> None:
        """Raises ValueError when the server would not take a message of so many bytes, headers included."""
        if size > self._max_payload:
            raise ValueError(f"message of {size} bytes is over the server's limit of {self._max_payload}")

    async def connected(self, timeout_s: float) -> float:
        """Wait until connected; return what is left of the time.

        Raises NotSent when it runs out or the client is closed.
        """
        before = self._loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise NotSent("not connected to NATS") from None
        if self.is_closed:
            raise NotSent("the NATS connection is closed")
        return timeout_s - (self._loop.time() - before)

    # Subscriptions ----------------------------------------------------------------------------------------------

    async def listen(self, subject: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        """Subscribe with a callback in the read loop; nats-py subscribes again after a reconnect."""
        sid = self._sid + 1  # the id that `subscribe` takes before it first yields; asserted below
        self._routing.routes[b"%d" % sid] = deliver
        subscribe: Any = cast(Any, super()).subscribe  # nats-py leaves one of its parameters untyped
        subscription: Subscription = await subscribe(subject, queue=queue)
        assert subscription._id == sid, "nats-py numbers its subscriptions differently now"  # pyright: ignore
        try:
            await self._flush_pending(force_flush=True)  # written before anything that we send after it
        except asyncio.CancelledError:
            self.forget(subscription)
            raise
        return subscription

    async def settle(self, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
        """Wait until the server has dealt with everything written so far. Raises NotSent or NoAnswer."""
        left_s = await self.connected(timeout_s)
        token, answered = self._expect(left_s, None)
        self.send(self._inbox + token, b"")  # a letter to ourselves: the server reads one connection in order
        await answered

    async def withdraw(self, subscriptions: Sequence[Subscription]) -> None:
        """End subscriptions of `listen`; what the server had sent before it heard of this is still delivered."""
        if self.is_connected:
            for subscription in subscriptions:
                self._write(b"UNSUB %d\r\n" % subscription._id)  # pyright: ignore[reportPrivateUsage]
            with suppress(Transient):
                await self.settle()
        for subscription in subscriptions:
            self.forget(subscription)

    def forget(self, subscription: Subscription) -> None:
        """End a subscription made by `listen`, without waiting."""
        sid = subscription._id  # pyright: ignore[reportPrivateUsage]
        self._routing.routes.pop(b"%d" % sid, None)
        if self.is_closed:
            return
        self._remove_sub(sid)
        self._write(b"UNSUB %d\r\n" % sid)

    def new_inbox_prefix(self) -> str:
        """A subject prefix that nobody else uses; permissions of restricted users are cut on it."""
        return self.new_inbox()

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called whenever the connection is lost; returns the way to stop that."""
        self._lost_callbacks.add(callback)
        return lambda: self._lost_callbacks.discard(callback)

    # Inside -----------------------------------------------------------------------------------------------------

    def _ask(
        self, subject: str, data: bytes, headers: bytes, timeout_s: float, parts: list[Answer] | None
    ) -> asyncio.Future[Any]:
        if not self.is_connected:
            raise NotSent("not connected to NATS")
        if len(self._waiting) >= WAITING_MAX:
            raise NotSent(f"{WAITING_MAX} requests are waiting for the server already")
        token, future = self._expect(timeout_s, parts)
        try:
            self.send(subject.encode(), data, reply=self._inbox + token, headers=headers)
        except ValueError:
            del self._waiting[token]
            raise
        return future

    def _expect(self, timeout_s: float, parts: list[Answer] | None) -> tuple[bytes, asyncio.Future[Any]]:
        token = b"%x" % next(self._tokens)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[token] = (future, self._loop.time() + timeout_s, parts)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)
        return token, future

    def _on_inbox(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> None:
        token = subject[len(self._inbox) :]
        waiting = self._waiting.get(token)
        if waiting is None:
            return  # too late: its time ran out
        future, _, parts = waiting
        if parts is None:
            del self._waiting[token]
            if not future.done():
                future.set_result((data, headers))
            return
        parts.append((data, headers))
        if headers.startswith(STATUS_PREFIX):
            del self._waiting[token]
            if not future.done():
                future.set_result(parts)

    def _sweep(self) -> None:
        now = self._loop.time()
        overdue = [token for token, (future, due, _) in self._waiting.items() if due <= now or future.done()]
        for token in overdue:
            future = self._waiting.pop(token)[0]
            if not future.done():
                future.set_exception(NoAnswer("no answer in time"))
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            self._loop.call_later(SWEEP_S, self._sweep)

    def _write(self, frame: bytes) -> None:
        self._frames.append(frame)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_frames)

    def _flush_frames(self) -> None:
        self._flushing = False
        frames, self._frames = self._frames, []
        if frames and self.is_connected and self._transport is not None:
            with suppress(RuntimeError):  # uvloop's word for a connection that has just ended; `_lose` says so next
                self._transport.write(b"".join(frames))

    def _lose(self) -> None:
        """The connection is gone: whoever waits is told that the outcome is unknown."""
        self._up.clear()
        self._frames.clear()
        waiting, self._waiting = self._waiting, {}
        for future, _, _ in waiting.values():
            if not future.done():
                future.set_exception(NoAnswer("the connection to NATS was lost"))
        for callback in tuple(self._lost_callbacks):
            callback()

    # nats-py's seams --------------------------------------------------------------------------------------------

    async def _process_connect_init(self) -> None:
        self._ps.reset()  # a read that raced with the loss may have left half a message behind
        await super()._process_connect_init()

    async def _connect_to_server(self, s: Srv) -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError  # `wait_for` of Python 3.11 loses one that meets a refused connect
        await super()._connect_to_server(s)

    async def _flush_pending(self, force_flush: bool = False) -> None:
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        await super()._flush_pending(force_flush)
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError  # nats-py catches it, and then its task waits on for ever

    async def _process_op_err(self, e: Exception) -> None:
        if not (self.is_closed or self.is_reconnecting):
            self._lose()
            self._abort_transport()
        await super()._process_op_err(e)

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(errors.Error(f"nats: {err_msg.strip(chr(39))}"))

    def _abort_transport(self) -> None:
        """Closing politely would wait until a frozen server has read what is buffered, for ever."""
        writer: Any = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _when_lost(self) -> None:
        self._lose()
        if not self.is_closed:
            log.warning("nats.lost")

    async def _when_back(self) -> None:
        self._up.set()
        log.info("nats.reconnected")

    async def _when_closed(self) -> None:
        self._lose()
        self._up.set()  # whoever waits for the connection wakes and finds it closed

    async def _when_error(self, error: Exception) -> None:
        if not isinstance(error, OSError):  # refused connects repeat every RECONNECT_WAIT_S of an outage
            log.warning("nats.error", error=type(error).__name__, detail=str(error))

    async def _open(self, url: str, name: str) -> None:
        await self.connect(
            url,
            name=name,
            error_cb=self._when_error,
            disconnected_cb=self._when_lost,
            reconnected_cb=self._when_back,
            closed_cb=self._when_closed,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=RECONNECT_WAIT_S,  # pyright: ignore[reportArgumentType]  seconds, any number will do
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=PINGS_OUTSTANDING_MAX,
        )
        self._inbox = self.new_inbox_prefix().encode() + b"."
        await self.listen(f"{self._inbox.decode()}*", self._on_inbox)
        self._up.set()


async def open_connection(url: str, *, name: str, timeout_s: float = FIRST_CONNECT_TIMEOUT_S) -> Connection:
    """Connect, trying until `timeout_s`. The URL may hold credentials and is never logged. Raises NotSent."""
    connection = Connection()
    try:
        async with asyncio.timeout(timeout_s):
            await connection._open(url, name)  # pyright: ignore[reportPrivateUsage]
    except TimeoutError:
        cause = connection.last_error
        await connection.close()
        raise NotSent(f"no connection to NATS within {timeout_s:g} s ({type(cause).__name__}: {cause})") from None
    except BaseException:
        await connection.close()
        raise
    return connection
