"""Load, fold, decide, append: how a wish becomes a fact.

Used by `serving` (wishes from the bus), `hands` (reactions and outcomes) and `deadlines`. Owns a cache of folded
aggregates, which is only an optimisation: a stale entry can cost a retry, never a wrong write, because every append
states the sequence it has seen.

Ground rules (design 3):
- Refusals and "nothing to do" are not guarded by an append, so before they are believed a cached state is brought up
  to date.
- An unknown outcome is settled by looking for our own commit id in the subject's tail. Publishing again is safe: the
  first message, should it still arrive, and the second carry the same expectation, so at most one of them is stored.
- Commands of one aggregate queue up inside the process; across replicas the expectation decides.
- A wish that carries a `request_id` is decided once: its id stands in the commit it led to, and is remembered with the
  folded state (docs/adr/0021). Deciders need not know of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from libs.clock import Clock
from libs.eventlog import AppendUnknown, Contended, EventLog, WrongExpectation
from libs.ids import Ids
from libs.refusal import Refused, Transient
from libs.runtime.codec import EventDecoder, decode_commit, encode_commit, stream_of, subject_of
from libs.runtime.service import Aggregate, Service
from libs.telemetry import Histogram
from proto.base import Command, Event, Position

# Design 3. More means that a writer is fighting over this aggregate, which is for the caller to know.
DECIDE_TRIES_MAX = 5
CACHE_ENTRIES_MAX = 50_000  # about 2 KB each with its state: 100 MB at the very most
CONTENDED_PAUSE_S = 0.003  # the other write is in flight; it lands within a flush or two
UNKNOWN_PAUSE_S = 0.05  # the connection is coming back; reading sooner would fail as well
# Per aggregate, newest last, 40 bytes each: a caller who asks again does so before he has wished 64 other things.
HEEDED_REMEMBERED_MAX = 64


class TooContended(Transient):
    """Five times in a row somebody else wrote first."""


@dataclass
class _Folded:
    """One aggregate as far as we have read it."""

    state: Any
    seq: int = 0
    version: int = 0
    whole_seq: int = 0  # of the newest commit that begins with the whole state
    heeded: tuple[str, ...] = ()  # request ids, newest last
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Decided(NamedTuple):
    """What wishes come to: facts, and the request ids of those that are done with them."""

    events: Sequence[Event]
    heeded: tuple[str, ...]


# What a wish (or several) comes to on what was folded; raises Refused. May be asked again on a newer state.
Decide: TypeAlias = Callable[[_Folded], _Decided]


@dataclass
class _Attempt:
    """One command's way into the log: what it came from, and the ids of every commit it tried to store."""

    origin: dict[str, str]
    commit_ids: set[str] = field(default_factory=set[str])


class _Caught(NamedTuple):
    """What catching up found: whether anything was new, and the sequence of a commit we were looking for (0: none)."""

    moved: bool
    mine: int


