"""Hands: reactions and effects. Every event is looked at once; what follows from it is done at least once, in order
per lane.

Run by the replica that holds the service's lease. Owns the cursors `hands` (own stream) and `hears` (PUB).

Ground rules (design 2, docs/adr/0012):
- The cursor is a low-water mark over work done side by side, so after a crash some work is done again: reactions carry
  ids derived from the event, effects look at the state first and hand the provider an idempotency key.
- One lane per (aggregate, lane name): its jobs run one after another, lanes run side by side.
- A Transient of the outside world is tried again a bounded number of times and then becomes a dead letter with its
  cause. An unwell log or database is waited for: giving up would lose a fact.
- A bug is tried in three lives of the process; the third time the job is parked as a dead letter and reported loudly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from libs.refusal import Refused, Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.courtesy import Courtesy
from libs.runtime.dead_letters import DeadLetters
from libs.runtime.instruments import Instruments
from libs.runtime.listening import OwnStream, PublicStream
from libs.runtime.relaying import wire_name_of
from libs.runtime.service import Effect, Job, Service
from libs.runtime.surroundings import Surroundings
from libs.runtime.unwell import until_well
from libs.runtime.watermark import Watermark
from libs.telemetry import start_span
from proto.base import Command, Heard

JOBS_MAX = 4_096  # jobs taken up at once; more wait in the log, which is where they are safe
# Patient jobs at work at once. Thousands of them, let loose when a burst ends, take turns with every request that comes
# then: 2,700 machines being rented made a create wait for 2.9 s.
PATIENT_JOBS_MAX = 64
CURSOR_SAVE_INTERVAL_S = 0.5
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 30.0
BUG_LIVES_MAX = 3
REACTION_LANE = "react"

Work: TypeAlias = Callable[[], Awaitable[None]]
# Jobs that must run one after another: what each does, and the sequence to finish when it is done.
_Lane: TypeAlias = "deque[tuple[Watermark, int, Work]]"


@dataclass
class Counts:
    """For health and metrics."""

    running: int = 0
    dead: int = 0


class Hands:
    """Works through one service's own events and those it hears, for ever."""

    def __init__(
        self,
        service: Service,
        around: Surroundings,
        aggregates: Aggregates,
        own: OwnStream,
        instruments: Instruments,
        *,
        courtesy: Courtesy,
    ) -> None:
        self._service = service
        self._aggregates = aggregates
        self._own = own
        self._public = PublicStream(service, around.log)
        self._store = around.store
        self._clock = around.clock
        self._world = around.world
        self._dead = DeadLetters(service.name, around.log, around.store, around.clock)
        self._instruments = instruments
        self._logger = around.logger
        self._kinds = {
            event_type: aggregate.kind
            for aggregate in service.aggregates
            for event_type in service.effects
            if event_type in _members(aggregate.events)
        }
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._room = asyncio.Semaphore(JOBS_MAX)
        self._courtesy = courtesy
        self._patient: asyncio.Queue[tuple[tuple[str, str], _Lane]] = asyncio.Queue()
        self._patient_room = asyncio.Semaphore(PATIENT_JOBS_MAX)
        self._group: asyncio.TaskGroup | None = None
        self.counts = Counts()

    async def run(self, last_own_seq: int) -> None:
        """`last_own_seq`: events up to here may have been worked on by an earlier life."""
        self._lanes.clear()
        self._room = asyncio.Semaphore(JOBS_MAX)
        self._patient = asyncio.Queue()
        self._patient_room = asyncio.Semaphore(PATIENT_JOBS_MAX)
        self.counts.running = 0
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._start_patient())
            group.create_task(self._listen("hands", self._own.follow_heard, self._own_work, last_own_seq))
            if self._service.hears:
                group.create_task(self._listen("hears", self._public.follow, self._public_work, 0))

    # --- taking up work -------------------------------------------------------------------------------------------

    async def _listen(
        self,
        cursor_name: str,
        follow: Callable[[int], AsyncGenerator[list[tuple[int, list[Heard]]], None]],
        work_of: Callable[[Heard, bool], list[tuple[str, Work]]],
        replayed_until: int,
    ) -> None:
        low, _ = await self._store.cursor(cursor_name)
        mark = Watermark(low)
        async with asyncio.TaskGroup() as group:
            saver = group.create_task(self._save_cursor(cursor_name, mark))
            try:
                async for batch in follow(low):
                    for seq, events in batch:
                        await self._take_up(mark, seq, events, work_of, replayed_until)
            finally:
                saver.cancel()

    async def _take_up(
        self,
        mark: Watermark,
        seq: int,
        events: Sequence[Heard],
        work_of: Callable[[Heard, bool], list[tuple[str, Work]]],
        replayed_until: int,
    ) -> None:
        jobs = [(heard, lane, work) for heard in events for lane, work in work_of(heard, seq <= replayed_until)]
        for _ in jobs:
            mark.begin(seq)
        mark.passed(seq)
        for heard, lane, work in jobs:
            await self._room.acquire()
            self._enqueue((heard.aggregate_id, lane), (mark, seq, work), self._is_patient(heard, lane))

    def _is_patient(self, heard: Heard, lane: str) -> bool:
        effect = self._service.effects.get(type(heard.event))
        return effect is not None and effect.lane == lane and effect.patient is not None and effect.patient(heard.event)

    def _enqueue(self, key: tuple[str, str], job: tuple[Watermark, int, Work], is_patient: bool) -> None:
        assert self._group is not None
        self.counts.running += 1
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(job)
            return
        lane = self._lanes[key] = deque([job])
        if is_patient:
            self._patient.put_nowait((key, lane))
        else:
            self._group.create_task(self._drain(key, lane))

    async def _start_patient(self) -> None:
        assert self._group is not None
        while True:
            key, lane = await self._patient.get()
            await self._courtesy.make_way()
            await self._patient_room.acquire()
            self._group.create_task(self._drain(key, lane)).add_done_callback(lambda _: self._patient_room.release())

    async def _drain(self, key: tuple[str, str], lane: _Lane) -> None:
        while lane:
            mark, seq, work = lane.popleft()
            await work()
            mark.finish(seq)
            self.counts.running -= 1
            self._room.release()
        del self._lanes[key]

    async def _save_cursor(self, name: str, mark: Watermark) -> None:
        saved = mark.low
        while True:
            await self._clock.sleep(CURSOR_SAVE_INTERVAL_S)
            if mark.low != saved:
                await until_well(lambda: self._store.save_cursor(name, mark.low), self._clock)
                saved = mark.low

    # --- what an event calls for ----------------------------------------------------------------------------------

    def _own_work(self, heard: Heard, replayed: bool) -> list[tuple[str, Work]]:
        work = self._reaction_work(heard)
        effect = self._service.effects.get(type(heard.event))
        if effect is not None:
            work.append(
                (effect.lane, lambda: self._guarded(heard, "effect", lambda: self._affect(heard, effect, replayed)))
            )
        return work

    def _public_work(self, heard: Heard, _replayed: bool) -> list[tuple[str, Work]]:
        return self._reaction_work(heard)

    def _reaction_work(self, heard: Heard) -> list[tuple[str, Work]]:
        commands = list(self._service.react(heard))
        if not commands:
            return []
        return [(REACTION_LANE, lambda: self._guarded(heard, "reaction", lambda: self._execute_all(heard, commands)))]

    async def _affect(self, heard: Heard, effect: Effect, replayed: bool) -> None:
        kind = self._kinds[type(heard.event)]
        cause = ""
        job = None
        for attempt in range(1, effect.tries_max + 1):
            state = await until_well(lambda: self._state(kind, heard), self._clock)
            job = Job(heard, state, attempt, maybe_done=replayed or attempt > 1)
            try:
                commands = await self._run_effect(effect, job)
            except Transient as unwell:
                cause = f"{type(unwell).__name__}: {unwell}"
                self._logger.info("effect.postponed", event_id=heard.event_id, attempt=attempt, cause=cause)
                if attempt < effect.tries_max:
                    await self._clock.sleep(min(RETRY_FIRST_S * 2 ** (attempt - 1), RETRY_MAX_S))
                continue
            await self._execute_all(heard, commands)
            return
        assert job is not None
        if effect.exhausted is not None:
            await self._execute_all(heard, effect.exhausted(job, cause))
        await self._park(heard, "effect", cause)

    async def _run_effect(self, effect: Effect, job: Job) -> Sequence[Command]:
        name, outcome = wire_name_of(job.heard.event), "failed"
        started_s = self._clock.monotonic_s()
        try:
            with start_span(f"effect {name}", job.heard.trace):
                commands = await effect.run(job, self._world)
            outcome = "done"
            return commands
        finally:
            self._instruments.effects.observe(self._clock.monotonic_s() - started_s, (name, outcome))

    async def _state(self, kind: str, heard: Heard) -> Any:
        return await self._aggregates.state(kind, heard.aggregate_id, at_least_seq=heard.seq)

    async def _execute_all(self, heard: Heard, commands: Sequence[Command]) -> None:
        """Neighbours for the same aggregate share a commit: what was found out together becomes known together."""
        for _, neighbours in groupby(commands, key=_target):
            together = list(neighbours)
            for command, refused in await until_well(
                lambda together=together: self._execute(heard, together), self._clock
            ):
                # The aggregate has moved on; what we found out no longer matters to it.
                name = type(command).__name__
                self._logger.info("command.refused", command=name, code=refused.code, cause=heard.event_id)

    async def _execute(self, heard: Heard, commands: Sequence[Command]) -> Sequence[tuple[Command, Refused]]:
        for command in commands:
            self._instruments.reactions.add((type(command).__name__,))
        fill = self._service.filled
        filled = [full for command in commands if (full := await fill(command, self._world)) is not None]
        if not filled:
            return ()
        return await self._aggregates.execute_together(
            filled, cause=heard.event_id, correlation=heard.correlation, trace=heard.trace
        )

    # --- when something is wrong ----------------------------------------------------------------------------------

    async def _guarded(self, heard: Heard, role: str, act: Callable[[], Awaitable[None]]) -> None:
        """A bug ends this life of the process; in the third life that meets it, the job is parked instead."""
        try:
            await act()
        except Transient:  # the log or the database was away for longer than anybody waits
            raise
        except Exception as bug:
            lives = await until_well(lambda: self._dead.count_life(role, heard.event_id), self._clock)
            self._logger.warning("job.bug", role=role, event_id=heard.event_id, life=lives, cause=repr(bug))
            if lives < BUG_LIVES_MAX:
                raise
            await self._park(heard, role, repr(bug))

    async def _park(self, heard: Heard, role: str, cause: str) -> None:
        self.counts.dead += 1
        self._instruments.dead.add((role,))
        await until_well(lambda: self._dead.park(heard, role, cause), self._clock)


def _target(command: Command) -> tuple[str, str]:
    return command.aggregate, command.aggregate_id


def _members(union: Any) -> tuple[type, ...]:
    """The struct types of a union (or of a single type)."""
    return getattr(union, "__args__", (union,))
