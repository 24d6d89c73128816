"""A real webhook dispatch service over the in-memory log and bus, a real database and real receivers on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from libs import telemetry
from libs.clock import SystemClock
from libs.eventlog import EventLog
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.postgres import Database, Definition, PostgresStore, ensure_schema, open_database
from libs.rpc_memory import MemoryBus
from libs.runtime.relaying import envelope
from libs.runtime.run import run
from libs.runtime.surroundings import Surroundings
from libs.sealing import Sealer, signing_key
from proto.base import Command, Event, Heard, Meta, Position, Query, Reply, Signal
from proto.instance.events import InstanceCreated, InstanceDeleted, InstanceReady, InstanceRunning, InstanceStopped
from proto.instance.words import Endpoint, MachineSpec
from proto.webhook_dispatch.commands import CreateEndpoint
from proto.webhook_dispatch.words import SECRET_PURPOSE
from services.webhook_dispatch.effects.fence import Fence
from services.webhook_dispatch.effects.posting import Poster
from services.webhook_dispatch.effects.world import Instruments, World
from services.webhook_dispatch.rooms import SERVICE

ACCOUNT = "acct_default"
PLATFORM_SECRET = "5ec7e7"
DEADLINE_S = 30.0
PAUSE_S = 0.01
PACE_PPM = 20_000  # the first pause of the schedule is 0.1 s, the second 6 s
SEALER = Sealer(PLATFORM_SECRET, purpose=SECRET_PURPOSE)


@dataclass
class Got:
    """One request that a receiver met."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Receiver:
    """An HTTP server on loopback that answers what `answer` says and remembers everything."""

    got: list[Got] = field(default_factory=list)
    answer: Callable[[Got], Any] = lambda _: 200
    url: str = ""

    def at(self, path: str) -> list[Got]:
        return [each for each in self.got if each.path == path]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        got = Got(request.path_qs, dict(request.headers), await request.read())
        self.got.append(got)
        answer = self.answer(got)
        if asyncio.iscoroutine(answer):
            answer = await answer
        return web.Response(status=answer, text="noted") if isinstance(answer, int) else answer


