"""The rooms of several services on one virtual clock, with a log, a bus and a database that never fail.

Used by the market simulation, which needs a month of a hundred instances in a minute: the runtime's own loops look at
their tables every second, this one only acts when something happens. What is decided, reacted, projected and done is
the services' own: `decide`, `evolve`, `react`, `project`, intake, effects and deadlines come from the same `Service`
values that their processes run. Faults belong to the other scenarios (`survival`, `instance`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from types import coroutine
from typing import Any

import msgspec

from libs.refusal import Refused, Transient
from libs.runtime.hands import RETRY_FIRST_S, RETRY_MAX_S
from libs.runtime.memory_store import MemoryStore
from libs.runtime.relaying import wire_name_of
from libs.runtime.service import DEADLINES_TABLE, Aggregate, Effect, Job, Row, Service
from libs.sim.life import Life, SimClock
from proto.base import Command, Event, Heard, Position
from services.instance.queries import cares, contracts
from tests.sim.rows import RowsDatabase

HOP_S = 0.005  # from a commit to whoever hears of it, measured at about that (docs/performance.md)

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
DUE_LATE_S = 0.001  # never early by a rounding


class LeanStore(MemoryStore):
    """Only the tables that somebody here asks for, and rows as they are, not as copies; what has ended can be dropped.
    For one writer that changes no row."""

    def __init__(self, tables_read: Collection[str] = ()) -> None:
        super().__init__()
        self._tables_read = frozenset(tables_read)
        self.changes = 0

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.table in self._tables_read:
                self.changes += 1
                self._apply(row if row.columns is None else Row(row.table, row.key, {**row.key, **row.columns}))

    def rows(self, table: str, *only: str) -> list[dict[str, Any]]:
        del only
        return list(self._tables.get(table, {}).values())

    def drop(self, table: str, is_over: Callable[[dict[str, Any]], bool]) -> None:
        kept = {key: columns for key, columns in self._tables.get(table, {}).items() if not is_over(columns)}
        self._tables[table] = kept


class LeanRows(RowsDatabase):
    """The instance service's statements; who needs a CPU standby is looked for when rows have changed since nobody
    did. How often machines are looked at is up to the cloud's news here, so no account asks for a shorter poll."""

    def __init__(self, store: LeanStore, life: Life) -> None:
        super().__init__(store, life)
        self._lean_store = store
        self._changes_when_none_wanted = -1

    async def fetch(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        changes = self._lean_store.changes
        if sql == cares._SHORTEST_SQL:
            return []
        if sql != contracts._NO_CPU_STANDBY_SQL:
            return await super().fetch(sql, *arguments)
        if changes == self._changes_when_none_wanted:
            return []
        found = await super().fetch(sql, *arguments)
        if not found:
            self._changes_when_none_wanted = changes
        return found


class Member:
    """One service on the platform: its folded aggregates, rows and hands."""

    def __init__(self, service: Service, world: Any, store: LeanStore) -> None:
        self.service = service
        self.world = world
        self.store = store
        self.states: dict[tuple[str, str], Any] = {}
        self.kinds: dict[str, Aggregate] = {aggregate.kind: aggregate for aggregate in service.aggregates}
        self.lanes: dict[tuple[str, str], deque[Callable[[], Awaitable[None]]]] = {}
        self.deadlines: dict[tuple[str, str], tuple[datetime, asyncio.TimerHandle]] = {}
        self.seq = 0
        self.hears = frozenset(subject.split(".", 2)[2] for subject in service.hears)
        self.kind_of = lru_cache(maxsize=None)(self._kind_of)
        self.decode = msgspec.json.Decoder(service.commands).decode

    def _kind_of(self, event: type[Event]) -> str:
        return next(kind for kind, found in self.kinds.items() if issubclass(event, found.events))

    def must_ask(self, commands: Iterable[Command]) -> bool:
        """Whether something must be filled in first, which takes time."""
        return any(type(command) in self.service.intake for command in commands)

    async def filled(self, commands: Iterable[Command]) -> Sequence[Command]:
        fill = self.service.filled
        return [full for command in commands if (full := await fill(command, self.world)) is not None]


class Platform:
    """All members, and everybody who listens to what they say."""

    def __init__(self) -> None:
        self.clock = SimClock()
        self.members: dict[str, Member] = {}
        self.said: list[Callable[[Member, Heard, Any], None]] = []  # told of every fact with the state it led to
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.bug: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().set_exception_handler(self._bug_in_callback)
        self._tasks: set[asyncio.Task[None]] = set()
        self._concerned = lru_cache(maxsize=None)(self._who_is_concerned)

    def add(self, service: Service, world: Any, store: LeanStore) -> Member:
        member = self.members[service.name] = Member(service, world, store)
        for task in service.tasks:
            self.start(_awaited(task(world, _Handle(self, member))))
        return member

    async def wish(self, command: Command) -> Position:
        """Fill in, decide and append. Raises Refused."""
        member = self.members[command.service]
        return self._commit(member, await member.filled([command]))

    def report(self, command: Command) -> None:
        """As agents do, who are told nothing that they would act on: a refusal is counted."""
        self._issue(self.members[command.service], (command.aggregate_id, "report"), [command])

    def _commit(self, member: Member, commands: Sequence[Command]) -> Position:
        """Wishes about one aggregate as one commit. Raises Refused when there is only one and it is refused."""
        kind, aggregate_id = commands[0].aggregate, commands[0].aggregate_id
        rules, key = member.kinds[kind], (kind, aggregate_id)
        state = member.states.get(key, rules.initial)
        said: list[tuple[Event, Any]] = []
        for command in commands:
            try:
                events = rules.decide(state, command)
            except Refused:
                if len(commands) == 1:
                    raise
                continue  # the aggregate has moved on
            for event in events:
                state = rules.evolve(state, event)
                said.append((event, state))
        if said:
            member.states[key] = state
            member.seq += 1
            self._tell(member, aggregate_id, said)
        return Position(member.service.name, member.seq)

    def _tell(self, member: Member, aggregate_id: str, said: Sequence[tuple[Event, Any]]) -> None:
        at, seq, name = self.clock.now(), member.seq, member.service.name
        rows: list[Row] = []
        for index, (event, state) in enumerate(said):
            heard = Heard(event=event, event_id=f"{name}{seq}x{index}", aggregate_id=aggregate_id, at=at,
                          stream=name, seq=seq)  # fmt: skip
            self.counts[wire_name_of(event)] += 1
            rows += member.service.project(heard)
            for listener in self.said:
                listener(member, heard, state)
            self._spread(member, heard)
        member.store.write(rows)
        for row in rows:
            if row.table == DEADLINES_TABLE:
                self._set_deadline(member, row)

    # --- what follows -------------------------------------------------------------------------------------------

    def _spread(self, speaker: Member, heard: Heard) -> None:
        """What the speaker and everybody who hears this fact wish because of it, and the speaker's hands: a hop later.

        Reactions are pure, so those that ask for nothing need no hop.
        """
        concerned = self._concerned(speaker, type(heard.event))
        wishes = [(member, commands) for member in concerned if (commands := [*member.service.react(heard)])]
        effect = speaker.service.effects.get(type(heard.event))
        if wishes or effect is not None:
            asyncio.get_running_loop().call_later(HOP_S, self._follow_up, speaker, heard, wishes, effect)

    def _who_is_concerned(self, speaker: Member, event: type[Event]) -> Sequence[Member]:
        """The speaker, and if it is public, whoever hears of it."""
        name = str(event.__struct_config__.tag) if event.public else ""
        return [speaker, *(each for each in self.members.values() if each is not speaker and name in each.hears)]

    def _follow_up(
        self, speaker: Member, heard: Heard, wishes: Sequence[tuple[Member, list[Command]]], effect: Effect | None
    ) -> None:
        for member, commands in wishes:
            self._issue(member, (heard.aggregate_id, "react"), commands)
        if effect is not None:
            self._enqueue(speaker, (heard.aggregate_id, effect.lane), lambda: self._affect(speaker, heard, effect))

    def _issue(self, member: Member, lane: tuple[str, str], commands: Sequence[Command]) -> None:
        """At once when nothing is to be asked or waited for: a task for each is most of what a month would cost."""
        if lane in member.lanes:
            self._enqueue(member, lane, lambda: self._execute_all(member, commands))
        elif not member.must_ask(commands):
            self._commit_all(member, commands)
        elif (rest := _rest_of(self._execute_all(member, commands))) is not None:
            self._enqueue(member, lane, lambda: rest)

    def _enqueue(self, member: Member, lane: tuple[str, str], work: Callable[[], Awaitable[None]]) -> None:
        waiting = member.lanes.get(lane)
        if waiting is not None:
            waiting.append(work)
            return
        member.lanes[lane] = deque([work])
        self.start(self._drain(member, lane))

    async def _drain(self, member: Member, key: tuple[str, str]) -> None:
        waiting = member.lanes[key]
        while waiting:
            await waiting[0]()
            waiting.popleft()
        del member.lanes[key]

    async def _affect(self, member: Member, heard: Heard, effect: Effect) -> None:
        key = (member.kind_of(type(heard.event)), heard.aggregate_id)
        cause = ""
        for attempt in range(1, effect.tries_max + 1):
            job = Job(heard, member.states[key], attempt, maybe_done=attempt > 1)
            try:
                commands = await effect.run(job, member.world)
            except Transient as unwell:
                cause = str(unwell)
                await self.clock.sleep(min(RETRY_FIRST_S * 2 ** (attempt - 1), RETRY_MAX_S))
                continue
            await self._execute_all(member, commands)
            return
        self.counts["dead letter"] += 1
        if effect.exhausted is not None:
            job = Job(heard, member.states[key], effect.tries_max, maybe_done=True)
            await self._execute_all(member, effect.exhausted(job, cause))

    async def _execute_all(self, member: Member, commands: Sequence[Command]) -> None:
        self._commit_all(member, await member.filled(commands))

    def _commit_all(self, member: Member, commands: Sequence[Command]) -> None:
        together: dict[tuple[str, str], list[Command]] = {}
        for command in commands:
            together.setdefault((command.aggregate, command.aggregate_id), []).append(command)
        for neighbours in together.values():
            try:
                self._commit(member, neighbours)
            except Refused as refused:
                self.counts[f"refused {refused.code}"] += 1

    # --- time ---------------------------------------------------------------------------------------------------

    def _set_deadline(self, member: Member, row: Row) -> None:
        key = (row.key["aggregate_id"], row.key["name"])
        before = member.deadlines.pop(key, None)
        if before is not None:
            before[1].cancel()
        if row.columns is None:
            return
        due_at: datetime = row.columns["due_at"]
        ahead_s = max(0.0, (due_at - self.clock.now()).total_seconds()) + DUE_LATE_S
        timer = asyncio.get_running_loop().call_later(ahead_s, self._fall_due, member, key, row.columns["command"])
        member.deadlines[key] = (due_at, timer)

    def _fall_due(self, member: Member, key: tuple[str, str], command: str) -> None:
        fields = _FIELDS.decode(command)
        fields["now"] = msgspec.Raw(msgspec.json.encode(self.clock.now()))
        self._issue(member, (key[0], "deadline"), [member.decode(msgspec.json.encode(fields))])

    def start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._found(error)

    def _bug_in_callback(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._found(context.get("exception") or AssertionError(context["message"]))

    def _found(self, error: BaseException) -> None:
        if not self.bug.done():
            self.bug.set_exception(error)


class _Handle:
    """What a service's background tasks may do to it."""

    def __init__(self, platform: Platform, member: Member) -> None:
        self._platform = platform
        self._member = member

    async def execute(self, command: Command, *, cause: str = "", correlation: str = "", trace: str = "") -> Position:
        del cause, correlation, trace
        return await self._platform.wish(command)

    async def state(self, kind: str, aggregate_id: str, *, at_least_seq: int | None = None) -> Any:
        del at_least_seq
        return self._member.states.get((kind, aggregate_id), self._member.kinds[kind].initial)


def _rest_of(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run it as far as it goes without waiting, which is mostly to its end (None); else what is left of it."""
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return _resumed(work, awaited)


@coroutine
def _resumed(work: Coroutine[Any, Any, None], awaited: Any) -> Generator[Any, Any, None]:
    """Hand to the task what the work waits for, and back what came of it."""
    while True:
        try:
            came = yield awaited
            awaited = work.send(came)
        except StopIteration:
            return


async def _awaited(work: Awaitable[None]) -> None:
    await work