class Aggregates:
    """The aggregates of one service in one process."""

    def __init__(
        self, service: Service, log: EventLog, clock: Clock, ids: Ids, append_seconds: Histogram | None = None
    ) -> None:
        self._service = service.name
        self._stream = stream_of(service.name)
        self._log = log
        self._clock = clock
        self._ids = ids
        self._append_seconds = append_seconds
        self._kinds = {aggregate.kind: aggregate for aggregate in service.aggregates}
        self._decoders = {a.kind: EventDecoder(a.events, service.upcast) for a in service.aggregates}
        self._cache: OrderedDict[tuple[str, str], _Folded] = OrderedDict()

    async def execute(self, command: Command, *, cause: str = "", correlation: str = "", trace: str = "") -> Position:
        """Decide and append; return where the aggregate now stands.

        Raises Refused, or Transient when the log is unwell.
        """
        kind = self._kinds[command.aggregate]

        def decide(folded: _Folded) -> _Decided:
            refusals: list[tuple[Command, Refused]] = []
            decided = _decide(kind, folded, [command], refusals)
            if refusals:
                raise refusals[0][1]
            return decided

        origin = {"cause": cause, "correlation": correlation, "trace": trace}
        return await self._execute(kind, command.aggregate_id, decide, origin)

    async def execute_together(
        self, commands: Sequence[Command], *, cause: str = "", correlation: str = "", trace: str = ""
    ) -> Sequence[tuple[Command, Refused]]:
        """Decide several wishes for one aggregate, each on what the ones before it left, and append them as one commit.

        Returns those that were refused; the others count. Raises Transient when the log is unwell.
        """
        kind = self._kinds[commands[0].aggregate]
        refusals: list[tuple[Command, Refused]] = []
        origin = {"cause": cause, "correlation": correlation, "trace": trace}
        await self._execute(
            kind, commands[0].aggregate_id, lambda folded: _decide(kind, folded, commands, refusals), origin
        )
        return refusals

    async def _execute(self, kind: Aggregate, aggregate_id: str, decide: Decide, origin: dict[str, str]) -> Position:
        folded = self._entry(kind, aggregate_id)
        folded.users += 1
        try:
            async with folded.lock:
                return await self._decide_and_append(kind, aggregate_id, folded, decide, origin)
        finally:
            folded.users -= 1

    async def state(self, kind: str, aggregate_id: str, *, at_least_seq: int | None = None) -> Any:
        """The aggregate folded to its newest commit, or to any that includes `at_least_seq` when that is enough."""
        aggregate = self._kinds[kind]
        folded = self._entry(aggregate, aggregate_id)
        folded.users += 1
        try:
            async with folded.lock:
                if at_least_seq is None or folded.seq < at_least_seq:
                    await self._catch_up(aggregate, aggregate_id, folded)
                return folded.state
        finally:
            folded.users -= 1

    async def _decide_and_append(
        self, kind: Aggregate, aggregate_id: str, folded: _Folded, decide: Decide, origin: dict[str, str]
    ) -> Position:
        fresh = False  # an id never seen is first taken for new: a create then costs no read
        attempt = _Attempt(origin)
        for _ in range(DECIDE_TRIES_MAX):
            try:
                decided = decide(folded)
            except Refused:
                if fresh or not (await self._catch_up(kind, aggregate_id, folded)).moved:
                    raise
                fresh = True
                continue
            if decided.events or decided.heeded:
                position = await self._append(kind, aggregate_id, folded, decided, attempt)
                if position is not None:
                    return position
            elif fresh or not (await self._catch_up(kind, aggregate_id, folded)).moved:
                return Position(self._stream, folded.seq)
            fresh = True
        raise TooContended(f"{kind.kind} {aggregate_id}: {DECIDE_TRIES_MAX} attempts met another writer")

    async def _append(
        self,
        kind: Aggregate,
        aggregate_id: str,
        folded: _Folded,
        decided: _Decided,
        attempt: _Attempt,
    ) -> Position | None:
        """One attempt. None: not stored, but the state may have moved, so decide again."""
        commit_id = self._ids.fresh("cmt")
        attempt.commit_ids.add(commit_id)
        events, heeded = decided
        is_whole = kind.whole is not None and bool(events) and isinstance(events[0], kind.whole)
        if is_whole:
            heeded = _remembered(folded.heeded, heeded)
        data = encode_commit(
            commit_id,
            folded.version,
            self._clock.now(),
            events,
            whole_seq=folded.whole_seq,
            is_whole=is_whole,
            heeded=heeded,
            **attempt.origin,
        )
        subject = subject_of(self._service, kind.kind, aggregate_id)
        started_s = self._clock.monotonic_s()
        try:
            seq = await self._log.append(self._stream, subject, data, expected_seq=folded.seq)
        except WrongExpectation:
            pass
        except Contended:
            await self._clock.sleep(CONTENDED_PAUSE_S)
        except AppendUnknown:
            await self._clock.sleep(UNKNOWN_PAUSE_S)
        else:
            if self._append_seconds is not None:
                self._append_seconds.observe(self._clock.monotonic_s() - started_s, (kind.kind,))
            self._fold(kind, folded, decided, seq)
            folded.whole_seq = seq if is_whole else folded.whole_seq
            return Position(self._stream, seq)
        mine = (await self._catch_up(kind, aggregate_id, folded, looking_for=attempt.commit_ids)).mine
        return Position(self._stream, mine) if mine else None

    async def _catch_up(
        self, kind: Aggregate, aggregate_id: str, folded: _Folded, looking_for: Set[str] = frozenset()
    ) -> _Caught:
        """Fold what was written since, by whomever."""
        mine, before = 0, folded.seq
        subject = subject_of(self._service, kind.kind, aggregate_id)
        after_seq = folded.seq or await self._before_whole(kind, subject)
        for stored in await self._log.read(self._stream, subject, after_seq=after_seq):
            commit = self._decoders[kind.kind].commit(stored.data)
            if folded.seq == 0:
                folded.version = commit.version
            self._fold(kind, folded, _Decided(commit.events, commit.heeded), stored.seq)
            folded.whole_seq = stored.seq if commit.is_whole else commit.whole_seq
            mine = stored.seq if commit.id in looking_for else mine
        return _Caught(folded.seq != before, mine)

    async def _before_whole(self, kind: Aggregate, subject: str) -> int:
        """After which sequence loading may begin: just before the newest commit that tells the whole state."""
        newest = await self._log.newest(self._stream, subject) if kind.whole is not None else None
        if newest is None:
            return 0
        commit = decode_commit(newest.data)
        return max(0, (newest.seq if commit.is_whole else commit.whole_seq) - 1)

    @staticmethod
    def _fold(kind: Aggregate, folded: _Folded, decided: _Decided, seq: int) -> None:
        for event in decided.events:
            folded.state = kind.evolve(folded.state, event)
        folded.heeded = _remembered(folded.heeded, decided.heeded)
        folded.version += len(decided.events)
        folded.seq = seq

    def _entry(self, kind: Aggregate, aggregate_id: str) -> _Folded:
        key = (kind.kind, aggregate_id)
        folded = self._cache.get(key)
        if folded is None:
            self._make_room()
            folded = self._cache[key] = _Folded(kind.initial)
        else:
            self._cache.move_to_end(key)
        return folded

    def _make_room(self) -> None:
        if len(self._cache) < CACHE_ENTRIES_MAX:
            return
        for key, folded in self._cache.items():
            if folded.users == 0:
                del self._cache[key]
                return


def _decide(
    kind: Aggregate, folded: _Folded, commands: Sequence[Command], refusals: list[tuple[Command, Refused]]
) -> _Decided:
    """What wishes come to, each on what the ones before it left. Those that are refused go into `refusals`: they are
    not done, and may be granted when they come again."""
    refusals.clear()
    said, heeded = list[Event](), list[str]()
    state, events = folded.state, list[Event]()
    for command in commands:
        if command.request_id and (command.request_id in folded.heeded or command.request_id in heeded):
            continue
        for event in events:
            state = kind.evolve(state, event)
        try:
            events = list(kind.decide(state, command))
        except Refused as refused:
            refusals.append((command, refused))
            events = []
            continue
        said += events
        if command.request_id:
            heeded.append(command.request_id)
    return _Decided(said, tuple(heeded))


def _remembered(before: tuple[str, ...], heeded: tuple[str, ...]) -> tuple[str, ...]:
    """A whole commit names again what was named before it."""
    if not heeded:
        return before
    return (*(each for each in before if each not in heeded), *heeded)[-HEEDED_REMEMBERED_MAX:]