@asynccontextmanager
async def receiver(answer: Callable[[Got], Any] = lambda _: 200) -> AsyncIterator[Receiver]:
    made = Receiver(answer=answer)
    application = web.Application()
    application.router.add_post("/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


async def eventually(condition: Callable[[], Any], *, within_s: float = DEADLINE_S) -> None:
    """Wait until the condition, which may be a coroutine, holds."""
    async with asyncio.timeout(within_s):
        while True:
            held = condition()
            if asyncio.iscoroutine(held):
                held = await held
            if held:
                return
            await asyncio.sleep(PAUSE_S)


def facts_of(instance_id: str, account_id: str = ACCOUNT, webhook_url: str = "") -> Sequence[Event]:
    """The life of an instance, as far as these tests care."""
    about = {"instance_id": instance_id, "account_id": account_id, "name": f"name-{instance_id}", "gpu": "RTX 4090"}
    spec = MachineSpec(gpu="RTX_4090", image="pytorch/pytorch", env={"SECRET_OF_CUSTOMER": "hush"})
    now = SystemClock().now()
    return [
        InstanceCreated(**about, spec=spec, region="CN-HK-01", webhook_url=webhook_url, dialect="novita"),
        InstanceRunning(**about, machine_id="mach_1"),
        InstanceReady(
            **about, machine_id="mach_1", generation=1, ready_at=now, region="CN-HK-01",
            endpoints=(Endpoint(22, "127.0.0.1", 40022), Endpoint(8888, "127.0.0.1", 48888, "http")),
        ),
        InstanceStopped(**about),
        InstanceDeleted(**about),
    ]  # fmt: skip


class Speaker:
    """Says public facts as the relay of another service does."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._clock = SystemClock()
        self._ids = SystemIds()

    def fresh_id(self) -> str:
        return f"{self._ids.fresh('cmt')}.0"

    async def say(self, event: Event, event_id: str = "") -> str:
        """Returns the event's id."""
        event_id = event_id or self.fresh_id()
        about = getattr(event, "instance_id", "other")
        heard = Heard(event, event_id, about, self._clock.now(), "EVT_INSTANCE", 1, correlation="corr_1")
        subject, headers = envelope(heard, "/dumont/instance")
        await self._log.publish("PUB", subject, msgspec.json.encode(event), message_id=event_id, headers=headers)
        return event_id


@dataclass
class WebhookWorld:
    """One running service, and what a caller on the bus can do with it."""

    bus: MemoryBus
    pool: Database
    log: MemoryLog
    world: World
    clock: SystemClock
    ids: SystemIds
    speaker: Speaker
    position: Position | None = None

    async def say(self, *events: Event) -> list[str]:
        return [await self.speaker.say(event) for event in events]

    async def ask(self, message: Command | Query | Signal, reply: Any = None) -> Any:
        """Send; commands return nothing, questions their answer. Reads see the last command."""
        meta = Meta(
            request_id=self.ids.fresh("req"),
            deadline=self.clock.now().timestamp() + DEADLINE_S,
            min_position=self.position,
        )
        answer: Reply = await self.bus.ask(message, meta)
        self.position = answer.position or self.position
        wanted = reply or getattr(type(message), "reply", None)
        return None if wanted is None else msgspec.json.decode(answer.body or b"null", type=wanted)

    async def endpoint(self, url: str, *, events: tuple[str, ...] = ("*",), secret: str = "", **changes: Any) -> str:
        endpoint_id = self.ids.fresh("whe")
        sealed = SEALER.seal(secret, owner=endpoint_id) if secret else ""
        about: dict[str, Any] = {"account_id": ACCOUNT, "name": "mine", **changes}
        await self.ask(
            CreateEndpoint(
                now=self.clock.now(), endpoint_id=endpoint_id, url=url, events=events, sealed_secret=sealed, **about
            )
        )
        return endpoint_id


@asynccontextmanager
async def webhook_world(
    database_url: str, *, log: MemoryLog | None = None, fence: Fence | None = None, pace_ppm: int = PACE_PPM
) -> AsyncIterator[WebhookWorld]:
    """Everything started, and stopped again in order. With the `log` and database of an earlier one it goes on."""
    clock, ids, stop = SystemClock(), SystemIds(), asyncio.Event()
    log = log or MemoryLog()
    pool = await open_database(database_url, service=SERVICE.name)
    await ensure_schema(pool, Definition(SERVICE.name, SERVICE.schema_sql, "test", SERVICE.live_sql))
    bus = MemoryBus(on_bug=_raise)
    logger, metrics = telemetry.logger("test"), telemetry.Metrics()
    poster = Poster(fence or Fence([], is_loopback_allowed=True, is_http_allowed=True), clock)
    store = PostgresStore(pool, fingerprint="test")
    world = World(
        log, store, pool, clock, random.Random(7), SEALER, signing_key(PLATFORM_SECRET, purpose=SECRET_PURPOSE),
        poster, logger, Instruments(metrics),
        pace_ppm=pace_ppm,
    )  # fmt: skip
    around = Surroundings(
        log=log, store=store, bus=bus, clock=clock, ids=ids, logger=logger, metrics=metrics, world=world, pool=pool
    )
    try:
        async with asyncio.TaskGroup() as group:
            service = group.create_task(run(SERVICE, around, stop))
            try:
                await eventually(lambda: world.dispatcher is not None and world.dispatcher.ready.is_set())
                yield WebhookWorld(bus, pool, log, world, clock, ids, Speaker(log))
            finally:
                stop.set()
                await asyncio.wait((service,), timeout=DEADLINE_S)
    finally:
        await bus.close()
        await poster.close()
        await pool.close()


def _raise(error: BaseException) -> None:
    raise error
