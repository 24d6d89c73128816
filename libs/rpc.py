"""The bus on core NATS: requests to the owner of something, answered or refused within a deadline.

Used by the gateway, the CLI and `libs.runtime` through the port `libs.runtime.bus`. Owns the requests that are being
served; the connection is its caller's. Nothing is stored: who is not there hears nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
from nats.aio.subscription import Subscription

from libs.clock import Clock, SystemClock
from libs.eventlog.connection import Connection, NoAnswer, NoResponders, NotSent
from libs.refusal import Refused, Transient
from libs.runtime.bus import NobodyThere, Serve, Unanswered
from proto.base import Command, Meta, Position, Query, Refusal, Reply, Request, Signal

# Requests one process works on side by side; each may hold a database connection or a page of memory.
SERVED_AT_ONCE_MAX = 512
CLOSE_WAIT_S = 5.0  # what is being served when the bus closes may finish within this

OVERLOADED = "OVERLOADED"
SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
INTERNAL_ERROR = "INTERNAL_ERROR"

OnBug = Callable[[BaseException], None]

_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(Request).decode
_subjects: dict[type, str] = {}


def subject_of(message: Command | Query | Signal) -> str:
    """`cmd|qry|sig.<service>.<tag>`: where a message is sent."""
    kind = type(message)
    subject = _subjects.get(kind)
    if subject is None:
        prefix = "cmd" if isinstance(message, Command) else "qry" if isinstance(message, Query) else "sig"
        subject = _subjects[kind] = f"{prefix}.{message.service}.{kind.__struct_config__.tag}"
    return subject


def request_bytes(message: Command | Query | Signal, meta: Meta) -> bytes:
    return _encode(Request(meta, msgspec.Raw(_encode(message))))


class _Answered(msgspec.Struct, frozen=True):
    """`Reply` as msgspec can decode it: 0.22 takes `Raw | None` for a field that may only be null."""

    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    position: Position | None = None
    refused: Refusal | None = None
    stale: bool = False


_decode_answered = msgspec.json.Decoder(_Answered).decode


def accepted_reply(data: bytes) -> Reply:
    """The reply, unless it is a refusal: then raises Refused."""
    reply = _decode_answered(data)
    if reply.refused is not None:
        refused = Refused(reply.refused.code)
        refused.facts = dict(reply.refused.facts)  # not as keywords: a fact may be called `code`
        raise refused
    body = None if isinstance(reply.body, msgspec.UnsetType) else reply.body
    return Reply(body, reply.position, None, reply.stale)


async def answer(subject: str, request: Request, handler: Serve, on_bug: OnBug) -> Reply:
    """What the handler says, with its errors turned into refusals; a bug is handed to `on_bug` as well."""
    try:
        return await handler(subject, request)
    except Refused as refused:
        return _refusal(refused.code, refused.facts)
    except Transient as unwell:
        return _refusal(SERVICE_UNAVAILABLE, {"cause": type(unwell).__name__})
    except Exception as bug:
        on_bug(bug)
        return _refusal(INTERNAL_ERROR, {"request_id": request.meta.request_id})


class NatsBus:
    """The `Bus` port.

    `on_bug` is told of every exception that is neither Refused nor Transient: let the process exit.
    """

    def __init__(self, connection: Connection, *, on_bug: OnBug, clock: Clock | None = None) -> None:
        self._connection = connection
        self._clock = clock or SystemClock()
        self._on_bug = on_bug
        self._subscriptions: list[Subscription] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def ask(self, message: Command | Query | Signal, meta: Meta) -> Reply:
        subject = subject_of(message)
        left_s = meta.deadline - self._clock.now().timestamp()
        if left_s <= 0:
            raise Unanswered(f"{subject}: the deadline has passed")
        try:
            data, _ = await self._connection.call(subject, request_bytes(message, meta), timeout_s=left_s)
        except (NoResponders, NotSent) as cause:
            raise NobodyThere(f"{subject}: {cause}") from cause
        except NoAnswer as cause:
            raise Unanswered(f"{subject}: {cause}") from cause
        return accepted_reply(data)

    async def serve(self, service: str, handler: Serve) -> None:
        """Returns once requests can arrive; they are answered until `close`."""
        deliver = partial(self._on_request, handler)
        for kind in ("cmd", "qry", "sig"):
            self._subscriptions.append(await self._connection.listen(f"{kind}.{service}.*", deliver, queue=service))
        await self._connection.settle()

    async def close(self) -> None:
        """Take no more requests, let those being served finish, then cancel them."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await self._connection.withdraw(subscriptions)
        if self._serving:
            _, late = await asyncio.wait(self._serving, timeout=CLOSE_WAIT_S)
            for task in late:
                task.cancel()

    def _on_request(self, handler: Serve, subject: bytes, reply: bytes, data: bytes, _headers: bytes) -> None:
        """In the read loop: take the request on, or turn it away."""
        if len(self._serving) >= SERVED_AT_ONCE_MAX:
            self._reply(reply, _refusal(OVERLOADED, {}))
            return
        task = asyncio.get_running_loop().create_task(self._serve_one(handler, subject, reply, data))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve_one(self, handler: Serve, subject: bytes, reply: bytes, data: bytes) -> None:
        try:
            request = _decode_request(data)
        except msgspec.MsgspecError as bug:
            self._on_bug(bug)
            self._reply(reply, _refusal(INTERNAL_ERROR, {}))
            return
        if request.meta.deadline <= self._clock.now().timestamp():
            return  # nobody waits any more
        self._reply(reply, await answer(subject.decode(), request, handler, self._on_bug))

    def _reply(self, to: bytes, reply: Reply) -> None:
        if not to:
            return
        try:
            self._connection.send(to, _encode(reply))
        except ValueError as bug:  # larger than the server lets through
            self._on_bug(bug)
            self._connection.send(to, _encode(_refusal(INTERNAL_ERROR, {})))


def _refusal(code: str, facts: dict[str, object]) -> Reply:
    return Reply(refused=Refusal(code, facts))
