"""Projection while live and rebuild from the log, against the same rows written without us.

The log is filled with real lives: the deciders' own commits of one instance (create, rent, boot, probe, stop, start),
copied under other ids of the same length. Servers are the bench's own, so nothing else runs on them.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from libs.clock import SystemClock
from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.memory import MemoryLog
from libs.eventlog.streams import ensure_stream, private_stream
from libs.hosting import definition_of, replayed_rows
from libs.ids import SystemIds
from libs.postgres import Database, Definition, PostgresStore, ensure_schema, open_database, rebuild, table_hashes
from libs.process import loop_runner
from libs.runtime.aggregates import Aggregates
from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from libs.runtime.projecting import Progress, Projector
from libs.runtime.service import Row
from proto.base import Command, Heard
from proto.instance.commands import (
    CreateInstance,
    ReportBooted,
    ReportHealthy,
    ReportRented,
    ReportStopped,
    StartInstance,
    StopInstance,
)
from proto.instance.words import Endpoint, MachineSpec, Offer
from services.instance.rooms import ROOMS, SERVICE
from tests.bench.ceilings import UPSERT_BATCH, fill_ceiling_table, upsert_ceiling
from tests.bench.report import Line

STREAM = "EVT_INSTANCE"
LIVE_INSTANCES = 4_000
REBUILD_EVENTS = 1_000_000
REBUILD_GOAL_S = 8.0
PROJECTION_GOAL = 0.75
APPENDS_IN_FLIGHT = 256
CEILING_SLICE_S = 3.0
PROJECT_MAX_S = 180.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE, MACHINE = f"inst_{0:026d}", f"mach_{0:026d}"


def life(rounds: int) -> Iterable[Command]:
    """What one instance goes through; each round is a stop and a start."""
    spec = MachineSpec(gpu="RTX 4090", image="pytorch:2.0-cuda12", disk_gb=100)
    offer = Offer("offer-1", "sandbox", "host-1", "RTX 4090", 400_000, region="CN-HK-01")
    one = {"now": NOW, "instance_id": INSTANCE}
    machine = {**one, "machine_id": MACHINE}
    endpoints = (Endpoint(22, "127.0.0.1", 40_000), Endpoint(8888, "127.0.0.1", 40_001, "http"))
    yield CreateInstance(**machine, account_id="acct_default", name="bench", spec=spec, offers=(offer,))
    yield ReportRented(**machine, provider="sandbox", provider_machine_id=f"sbx_{0:026d}", offer=offer)
    yield ReportBooted(**machine, endpoints=endpoints)
    yield ReportHealthy(**machine)
    for _ in range(rounds):
        yield StopInstance(**one, account_id="acct_default")
        yield ReportStopped(**machine)
        yield StartInstance(**machine, account_id="acct_default")
        yield ReportBooted(**machine, endpoints=endpoints)
        yield ReportHealthy(**machine)


async def commits_of(commands: Iterable[Command]) -> tuple[list[bytes], int]:
    """The commits those commands lead to, and how many events they hold."""
    log = MemoryLog()
    aggregates = Aggregates(SERVICE, log, SystemClock(), SystemIds())
    for command in commands:
        await aggregates.execute(command)
    stored = await log.read(STREAM, f"evt.instance.instance.{INSTANCE}")
    own = OwnStream(SERVICE, log, Courtesy())
    return [one.data for one in stored], sum(len(own.decode(one)) for one in stored)


async def fill(log: JetStreamLog, commits: list[bytes], first: int, instances: int) -> None:
    """Append the same life for many ids, APPENDS_IN_FLIGHT at a time."""

    async def one(number: int) -> None:
        subject, seq = f"evt.instance.instance.inst_{number:026d}", 0
        for data in commits:
            renamed = data.replace(INSTANCE.encode(), b"inst_%026d" % number)
            renamed = renamed.replace(MACHINE.encode(), b"mach_%026d" % number)
            seq = await log.append(STREAM, subject, renamed, expected_seq=seq)

    numbers = iter(range(first, first + instances))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(APPENDS_IN_FLIGHT)))


@asynccontextmanager
async def ground(folder: Path) -> AsyncGenerator[tuple[JetStreamLog, Database, str, Definition], None]:
    nats, postgres = NatsServer(folder / "nats", durability="relaxed"), PostgresServer(folder / "postgres")
    nats.start()
    postgres.start()
    connection = await open_connection(nats.url, name="bench")
    await ensure_stream(connection, private_stream("instance"))
    database = await open_database(postgres.url, service="instance")
    definition = definition_of(SERVICE, ROOMS)
    await ensure_schema(database, definition)
    try:
        yield JetStreamLog(connection), database, postgres.url, definition
    finally:
        await database.close()
        await connection.close()
        postgres.stop()
        nats.stop()


async def project_live(log: JetStreamLog, database: Database, definition: Definition) -> tuple[int, float]:
    """Project all there is and not yet projected, as the service does; rows merged and the seconds that took."""
    rows = 0

    def counted(heard: Heard) -> list[Row]:
        nonlocal rows
        found = list(SERVICE.project(heard))
        rows += len(found)
        return found

    progress, clock = Progress(), SystemClock()
    store = PostgresStore(database, fingerprint=definition.fingerprint)
    last_seq, started = await log.last_seq(STREAM), time.perf_counter()
    task = asyncio.create_task(Projector(OwnStream(SERVICE, log, Courtesy()), store, counted, progress, clock).run())
    assert await progress.wait_for(last_seq, timeout_s=PROJECT_MAX_S, store=store, clock=clock)
    took_s = time.perf_counter() - started
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return rows, took_s


async def projection_line(log: JetStreamLog, database: Database, url: str, definition: Definition) -> Line:
    """Rows merged per second while following; every event of a life merges at least one row."""
    commits, events = await commits_of(life(rounds=2))
    await fill(log, commits, 0, LIVE_INSTANCES)
    rows, took_s = await project_live(log, database, definition)
    await fill_ceiling_table(url)
    ceiling = await upsert_ceiling(url, CEILING_SLICE_S)
    ours = rows / took_s
    return Line(
        "projection, live",
        f"{ours:,.0f} rows/s ({LIVE_INSTANCES * events / took_s:,.0f} events/s)",
        f"{ceiling:,.0f} rows/s (UNNEST, {UPSERT_BATCH} a transaction)",
        f"{ours / ceiling:.2f}",
        f">= {PROJECTION_GOAL:.2f}",
        ours / ceiling >= PROJECTION_GOAL,
    )


async def rebuild_line(log: JetStreamLog, database: Database, url: str, definition: Definition) -> Line:
    """Replay everything beside the live rows, which must come out equal."""
    commits, events = await commits_of(life(rounds=2))
    instances = REBUILD_EVENTS // events
    await fill(log, commits, LIVE_INSTANCES, instances - LIVE_INSTANCES)
    await project_live(log, database, definition)
    before = await table_hashes(database, "instance")
    batches = replayed_rows(OwnStream(SERVICE, log, Courtesy()), SERVICE)
    last_seq, started = await log.last_seq(STREAM), time.perf_counter()
    done = await rebuild(database, definition, batches, target_seq=last_seq, on_progress=lambda _: None)
    took_s = time.perf_counter() - started
    assert await table_hashes(database, "instance") == before, "the rebuilt rows differ from the live ones"
    copy = await fill_ceiling_table(url)
    return Line(
        f"rebuild, {instances * events:,} events -> {done.rows:,} rows, hashes equal",
        f"{took_s:.1f} s ({instances * events / took_s:,.0f} events/s)",
        f"COPY {copy:,.0f} rows/s",
        "-",
        f"<= {REBUILD_GOAL_S:.0f} s",
        took_s <= REBUILD_GOAL_S,
    )


async def _measure() -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        async with ground(Path(folder)) as (log, database, url, definition):
            lines = [await projection_line(log, database, url, definition)]
            lines.append(await rebuild_line(log, database, url, definition))
    return lines


def measure() -> list[Line]:
    with loop_runner() as loop:  # what our services run on
        return loop.run(_measure())
