"""The dispatcher: a cursor over the public stream, POSTs side by side, outcomes written down. The heart of the service.

Run as a task by the replica that holds the lease. Owns the cursor `dispatch`: everything at or below it is either
delivered or written down as under way, so whatever is killed, nothing is lost. Above it work is done again after a
crash, with the same `webhook-id` and, once written down, the same bytes.

A delivery that is not finished within SPILL_AFTER_S is written down, so the cursor never waits for a slow receiver.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, cast

from libs.eventlog import Stored
from libs.runtime.listening import PUBLIC_STREAM
from libs.runtime.projecting import PROJECT_CURSOR
from libs.runtime.service import Handle
from libs.runtime.unwell import until_well
from libs.runtime.watermark import Watermark
from proto.base import Command
from proto.webhook_dispatch.commands import DeleteEndpoint, DisableEndpoint, MarkFailing, MarkRecovered, Record
from proto.webhook_dispatch.words import Attempt
from services.webhook_dispatch import policy
from services.webhook_dispatch.decider.retry_schedule import verdict
from services.webhook_dispatch.effects import recovering
from services.webhook_dispatch.effects.directory import STREAM, Directory, Target
from services.webhook_dispatch.effects.hearing import deliveries_of, names_url, read_fact
from services.webhook_dispatch.effects.lanes import BACKLOG_MAX, Box, Lanes, Parcel
from services.webhook_dispatch.effects.posting import Answer
from services.webhook_dispatch.effects.recording import Recorder
from services.webhook_dispatch.effects.sending import Sender
from services.webhook_dispatch.effects.world import World
from services.webhook_dispatch.queries import pending

CURSOR = "dispatch"
UNRECORDED_MAX = 2_000  # taken on and not yet durable, about half a second; the stream keeps the rest safe
SPILL_AFTER_S = 1.0
SWEEP_INTERVAL_S = 0.25
SAVE_INTERVAL_S = 0.5
PROJECTED_POLL_S = 0.02
TIMER_MAX_S = 0.5
FIRST_LOOK_BACK_S = 3_600.0  # of the first start on a platform that has a history already
FAILING_AFTER_S = 3_600.0  # without a success for so long, its owner is told
BACKLOG_FULL = "too many deliveries were waiting for this endpoint"


async def dispatch(world: World, handle: Handle) -> None:
    """The task. Raises Transient when database or log are unwell; the lease is then taken again."""
    dispatcher = Dispatcher(world, handle)
    world.dispatcher = dispatcher
    try:
        await dispatcher.run()
    finally:
        world.dispatcher = None


class Dispatcher:
    """One life of the task: starts from the rows and the cursor, keeps nothing that they do not have."""

    def __init__(self, world: World, handle: Handle) -> None:
        self._world = world
        self._clock = world.clock
        self._handle = handle
        self._directory = Directory()
        self._lanes = Lanes()
        self._recorder = Recorder(handle, world.clock, self._on_recorded, pace_ppm=world.pace_ppm)
        self._sender = Sender(world, handle, self._directory)
        self._mark = Watermark(0)
        self._fresh: deque[tuple[Box, Parcel]] = deque()  # taken on and not yet noted, oldest first
        self._unrecorded = 0
        self._has_room = asyncio.Event()
        self._is_changed = asyncio.Event()
        self._wishes: set[tuple[str, type[Command]]] = set()  # under way, so that each is uttered once
        self._group: asyncio.TaskGroup | None = None
        self._seconds = world.instruments.attempts
        self.ready = asyncio.Event()

    @property
    def low_seq(self) -> int:
        """Everything of PUB up to here is delivered or written down."""
        return self._mark.low

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._load()
            group.create_task(self._directory.follow(self._world.log, self._on_changed))
            group.create_task(self._recorder.run())
            group.create_task(self._sweep())
            group.create_task(self._timer())
            self.ready.set()
            self._pump()
            await self._listen()

    # --- starting -------------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        """What earlier lives have written down, once the rows show all of it."""
        pool = self._world.pool
        self._directory.seq = await self._until_projected()
        for fields in await pending.endpoints(pool):
            self._directory.add(Target(**fields))
        self._directory.default_secrets.update(await pending.default_secrets(pool))
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        async for page in pending.under_way(pool):
            for row in page:
                target = self._directory.targets.get(row.endpoint_id)
                if target is None:
                    continue  # deleted with this still under way
                parcel = Parcel(row.delivery_id, row.event_type, row.lane, row.public_seq, None)
                parcel.attempts, parcel.tries = row.attempts, row.tries
                parcel.is_noted = parcel.is_recorded = True
                due_s = now_s + (row.next_at - now).total_seconds() if row.next_at else None
                self._lanes.add(self._lanes.box(target), parcel, due_s=due_s)

    async def _until_projected(self) -> int:
        """The rows show everything that is in the log now; returns how far that is."""
        head = await self._world.log.last_seq(STREAM)
        while (await self._world.store.cursor(PROJECT_CURSOR))[0] < head:
            await self._clock.sleep(PROJECTED_POLL_S)
        return head

    # --- hearing --------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        low, _ = await self._world.store.cursor(CURSOR)
        if low == 0 and self._directory.seq == 0:
            low = await self._first_place()
        self._mark = Watermark(low)
        replayed_until = await self._world.log.last_seq(PUBLIC_STREAM)
        assert self._group is not None
        self._group.create_task(self._save_cursor())
        async with aclosing(cast("Any", self._world.log.follow(PUBLIC_STREAM, after_seq=low))) as batches:
            async for batch in batches:
                await self._hear(batch, is_replay=batch[0].seq <= replayed_until)

    async def _first_place(self) -> int:
        """Where a platform's first dispatcher begins: it does not notify URLs of long ago. Saved at once, because the
        next life cannot tell any more that it is the first."""
        since = self._clock.now() - timedelta(seconds=FIRST_LOOK_BACK_S)
        found = await self._world.log.page(PUBLIC_STREAM, "pub.>", after_seq=0, limit=1, since=since)
        last = await self._world.log.last_seq(PUBLIC_STREAM)
        low = found.messages[0].seq - 1 if found.messages else last
        await self._world.store.save_cursor(CURSOR, low)
        return low

    async def _hear(self, batch: Sequence[Stored], *, is_replay: bool) -> None:
        # An endpoint whose creation was acknowledged before these facts were said is known after this line.
        await self._directory.until(await self._world.log.last_seq(STREAM))
        await self._adopt(batch)
        taken: list[tuple[Target, Parcel]] = []
        for stored in batch:
            fact = read_fact(stored)
            taken += [] if fact is None else deliveries_of(fact, self._directory)
        recorded = await self._recorded_before(taken) if is_replay else {}
        now_s = self._clock.monotonic_s()
        for target, parcel in taken:
            if parcel.delivery_id not in recorded:
                self._mark.begin(parcel.public_seq)
                self._take_on(target, parcel, now_s)
        self._mark.passed(batch[-1].seq)
        self._pump()
        await self._until_room()

    async def _adopt(self, batch: Sequence[Stored]) -> None:
        """URLs that come with an instance become endpoints before anybody looks for hearers."""
        newest = 0
        for stored in batch:
            said = names_url(stored)
            wish = policy.adopt(said.url, said.at) if said is not None else None
            if wish is not None:
                position = await self._until_well(wish)
                newest = max(newest, position)
        await self._directory.until(newest)

    async def _recorded_before(self, taken: Sequence[tuple[Target, Parcel]]) -> dict[str, Any]:
        return await pending.known(self._world.pool, [parcel.delivery_id for _, parcel in taken])

    def _take_on(self, target: Target, parcel: Parcel, now_s: float) -> None:
        box = self._lanes.box(target)
        parcel.taken_on_s = now_s
        parcel.is_marked = True
        self._unrecorded += 1
        if box.size >= BACKLOG_MAX:
            self._note(box.target, parcel, Record(parcel.delivery_id, parcel.delivery, skipped=BACKLOG_FULL))
            return
        self._fresh.append((box, parcel))
        self._lanes.add(box, parcel)

    async def _until_room(self) -> None:
        while self._unrecorded >= UNRECORDED_MAX:
            self._has_room.clear()
            await self._has_room.wait()

    # --- sending --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send as much as may be sent now."""
        assert self._group is not None
        now_s = self._clock.monotonic_s()
        while (taken := self._lanes.take(now_s)) is not None:
            self._group.create_task(self._send_on(*taken))

    async def _send_on(self, box: Box, parcel: Parcel) -> None:
        """This one, and then whatever has its turn in the place that it leaves."""
        taken: tuple[Box, Parcel] | None = (box, parcel)
        while taken is not None:
            await self._attempt(*taken)
            taken = self._lanes.take(self._clock.monotonic_s())
            self._pump()  # a receiver that is no longer in doubt may be sent more than one at once

    async def _attempt(self, box: Box, parcel: Parcel) -> None:
        at = self._clock.now()
        if parcel.attempts and await self._sender.is_settled(box.target, parcel):
            self._leave(box, parcel)
            return
        if not parcel.attempts and parcel.delivery is not None:
            delay_s = (at - parcel.delivery.event_at).total_seconds()
            self._world.instruments.first_attempts.observe(max(0.0, delay_s), (box.target.kind,))
        answer = await self._sender.send(box.target, parcel, at)
        self._seconds.observe(answer.took_ms / 1000, ("delivered" if answer.is_delivered else "failed",))
        parcel.attempts += 1
        parcel.tries += 1
        self._settle(box, parcel, answer, at)

    def _settle(self, box: Box, parcel: Parcel, answer: Answer, at: datetime) -> None:
        """What the answer means for the lane, and that it is written down."""
        attempt = Attempt(
            number=parcel.attempts,
            at=at,
            trigger="event" if parcel.attempts == 1 else "retry",
            outcome="delivered" if answer.is_delivered else "failed",
            took_ms=answer.took_ms,
            status_code=answer.status_code,
            error=answer.error,
            response=answer.response,
        )
        record = Record(
            parcel.delivery_id,
            None if parcel.is_noted else parcel.delivery,
            attempt,
            jitter_ppm=int(self._world.random.random() * 1_000_000),
            retry_after_s=answer.retry_after_s,
            is_final=answer.is_final,
        )
        self._note(box.target, parcel, record)
        self._judge(box, answer)
        next_at = None
        if not answer.is_delivered and not answer.is_final:
            next_at = verdict(
                parcel.tries,
                self._clock.now(),
                jitter_ppm=record.jitter_ppm,
                retry_after_s=answer.retry_after_s,
                pace_ppm=self._world.pace_ppm,
            ).next_at
        if next_at is not None:
            self._lanes.later(box, parcel, self._clock.monotonic_s() + (next_at - self._clock.now()).total_seconds())
            self._is_changed.set()
            return
        self._leave(box, parcel)
        if box.target.kind == "instance" and parcel.event_type == "instance.deleted":
            self._wish(DeleteEndpoint, box.target, reason="instance deleted")

    def _leave(self, box: Box, parcel: Parcel) -> None:
        self._lanes.sent(box, parcel)
        self._sender.forget(parcel)

    def _judge(self, box: Box, answer: Answer) -> None:
        """How the endpoint fares: in doubt, failing for long, recovered, gone."""
        now_s, target = self._clock.monotonic_s(), box.target
        box.is_doubtful = not answer.is_delivered
        if answer.is_delivered:
            box.failing_from_s = None
            if target.failing_since is not None:
                self._wish(MarkRecovered, target)
            return
        self._world.logger.info(
            "attempt.failed", endpoint_id=target.endpoint_id, status_code=answer.status_code, error=answer.error
        )
        if box.failing_from_s is None:
            box.failing_from_s = now_s
        if answer.is_gone:
            self._wish(DisableEndpoint, target, reason="gone")
        elif now_s - box.failing_from_s >= FAILING_AFTER_S and target.failing_since is None:
            since = self._clock.now() - timedelta(seconds=now_s - box.failing_from_s)
            self._wish(MarkFailing, target, since=since, last_error=answer.error or f"HTTP {answer.status_code}")

    def _wish(self, command: type[Command], target: Target, **fields: Any) -> None:
        """Utter it beside everything else, once at a time."""
        assert self._group is not None
        key = (target.endpoint_id, command)
        if key not in self._wishes:
            self._wishes.add(key)
            about = {"now": self._clock.now(), "endpoint_id": target.endpoint_id, "account_id": target.account_id}
            self._group.create_task(self._utter(key, command(**about, **fields)))

    async def _utter(self, key: tuple[str, type[Command]], wish: Command) -> None:
        await self._until_well(wish)
        self._wishes.discard(key)

    async def _until_well(self, wish: Command) -> int:
        return (await until_well(lambda: self._handle.execute(wish), self._clock)).seq

    # --- writing down ---------------------------------------------------------------------------------------------

    def _note(self, target: Target, parcel: Parcel, record: Record) -> None:
        parcel.is_noted = True
        self._recorder.add(target, parcel, record)

    def _on_recorded(self, parcel: Parcel) -> None:
        parcel.is_recorded = True
        self._sender.recorded(parcel)
        if parcel.is_marked:
            parcel.is_marked = False
            self._mark.finish(parcel.public_seq)
            self._unrecorded -= 1
            self._has_room.set()

    async def _sweep(self) -> None:
        """Write down what has waited long enough, so that the cursor need not."""
        while True:
            await self._clock.sleep(SWEEP_INTERVAL_S)
            self._world.instruments.backlog.set(self._lanes.size)
            before_s = self._clock.monotonic_s() - SPILL_AFTER_S
            while self._fresh and (self._fresh[0][1].is_noted or self._fresh[0][1].taken_on_s <= before_s):
                box, parcel = self._fresh.popleft()
                if not parcel.is_noted:
                    self._note(box.target, parcel, Record(parcel.delivery_id, parcel.delivery))

    async def _save_cursor(self) -> None:
        saved = self._mark.low
        while True:
            await self._clock.sleep(SAVE_INTERVAL_S)
            if self._mark.low != saved:
                saved = self._mark.low
                await self._world.store.save_cursor(CURSOR, saved)

    # --- time and change ------------------------------------------------------------------------------------------

    async def _timer(self) -> None:
        while True:
            due_s = self._lanes.next_due_s()
            pause_s = TIMER_MAX_S if due_s is None else min(TIMER_MAX_S, max(0.0, due_s - self._clock.monotonic_s()))
            try:
                async with asyncio.timeout(pause_s):
                    await self._is_changed.wait()
            except TimeoutError:
                pass
            self._is_changed.clear()
            self._lanes.wake(self._clock.monotonic_s())
            self._pump()

    def _on_changed(self, target: Target) -> None:
        """An endpoint was paused, resumed, moved or deleted."""
        if target.is_deleted:
            for parcel in self._lanes.drop(target.endpoint_id):
                if parcel.is_marked and not parcel.is_noted:
                    parcel.is_noted = True
                    self._on_recorded(parcel)
            return
        box = self._lanes.boxes.get(target.endpoint_id)
        if box is not None:
            box.target = target
            self._lanes.offer(box)
            self._pump()

    # --- by hand --------------------------------------------------------------------------------------------------

    async def recover(self, endpoint_id: str, since: datetime, *, at_least_seq: int) -> None:
        """Take on again what did not arrive; returns when all of it is written down. Facts above the cursor are in
        hand anyway."""
        await self.ready.wait()
        await self._directory.until(at_least_seq)
        target = self._directory.targets.get(endpoint_id)
        if target is None or self._mark.low == 0:
            return
        await self._until_projected()

        def take_on(box: Box, parcel: Parcel, record: Record) -> None:
            self._note(box.target, parcel, record)
            self._lanes.add(box, parcel)
            self._pump()

        box, low = self._lanes.box(target), self._mark.low
        await recovering.recover(self._world, box, since, low_seq=low, take_on=take_on)
