"""API keys in memory: the log of the gateway's own stream, folded and followed, so that a revocation counts at once on
every replica.

Called by `auth` (who is this?), by the /api-keys routes and by the bus (`cmd.gateway.*`, `qry.gateway.keys`). Owns the
index; the log owns the truth. While the log is away the index serves what it knows: nobody can revoke then either.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from typing import Any

from libs.clock import Clock
from libs.eventlog import EventLog, Stored
from libs.ids import Ids
from libs.refusal import OutcomeUnknown, Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.codec import EventDecoder, decode_commit, stream_of
from libs.runtime.service import Service
from libs.telemetry import logger
from proto.base import Command, Event, Heard, Position
from proto.gateway.commands import AnyCommand
from proto.gateway.events import AnyEvent, KeyIssued, KeyRevoked
from proto.gateway.queries import KeyView
from proto.gateway.words import KEY_PATTERN, hash_key
from services.gateway.decider import API_KEY

STREAM = stream_of("gateway")
FOLLOW_RETRY_S = 0.5  # the log is away: it comes back within seconds, and looking costs one request
VISIBLE_WAIT_S = 0.5  # after issuing: until our own index has heard of it

# The log being away would otherwise be waited out: five attempts of several seconds each.
EXECUTE_S_MAX = 6.0

_log = logger("keys")


class KeyOutcomeUnknown(OutcomeUnknown):
    """The log did not answer in time: the key may or may not have been issued or revoked."""


def service() -> Service:
    """The gateway's aggregates in the runtime's form. It projects nothing: the index is its only read model."""
    return Service(
        name="gateway",
        aggregates=[API_KEY],
        commands=AnyCommand,
        react=_nothing,
        project=_nothing,
        schema_sql="",
    )


def _nothing(heard: Heard) -> Sequence[Any]:
    del heard
    return ()


class Keys:
    """The keys of all accounts."""

    def __init__(self, log: EventLog, clock: Clock, ids: Ids, *, on_revoked: Callable[[], None] = lambda: None) -> None:
        self._on_revoked = on_revoked
        self._event_log = log
        self._clock = clock
        self._aggregates = Aggregates(service(), log, clock, ids)
        self._decoder = EventDecoder(AnyEvent)
        self._by_hash: dict[str, KeyIssued] = {}
        self._views: dict[str, KeyView] = {}
        self._seq = 0
        self._moved = asyncio.Event()
        self.caught_up = False
        self.hits = 0
        self.misses = 0
        self.issued = 0
        self.revoked = 0

    async def follow(self) -> None:
        """Fold the stream for ever. The log being away is not a bug; an event we cannot read is."""
        while True:
            try:
                head = await self._event_log.last_seq(STREAM)
                self._mark(head)
                async for batch in self._event_log.follow(STREAM, after_seq=self._seq):
                    self._fold(batch)
                    self._mark(head)
            except Transient as unwell:
                _log.warning("keys.log_away", cause=repr(unwell))
                await self._clock.sleep(FOLLOW_RETRY_S)

    def find(self, secret: str) -> KeyIssued | None:
        """The live key of this secret. Looked up by hash: neither time nor memory tells about secrets."""
        if not KEY_PATTERN.fullmatch(secret):
            self.misses += 1
            return None
        digest = hash_key(secret)
        issued = self._by_hash.get(digest)
        if issued is None or not hmac.compare_digest(issued.key_hash, digest):
            self.misses += 1
            return None
        self.hits += 1
        return issued

    def is_live(self, secret: str) -> bool:
        """Whether the key of an answer that goes on and on is still good."""
        issued = self._by_hash.get(hash_key(secret))
        return issued is not None and (issued.expires_at is None or issued.expires_at > self._clock.now())

    async def execute(self, command: Command, *, cause: str = "", correlation: str = "", trace: str = "") -> Position:
        """Decide and append, then wait until this replica's index has heard of it. Raises Refused or Transient."""
        try:
            async with asyncio.timeout(EXECUTE_S_MAX):
                position = await self._aggregates.execute(command, cause=cause, correlation=correlation, trace=trace)
        except TimeoutError:
            raise KeyOutcomeUnknown(command.aggregate_id) from None
        try:
            async with asyncio.timeout(VISIBLE_WAIT_S):
                while self._seq < position.seq:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            _log.warning("keys.index_late", seq=position.seq, index_seq=self._seq)
        return position

    def of_account(self, account_id: str) -> list[KeyView]:
        """Newest first, revoked ones included."""
        mine = [view for view in self._views.values() if view.account_id == account_id]
        return sorted(mine, key=lambda view: (view.issued_at, view.key_id), reverse=True)

    def __len__(self) -> int:
        return len(self._views)

    def _mark(self, head: int) -> None:
        self.caught_up = self.caught_up or self._seq >= head
        self._moved.set()

    def _fold(self, batch: Sequence[Stored]) -> None:
        for stored in batch:
            for raw in decode_commit(stored.data).events:
                self._apply(self._decoder.decode(raw))
            self._seq = stored.seq

    def _apply(self, event: Event) -> None:
        if isinstance(event, KeyIssued):
            self.issued += 1
            self._by_hash[event.key_hash] = event
            self._views[event.key_id] = _view(event)
        elif isinstance(event, KeyRevoked):
            self.revoked += 1
            view = self._views[event.key_id]
            self._views[event.key_id] = _revoked(view, event)
            self._by_hash = {hash_: key for hash_, key in self._by_hash.items() if key.key_id != event.key_id}
            self._on_revoked()


def _view(event: KeyIssued) -> KeyView:
    return KeyView(
        key_id=event.key_id,
        account_id=event.account_id,
        name=event.name,
        prefix=event.prefix,
        last4=event.last4,
        scopes=event.scopes,
        plan=event.plan,
        issued_at=event.issued_at,
        expires_at=event.expires_at,
        revoked_at=None,
    )


def _revoked(view: KeyView, event: KeyRevoked) -> KeyView:
    return KeyView(
        key_id=view.key_id,
        account_id=view.account_id,
        name=view.name,
        prefix=view.prefix,
        last4=view.last4,
        scopes=view.scopes,
        plan=view.plan,
        issued_at=view.issued_at,
        expires_at=view.expires_at,
        revoked_at=event.revoked_at,
    )
