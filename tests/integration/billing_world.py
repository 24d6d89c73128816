"""A real billing service over the in-memory log and bus, a real database, and a clock that the test moves ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any

import msgspec

from libs import telemetry
from libs.eventlog import EventLog
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.postgres import Database, Definition, PostgresStore, ensure_schema, open_database
from libs.rpc_memory import MemoryBus
from libs.runtime.relaying import envelope
from libs.runtime.run import run
from libs.runtime.surroundings import Surroundings
from libs.spec.hand_clock import HandClock
from proto.base import Command, Event, Heard, Meta, Position, Query
from proto.instance.events import InstanceHibernated, InstanceReady, InstanceStopping
from services.billing.config import BillingSettings
from services.billing.decider import aggregates
from services.billing.effects import Instruments, World, settle_by_hand
from services.billing.rooms import SERVICE

ACCOUNT = "acct_7"
DEADLINE_S = 30.0
PAUSE_S = 0.02
DEFINITION = Definition(SERVICE.name, SERVICE.schema_sql, "test", SERVICE.live_sql)


async def say(log: EventLog, event: Event, at: datetime, number: int) -> None:
    """A public fact as the relay of another service says it; the same number is the same fact."""
    instance_id = getattr(event, "instance_id", "other")
    heard = Heard(event, f"cmt_{number}.0", instance_id, at, "EVT_INSTANCE", 1)
    subject, headers = envelope(heard, "/dumont/instance")
    await log.publish("PUB", subject, msgspec.json.encode(event), message_id=heard.event_id, headers=headers)


def ready(instance_id: str, at: datetime, price: int, *, account_id: str = ACCOUNT, machine: str = "1") -> Event:
    return InstanceReady(
        instance_id=instance_id,
        account_id=account_id,
        name="n",
        gpu="RTX 4090",
        machine_id=f"mach_{instance_id}_{machine}",
        generation=1,
        endpoints=(),
        ready_at=at,
        price_usd_micros_per_hour=price,
    )


def stopping(instance_id: str, account_id: str = ACCOUNT) -> Event:
    return InstanceStopping(instance_id=instance_id, account_id=account_id, name="n", gpu="RTX 4090")


def hibernated(instance_id: str, at: datetime, account_id: str = ACCOUNT) -> Event:
    return InstanceHibernated(
        instance_id=instance_id, account_id=account_id, name="n", gpu="RTX 4090", snapshot_id="snap_1",
        bytes=40_000_000_000, hibernated_at=at, idle_seconds=0, price_usd_micros_per_hour=1,
    )  # fmt: skip


@dataclass
class BillingWorld:
    """One running service, and what a caller on the bus can do with it."""

    bus: MemoryBus
    pool: Database
    log: MemoryLog
    clock: HandClock
    ids: SystemIds
    begins_ahead: timedelta = timedelta(0)
    said: int = 0
    position: Position | None = None

    def it_is(self, after_its_beginning: timedelta) -> None:
        self.clock.ahead = self.begins_ahead + after_its_beginning

    async def say(self, event: Event, at: datetime | None = None) -> None:
        self.said += 1
        await say(self.log, event, at or self.clock.now(), self.said)

    async def ask(self, message: Command | Query) -> Any:
        """Send; commands return nothing, questions their answer. Reads see the last command."""
        meta = Meta(
            request_id=self.ids.fresh("req"),
            deadline=self.clock.now().timestamp() + DEADLINE_S,
            min_position=self.position,
        )
        answer = await self.bus.ask(message, meta)
        if answer.refused is not None:
            raise AssertionError(f"{message} was refused: {answer.refused}")
        self.position = answer.position or self.position
        if answer.body is None:
            return None
        return msgspec.json.decode(answer.body, type=type(message).reply)  # a question's answer

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def billing_world(
    database_url: str, *, begins_at: time = time(10), **settings: Any
) -> AsyncIterator[BillingWorld]:
    """Everything started, and stopped again in order. Begins at a time (UTC) of the day: midnights count."""
    clock, ids, stop, log = HandClock(), SystemIds(), asyncio.Event(), MemoryLog()
    clock.ahead = datetime.combine(clock.now() + timedelta(days=1), begins_at, UTC) - clock.now()
    is_up = asyncio.Event()
    pool = await open_database(database_url, service=SERVICE.name)
    await ensure_schema(pool, DEFINITION)
    bus = MemoryBus(clock=clock, on_bug=_raise)
    logger, metrics = telemetry.logger("test"), telemetry.Metrics()
    chosen = BillingSettings(**settings)
    rules = aggregates(prepaid=chosen.prepaid, storage_kept=timedelta(days=chosen.storage_kept_days))
    world = World(clock, pool, chosen, {"manual": settle_by_hand}, logger, Instruments(metrics))
    around = Surroundings(
        log=log, store=PostgresStore(pool, fingerprint="test"), bus=bus, clock=clock, ids=ids,
        logger=logger, metrics=metrics, world=world, pool=pool, ready=is_up.set,
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        service = group.create_task(run(replace(SERVICE, aggregates=rules), around, stop))
        await is_up.wait()
        try:
            yield BillingWorld(bus, pool, log, clock, ids, clock.ahead)
        finally:
            stop.set()
            await asyncio.wait((service,), timeout=DEADLINE_S)
    await bus.close()
    await pool.close()


def _raise(error: BaseException) -> None:
    raise error
