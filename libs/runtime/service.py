"""What a service is, as plain values: `run(Service(...))` takes the rooms themselves (design 2).

Used by each service's `__main__`, by `libs.spec` and by `libs.sim`. Owns no state: `aggregates` loads, decides and
appends, `listening` reacts, projects and relays, `hands` runs effects, `deadlines` turns due instants into commands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from proto.base import Command, Event, Heard, Position, Query, Signal

# `Any` because a state is each decider's own union; the runtime only carries it from `evolve` to `decide`.
State: TypeAlias = Any
# (command, world) -> the command with what the outside knows filled in, before it is decided; None: it has no object
Intake: TypeAlias = Callable[[Any, Any], Awaitable[Command | None]]
# (question, libs.runtime.serving.QueryContext) -> the reply struct
Answer: TypeAlias = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Aggregate:
    """One kind of stream: `evt.<service>.<kind>.<id>`, and the pure rules that write and fold it.

    `whole`: an event that tells the whole state. A commit that begins with one is where loading starts, so that an
    aggregate which lives for years loads as fast as a young one (docs/adr/0015).
    """

    kind: str
    initial: State
    decide: Callable[[State, Any], Sequence[Event]]
    evolve: Callable[[State, Any], State]
    events: Any  # the union of event structs this stream may hold
    is_heard: bool = True  # False: its events are rows and no more; neither relay nor hands decode them
    whole: type[Event] | None = None


class Row(Struct, frozen=True, gc=False):
    """What a projection says about one row: merge `columns` into the row with this key, or delete it (`columns` None).

    Merging the same row twice changes nothing. Columns never mentioned are NULL. `key` names the primary key columns.
    """

    table: str
    key: dict[str, Any]
    columns: dict[str, Any] | None


DEADLINES_TABLE = "deadlines"


def deadline(aggregate_id: str, name: str, due_at: Any, command: str) -> Row:
    """Ask for `command` (JSON without `now`) to be issued at `due_at`; a later row of the same key replaces it."""
    return Row(DEADLINES_TABLE, {"aggregate_id": aggregate_id, "name": name}, {"due_at": due_at, "command": command})


def wish(command: type[Command], **fields: Any) -> str:
    """A deadline's command: its JSON without `now`, which the deadline loop adds."""
    return msgspec.json.encode({"type": command.__struct_config__.tag, **fields}).decode()


def no_deadline(aggregate_id: str, name: str) -> Row:
    """Withdraw a deadline; withdrawing one that is not there is fine."""
    return Row(DEADLINES_TABLE, {"aggregate_id": aggregate_id, "name": name}, None)


class Job(Struct, frozen=True):
    """One event handed to an effect. `state` is the aggregate folded to its newest commit, so an effect can see that
    its work is no longer wanted; `maybe_done` says that an earlier attempt may have taken effect (restart, retry)."""

    heard: Heard
    state: Any
    attempt: int
    maybe_done: bool


class Handle(Protocol):
    """What effects and background tasks may do to their own service: wish, look, tell the time."""

    async def execute(self, command: Command, *, cause: str = "", correlation: str = "", trace: str = "") -> Position:
        """Decide and append. Raises Refused, or Transient when the log is unwell."""
        ...

    async def state(self, kind: str, aggregate_id: str, *, at_least_seq: int | None = None) -> State:
        """The aggregate folded to its newest commit."""
        ...


# (world, handle): watches the outside, for ever
Task: TypeAlias = Callable[[Any, Handle], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Effect:
    """The hand for one event type. `run(job, world)` touches the world and returns the outcome as commands to myself.

    Effects of one aggregate run one after another within a `lane`, lanes side by side. A `Transient` is tried again
    with backoff at most `tries_max` times, then `exhausted(job, cause)` says what that means, and the job goes to the
    dead letters.
    """

    run: Callable[[Job, Any], Awaitable[Sequence[Command]]]
    lane: str = "main"
    tries_max: int = 8
    exhausted: Callable[[Job, str], Sequence[Command]] | None = None
    patient: Callable[[Event], bool] | None = None  # True: may wait while requests are being answered


@dataclass(frozen=True)
class Service:
    """A service as values. `world` is whatever its effects and queries need (providers, pools); made by `__main__`."""

    name: str
    aggregates: Sequence[Aggregate]
    commands: Any  # union of command structs
    react: Callable[[Heard], Iterable[Command]]
    project: Callable[[Heard], Iterable[Row]]
    schema_sql: str
    hears: Sequence[str] = ()  # PUB subject filters, e.g. "pub.*.instance.interrupted"
    hears_events: Any = None  # union of the public event structs those filters let through
    intake: Mapping[type[Command], Intake] = field(default_factory=dict[type[Command], Intake])
    effects: Mapping[type[Event], Effect] = field(default_factory=dict[type[Event], Effect])
    queries: Mapping[type[Query], Answer] = field(default_factory=dict[type[Query], Answer])
    signals: Mapping[type[Signal], Answer] = field(default_factory=dict[type[Signal], Answer])
    tasks: Sequence[Task] = ()  # run by the one replica that holds the lease
    upcast: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # old event shape -> today's (proto.upcast)
    live_sql: str = ""  # tables of things that are not facts (last heartbeats); survive a rebuild, never replayed

    async def filled(self, command: Command, world: Any) -> Command | None:
        """The wish with what the outside knows filled in, wherever it came from; None: it has no object."""
        intake = self.intake.get(type(command))
        return command if intake is None else await intake(command, world)
