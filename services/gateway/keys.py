"""API keys and accounts in memory: the log of the gateway's own stream, folded and followed, so that a revocation or a
change of plan counts at once on every replica.

Called by `auth` (who is this?), by the routes of keys, account and audit, and by the bus (`cmd.gateway.*`,
`qry.gateway.*`). Owns the index; the log owns the truth. While the log is away the index serves what it knows: nobody
can revoke then either.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.clock import Clock
from libs.eventlog import EventLog, Stored
from libs.ids import Ids
from libs.refusal import OutcomeUnknown, Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.codec import EventDecoder, stream_of
from libs.runtime.service import Service
from libs.telemetry import logger
from proto.base import Command, Commit, Event, Heard, Position
from proto.gateway.commands import AnyCommand
from proto.gateway.events import AnyEvent, KeyIssued, KeyRevoked, KeyRotated, UsageNoted
from proto.gateway.queries import KeyView
from proto.gateway.words import KEY_PATTERN, Plan, hash_key
from services.gateway.accounts import Accounts
from services.gateway.decider import AGGREGATES

STREAM = stream_of("gateway")
FOLLOW_RETRY_S = 0.5  # the log is away: it comes back within seconds, and looking costs one request
VISIBLE_WAIT_S = 0.5  # after issuing: until our own index has heard of it

# The log being away would otherwise be waited out: five attempts of several seconds each.
EXECUTE_S_MAX = 6.0

_log = logger("keys")


class KeyOutcomeUnknown(OutcomeUnknown):
    """The log did not answer in time: the key may or may not have been issued or revoked."""


@dataclass(slots=True)
class Known:
    """One key as the index holds it. `used_at` is this replica's own knowledge, `noted_at` what the log says."""

    issued: KeyIssued
    expires_at: datetime | None
    revoked_at: datetime | None = None
    successor_id: str = ""
    used_at: datetime | None = None
    noted_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)

    def view(self, plan: Plan) -> KeyView:
        issued = self.issued
        return KeyView(
            key_id=issued.key_id,
            account_id=issued.account_id,
            name=issued.name,
            prefix=issued.prefix,
            last4=issued.last4,
            scopes=issued.scopes,
            plan=plan,
            issued_at=issued.issued_at,
            expires_at=self.expires_at,
            revoked_at=self.revoked_at,
            last_used_at=max((at for at in (self.used_at, self.noted_at) if at is not None), default=None),
            successor_id=self.successor_id,
        )


def service() -> Service:
    """The gateway's aggregates in the runtime's form. It projects nothing: the index is its only read model."""
    return Service(
        name="gateway",
        aggregates=AGGREGATES,
        commands=AnyCommand,
        react=_nothing,
        project=_nothing,
        schema_sql="",
    )


def _nothing(heard: Heard) -> Sequence[Any]:
    del heard
    return ()


class Keys:
    """The keys of all accounts, and the accounts themselves."""

    def __init__(self, log: EventLog, clock: Clock, ids: Ids, *, on_revoked: Callable[[], None] = lambda: None) -> None:
        self._on_revoked = on_revoked
        self._event_log = log
        self._clock = clock
        self._aggregates = Aggregates(service(), log, clock, ids)
        self._decoder = EventDecoder(AnyEvent)
        self._by_hash: dict[str, Known] = {}
        self._by_id: dict[str, Known] = {}
        self._seq = 0
        self._moved = asyncio.Event()
        self.accounts = Accounts()
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

    def find(self, secret: str) -> Known | None:
        """The key of this secret, unless it was revoked. Looked up by hash: neither time nor memory tells about
        secrets."""
        if not KEY_PATTERN.fullmatch(secret):
            self.misses += 1
            return None
        digest = hash_key(secret)
        known = self._by_hash.get(digest)
        if known is None or not hmac.compare_digest(known.issued.key_hash, digest):
            self.misses += 1
            return None
        self.hits += 1
        return known

    def is_live(self, secret: str) -> bool:
        """Whether the key of an answer that goes on and on is still good."""
        known = self._by_hash.get(hash_key(secret))
        return known is not None and known.is_live(self._clock.now())

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
        mine = [known for known in self._by_id.values() if known.issued.account_id == account_id]
        mine.sort(key=lambda known: (known.issued.issued_at, known.issued.key_id), reverse=True)
        return [known.view(self.plan_of(known.issued)) for known in mine]

    def get(self, account_id: str, key_id: str) -> Known | None:
        """The account's own key of this id."""
        known = self._by_id.get(key_id)
        return known if known is not None and known.issued.account_id == account_id else None

    def all(self) -> Iterator[Known]:
        return iter(tuple(self._by_id.values()))

    def plan_of(self, issued: KeyIssued) -> Plan:
        """Of the key's account. Keys of before there were accounts carry their own."""
        account = self.accounts.get(issued.account_id)
        return issued.plan if account is None else account.plan

    def __len__(self) -> int:
        return len(self._by_id)

    def _mark(self, head: int) -> None:
        self.caught_up = self.caught_up or self._seq >= head
        self._moved.set()

    def _fold(self, batch: Sequence[Stored]) -> None:
        for stored in batch:
            commit = self._decoder.commit(stored.data)
            for event in commit.events:
                self._apply(event, commit)
            self._seq = stored.seq

    def _apply(self, event: Event, commit: Commit[Event]) -> None:
        match event:
            case KeyIssued():
                self.issued += 1
                known = Known(event, event.expires_at)
                self._by_hash[event.key_hash] = self._by_id[event.key_id] = known
            case KeyRotated():
                known = self._by_id[event.key_id]
                known.expires_at, known.successor_id = event.valid_until, event.successor_id
                self._on_revoked()
            case KeyRevoked():
                self.revoked += 1
                known = self._by_id[event.key_id]
                known.revoked_at = event.revoked_at
                self._by_hash.pop(known.issued.key_hash, None)
                self._on_revoked()
            case UsageNoted():
                for use in event.keys:
                    if use.key_id in self._by_id:
                        self._by_id[use.key_id].noted_at = use.last_used_at
                self.accounts.count(event)
                return
            case _:
                pass
        self.accounts.apply(event, commit)
