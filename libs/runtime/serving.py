"""Serve the bus: commands are decided, queries and signals answered, health and metrics told. Every replica does this.

Owns nothing. Commands are acknowledged only when their commit is durable; the reply carries its position, which a
reader passes back as `Meta.min_position` to be sure to see it (read-your-writes, design 4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import msgspec

from libs.refusal import Refused, Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.codec import stream_of
from libs.runtime.courtesy import Courtesy
from libs.runtime.projecting import REPLICA_POLL_S, Progress
from libs.runtime.recent import Recent
from libs.runtime.service import Service
from libs.runtime.store import PROJECT_CURSOR
from libs.runtime.surroundings import Surroundings
from libs.telemetry import Histogram, start_span
from proto.base import Command, Reply, Request
from proto.codes import CODES
from proto.health import MetricsText, ServiceHealth

READ_YOUR_WRITES_MAX_S = 0.5  # design 4: then the answer is given with `stale`, or refused as `RowsBehind`

_encode = msgspec.json.Encoder().encode


class RowsBehind(Transient):
    """Something is not in the rows, and the asker knows of a commit that is not in them either; or must know of all."""


@dataclass(frozen=True)
class QueryContext:
    """What a query or signal handler is handed beside the question: the database (None in simulation), the world, and
    answers that still hold."""

    pool: Any
    world: Any
    recent: Recent


class Serving:
    """Answers one service's requests."""

    def __init__(
        self,
        service: Service,
        around: Surroundings,
        aggregates: Aggregates,
        progress: Progress,
        *,
        health: Callable[[], Awaitable[ServiceHealth]],
        seconds: Histogram,
        courtesy: Courtesy,
    ) -> None:
        self._service = service
        self._stream = stream_of(service.name)
        self._aggregates = aggregates
        self._log = around.log
        self._store = around.store
        self._progress = progress
        self._clock = around.clock
        self._context = QueryContext(around.pool, around.world, progress.recent)
        self._health = health
        self._seconds = seconds
        self._courtesy = courtesy
        self._metrics = around.metrics.render
        self._commands = msgspec.json.Decoder(service.commands)
        self._queries = _decoders(service.queries)
        self._signals = _decoders(service.signals)

    async def answer(self, subject: str, request: Request) -> Reply:
        """The reply to one request. Raises Refused or Transient; anything else is a bug."""
        kind, _, tag = subject.split(".", 2)
        started_s = self._clock.monotonic_s()
        outcome = "failed"
        try:
            with start_span(subject, request.meta.trace) as span:
                reply = await self._reply(subject, request, span.traceparent)
        except Refused:
            outcome = "refused"
            raise
        else:
            outcome = "answered"
            return reply
        finally:
            self._seconds.observe(self._clock.monotonic_s() - started_s, (kind, tag, outcome))

    async def _reply(self, subject: str, request: Request, trace: str) -> Reply:
        kind, _, tag = subject.split(".", 2)
        if kind == "cmd":
            with self._courtesy.answering():
                return await self._command(request, trace)
        if kind == "sig":
            decoder, handler = self._signals[tag] if tag in self._signals else _unknown(subject)
            return Reply(body=_raw(await handler(decoder.decode(request.body), self._context)))
        if tag == "health":
            return Reply(body=_raw(await self._health()))
        if tag == "metrics":
            return Reply(body=_raw(MetricsText(self._metrics())))
        decoder, handler = self._queries[tag] if tag in self._queries else _unknown(subject)
        stale = not await self._caught_up(request)
        if request.meta.must_be_current and not await self._has_all():
            raise RowsBehind(f"{subject}: the rows are behind the log")
        try:
            return Reply(body=_raw(await handler(decoder.decode(request.body), self._context)), stale=stale)
        except Refused as refused:
            code = CODES.get(refused.code)
            if stale and code is not None and code.status == HTTPStatus.NOT_FOUND:
                raise RowsBehind(f"{subject}: {refused.code}, but the rows are behind what was asked for") from refused
            raise

    async def _command(self, request: Request, trace: str) -> Reply:
        command = cast(Command, self._commands.decode(request.body))  # the union holds nothing else
        filled = await self._service.filled(command, self._context.world)
        if filled is None:
            return Reply()
        meta = request.meta
        position = await self._aggregates.execute(
            filled, cause=meta.request_id, correlation=meta.correlation, trace=trace
        )
        return Reply(position=position)

    async def _caught_up(self, request: Request) -> bool:
        position = request.meta.min_position
        if position is None or position.stream != self._stream:
            return True
        return await self._progress.wait_for(
            position.seq, timeout_s=READ_YOUR_WRITES_MAX_S, store=self._store, clock=self._clock
        )

    async def _has_all(self) -> bool:
        """Whether everything that is in the log now is in the rows. The database itself is asked: after a crash it may
        have fewer than this process has seen in it."""
        head_seq = await self._log.last_seq(self._stream)
        give_up_s = self._clock.monotonic_s() + READ_YOUR_WRITES_MAX_S
        while (await self._store.cursor(PROJECT_CURSOR))[0] < head_seq:
            if self._clock.monotonic_s() >= give_up_s:
                return False
            await self._clock.sleep(REPLICA_POLL_S)
        return True


def _decoders(handlers: Any) -> dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any, Any], Awaitable[Any]]]]:
    return {
        str(message.__struct_config__.tag): (msgspec.json.Decoder(message), handler)
        for message, handler in handlers.items()
    }


def _raw(answer: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(answer))


def _unknown(subject: str) -> Any:
    raise Refused("NOT_FOUND", subject=subject)
