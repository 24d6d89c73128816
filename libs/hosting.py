"""The common part of every composition root: connections, streams, schema, and a service run on them until it is told
to stop.

Called by each service's `__main__`; chooses the production adapters (JetStream, PostgreSQL, NATS request/reply), which
is why only composition roots may import it. Owns the start-up order and the rebuild that a changed projection asks for.

A projection's fingerprint is the hash of its `schema.sql` and `projection` sources: change either and the next start
rebuilds the rows from the log beside the old ones, which are served meanwhile (design 4).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Struct

from libs import config, telemetry
from libs.clock import Clock, SystemClock
from libs.eventlog.connection import Connection, open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import dead_letters, ensure_stream, private_stream, public_stream
from libs.ids import Ids, SystemIds
from libs.postgres import (
    Database,
    Definition,
    PostgresStore,
    RebuildProgress,
    RebuildRunning,
    Rebuilt,
    ensure_schema,
    open_database,
    rebuild,
)
from libs.process import Running
from libs.refusal import Transient
from libs.rpc import NatsBus
from libs.runtime.codec import stream_of
from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from libs.runtime.recent import Recent
from libs.runtime.run import run
from libs.runtime.service import Row, Service
from libs.runtime.surroundings import Surroundings
from libs.starting import Bug, once_well

REBUILD_RETRY_S = 5.0


class HostSettings(Struct, frozen=True):
    """Where a service finds the servers, and how much it says."""

    nats_url: Annotated[
        config.Secret, config.setting("the bus and the event log", example="nats://user:secret@127.0.0.1:4222")
    ]
    postgres_url: Annotated[
        config.Secret, config.setting("the projections", example="postgresql://user:secret@127.0.0.1:5432/dumont")
    ]
    log_level: Annotated[
        str, config.setting("lines below this level are dropped", pattern="^(debug|info|warning|error)$")
    ] = "info"
    trace_sample_ppm: Annotated[
        int, config.setting("share of requests traced when the caller did not decide", unit="ppm", ge=0, le=1_000_000)
    ] = 10_000
    otlp_endpoint: Annotated[
        str, config.setting("OTLP/HTTP base URL for traces; empty: none", env="OTEL_EXPORTER_OTLP_ENDPOINT")
    ] = ""
    stream_replicas: Annotated[int, config.setting("copies of every stream in a NATS cluster", ge=1, le=5)] = 1
    durability: Annotated[
        str,
        config.setting(
            "how the NATS server syncs: always, relaxed, or outside (its operator knows)",
            pattern="^(always|relaxed|outside)$",
        ),
    ] = "outside"

    @property
    def appending(self) -> Literal["singly", "grouped"]:
        """A lone server that syncs every write has no group commit of its own: there, waiting commits share one
        (34,000/s against 6,300/s with 1,000 writers). A cluster groups by itself; without syncs there is nothing to
        save.
        """
        return "grouped" if self.durability == "always" and self.stream_replicas == 1 else "singly"


@dataclass(frozen=True)
class Ground:
    """What a service may be built on: everything here is open and ready."""

    connection: Connection
    log: JetStreamLog
    bus: NatsBus
    database: Database
    clock: Clock
    ids: Ids
    logger: telemetry.Logger
    metrics: telemetry.Metrics
    recent: Recent


# The service as values, and the world its effects and queries live in.
Build = Callable[[Ground], Awaitable[tuple[Service, Any]]]


async def host(name: str, rooms: Path, build: Build, running: Running) -> None:
    """Run service `name`, whose rooms lie in `rooms`, until `running.stop` is set."""
    bug = Bug()
    async with ground(name, on_bug=bug.report) as found:
        service, world = await build(found)
        definition = definition_of(service, rooms)
        active = await once_well(lambda: ensure_schema(found.database, definition), found.clock)
        around = Surroundings(
            log=found.log,
            store=PostgresStore(found.database, fingerprint=definition.fingerprint),
            bus=found.bus,
            clock=found.clock,
            ids=found.ids,
            logger=found.logger,
            metrics=found.metrics,
            world=world,
            pool=found.database,
            ready=running.ready,
            recent=found.recent,
        )
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(bug.raised())
            renewal = None
            if active.fingerprint != definition.fingerprint:
                renewal = group.create_task(_renew(found, service, definition))
            await run(service, around, running.stop)
            watch.cancel()
            if renewal is not None:
                renewal.cancel()


@asynccontextmanager
async def ground(name: str, *, on_bug: Callable[[BaseException], Any]) -> AsyncGenerator[Ground, None]:
    """Open everything a service stands on; close it in reverse order."""
    settings = config.read(HostSettings)
    telemetry.configure(
        service=name,
        log_level=settings.log_level,
        trace_sample_ppm=settings.trace_sample_ppm,
        otlp_endpoint=settings.otlp_endpoint,
    )
    clock = SystemClock()
    metrics = telemetry.Metrics({"service": name})
    telemetry.process_metrics(metrics, clock)
    connection = await once_well(lambda: open_connection(settings.nats_url.reveal(), name=name), clock)
    try:
        for spec in (
            private_stream(name, replicas=settings.stream_replicas),
            public_stream(replicas=settings.stream_replicas),
            dead_letters(replicas=settings.stream_replicas),
        ):
            await once_well(lambda spec=spec: ensure_stream(connection, spec), clock)
        database = await once_well(lambda: open_database(settings.postgres_url.reveal(), service=name), clock)
        try:
            yield Ground(
                connection=connection,
                log=JetStreamLog(connection, appending=settings.appending),
                bus=NatsBus(connection, on_bug=on_bug),
                database=database,
                clock=clock,
                ids=SystemIds(),
                logger=telemetry.logger(name),
                metrics=metrics,
                recent=Recent(),
            )
        finally:
            await database.close()
    finally:
        await connection.close()
        telemetry.stop()


def definition_of(service: Service, rooms: Path) -> Definition:
    """The tables a service wants, with the fingerprint of what makes their rows."""
    digest = hashlib.sha256(service.schema_sql.encode())
    for path in sorted([*rooms.glob("projection.py"), *rooms.glob("projection/*.py")]):
        digest.update(path.read_bytes())
    return Definition(service.name, service.schema_sql, digest.hexdigest(), service.live_sql)


async def rebuild_projection(
    found: Ground, service: Service, definition: Definition, on_progress: Callable[[RebuildProgress], None]
) -> Rebuilt:
    """Replay the service's whole log into a new version of its tables and make it the one that is read."""
    own = OwnStream(service, found.log, Courtesy())
    target_seq = await found.log.last_seq(stream_of(service.name))
    async with aclosing(replayed_rows(own, service)) as batches:
        return await rebuild(found.database, definition, batches, target_seq=target_seq, on_progress=on_progress)


async def replayed_rows(own: OwnStream, service: Service) -> AsyncGenerator[tuple[Iterator[Row], int], None]:
    """What the projection says about the whole log, for `rebuild`: each event is decoded and projected when its rows
    are asked for.
    """
    async with aclosing(own.replay(0)) as batches:
        async for events, seq in batches:
            yield (row for heard in events for row in service.project(heard)), seq


async def _renew(found: Ground, service: Service, definition: Definition) -> None:
    """Rebuild because the projection has changed; another replica that does it already is as good."""
    while True:
        try:
            rebuilt = await rebuild_projection(found, service, definition, lambda _: None)
        except RebuildRunning:
            # Another replica builds, or a killed one has not let go yet: look again until the new rows are there.
            await found.clock.sleep(REBUILD_RETRY_S)
            active = await once_well(lambda: ensure_schema(found.database, definition), found.clock)
            if active.fingerprint == definition.fingerprint:
                return
        except Transient as unwell:
            found.logger.warning("rebuild.postponed", cause=str(unwell))
            await found.clock.sleep(REBUILD_RETRY_S)
        else:
            found.logger.info("rebuild.done", version=rebuilt.version, rows=rebuilt.rows, seq=rebuilt.seq)
            return
