"""One request as a handler sees it, and the answer it gives back. Made by the pipeline, used by the dialects.

Owns the way to the bus: deadlines, the single repetition of a command whose outcome is unknown, where commits stand
(for read-your-writes) and whether an answer is stale.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from libs.ids import derive_id
from libs.refusal import OutcomeUnknown, Refused, Transient
from proto.base import Command, Meta, Position, Query, Reply, Signal
from proto.codes import Language
from proto.gateway.words import Plan
from services.gateway.validation import refuse

if TYPE_CHECKING:
    from services.gateway.gateway import Gateway

# A read is one hop and one row; whoever waits longer is better served by an error that says so.
QUERY_DEADLINE_S = 3.0
# An append normally takes 1-5 ms. The owner may be restarting (back within 1-2 s), so the first attempt gets half.
COMMAND_DEADLINE_S = 6.0
COMMAND_ATTEMPT_S = 3.0
# A repeat inside this time finds the same commit; longer waits are for the caller to decide.
RETRY_AFTER_S = 1

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


@dataclass(slots=True)
class Answer:
    """What a handler says. `body` is encoded as it is; None means no body; `feed.stream.Live` is a stream."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict[str, str])
    waited_s: float = 0.0  # of the time it took, because the caller wanted to wait


@dataclass(slots=True)
class Caller:
    """Who asks: an account on its plan, the key that speaks for it and what the key may do."""

    account_id: str
    actor: str
    scopes: tuple[str, ...]
    plan: Plan = "free"


@dataclass(slots=True)
class Call:
    """`path` and `query` are validated; `raw_body` is kept for the request hash only."""

    gateway: Gateway
    caller: Caller
    now: datetime
    request_id: str
    correlation_id: str
    trace: str
    path: dict[str, str]
    query: Any
    body: Any
    raw_body: bytes
    credential: str = ""
    idempotency_key: str = ""
    last_event_id: str = ""
    min_position: Position | None = None
    position: Position | None = None
    stale: bool = False
    replayed: bool = False
    language: Language = "en"

    def say(self, english: str, portuguese: str) -> str:
        """A sentence of a success, for a person."""
        return portuguese if self.language == "pt" else english

    @property
    def account_id(self) -> str:
        return self.caller.account_id

    async def ask(self, question: Query | Signal) -> Any:
        """The owner's answer, decoded. Raises Refused; a silent or absent owner is SERVICE_UNAVAILABLE."""
        return self._answered(question, await self._send(question, QUERY_DEADLINE_S, self._seen(question)))

    async def ask_current(self, question: Query) -> Any:
        """The same for an answer that a wish is made of: SERVICE_UNAVAILABLE when the owner's rows are behind."""
        reply = await self._send(question, QUERY_DEADLINE_S, self._seen(question), must_be_current=True)
        return self._answered(question, reply)

    def _answered(self, question: Query | Signal, reply: Reply) -> Any:
        self.stale = self.stale or reply.stale
        if reply.body is None:
            return None
        return _decoder(type(question).reply).decode(reply.body)

    async def command(self, wish: Command) -> Position | None:
        """Carry out a wish, once. Every command is idempotent by its ids, so an unknown outcome is tried again once."""
        try:
            reply = await self._send(wish, COMMAND_ATTEMPT_S, None)
        except OutcomeUnknown:
            reply = await self._again(wish)
        except Refused as refused:
            if refused.code != "SERVICE_UNAVAILABLE" or "cause" not in refused.facts:
                raise
            reply = await self._again(wish)  # the owner's log or database was unwell, maybe after the append
        self.position = reply.position or self.position
        if reply.position is not None:
            self.gateway.positions.remember(wish.aggregate_id, reply.position)
            self.gateway.positions.remember(self.account_id, reply.position)
        return reply.position

    def derived_id(self, prefix: str, *about: str) -> str:
        """With an Idempotency-Key the same id again, so that a repeat meets its own first commit (design 3). `about`:
        what exists already and the wish is for; keys are an account's."""
        if not self.idempotency_key:
            return self.gateway.ids.fresh(prefix)
        return derive_id(prefix, self.account_id, *about, self.idempotency_key)

    def first_machine_id(self, instance_id: str) -> str:
        """Of a new instance's machine: the same for a repeat of the same create."""
        return derive_id("mach", instance_id, "1")

    def next_machine_id(self, instance_id: str) -> str:
        """Of the machine a start may have to rent."""
        return self.derived_id("mach", instance_id)

    def wish_id(self, verb: str) -> str:
        """For the `request_id` of a wish whose late repeat must have no effect. Keys are an account's, so what is
        wished is part of it: with another body it is another wish."""
        if not self.idempotency_key:
            return self.gateway.ids.fresh("req")
        return derive_id("req", self.account_id, verb, self.idempotency_key, self.request_hash())

    def request_hash(self) -> str:
        """Of the body's meaning, not its bytes: key order and blanks do not count. Empty without an Idempotency-Key.

        Keyed, because it is kept in the log: nobody who reads that can try what a short secret in the body may be.
        """
        if not self.idempotency_key:
            return ""
        try:
            meaning: Any = msgspec.json.decode(self.raw_body or b"{}")
        except RecursionError:  # in a field that the shape leaves out
            refuse("body", "Body must be valid JSON: nested too deeply")
        key = self.gateway.settings.secret.reveal().encode()
        return hmac.new(key, b"request:" + msgspec.json.encode(meaning, order="sorted"), hashlib.sha256).hexdigest()

    def _seen(self, question: Query | Signal) -> Position | None:
        if self.position is not None:
            return self.position
        subject = getattr(question, "instance_id", "") or self.account_id
        return self.min_position or self.gateway.positions.last(subject)

    async def _again(self, wish: Command) -> Reply:
        try:
            return await self._send(wish, COMMAND_DEADLINE_S - COMMAND_ATTEMPT_S, None)
        except OutcomeUnknown as error:
            raise Refused("OUTCOME_UNKNOWN", instance_id=wish.aggregate_id, retry_after_s=RETRY_AFTER_S) from error

    async def _send(
        self,
        message: Command | Query | Signal,
        within_s: float,
        seen: Position | None,
        *,
        must_be_current: bool = False,
    ) -> Reply:
        meta = Meta(
            request_id=self.request_id,
            deadline=self.gateway.clock.now().timestamp() + within_s,
            correlation=self.correlation_id,
            account_id=self.account_id,
            actor=self.caller.actor,
            trace=self.trace,
            min_position=seen,
            must_be_current=must_be_current,
        )
        try:
            return await self.gateway.bus.ask(message, meta)
        except OutcomeUnknown as error:
            if isinstance(message, Command):
                raise
            raise self._away(message) from error
        except Transient as error:
            raise self._away(message) from error

    @staticmethod
    def _away(message: Command | Query | Signal) -> Refused:
        return Refused("SERVICE_UNAVAILABLE", service=type(message).service, retry_after_s=RETRY_AFTER_S)


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return decoder
