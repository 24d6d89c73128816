"""The gateway as a running thing: HTTP in front, the bus behind. Called by `__main__` and by integration tests.

Owns the life of its tasks (one TaskGroup) and the order of a graceful stop: no new connections, then finish what is in
flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache

import msgspec
from aiohttp import web

from libs.clock import Clock
from libs.eventlog import EventLog
from libs.eventlog.connection import Connection, open_connection
from libs.eventlog.streams import ensure_stream, private_stream, public_stream
from libs.ids import Ids
from libs.peers import Peers
from libs.refusal import Refused
from libs.runtime.bus import Bus
from libs.sealing import Sealer
from libs.starting import Bug, once_well
from libs.telemetry import Metrics, logger
from proto.base import Reply, Request
from proto.gateway.commands import AnyCommand
from proto.gateway.queries import ListKeys
from proto.health import MetricsText, ServiceHealth
from proto.instance.words import SPEC_PURPOSE
from services.gateway.config import GatewaySettings
from services.gateway.feed.feed import Feed
from services.gateway.gateway import Gateway, Positions, Protections
from services.gateway.keys import Keys
from services.gateway.limits.charging import Limits
from services.gateway.limits.table import limit_table
from services.gateway.openapi_document import openapi_document
from services.gateway.pipeline import Pipeline
from services.gateway.usage import note_last, note_usage
from services.gateway.vitals import VERSION, Vitals
from services.gateway.wire import HttpServer

# The longest wait a caller may ask for is 60 s (`?wait=`); a supervisor gives us 10 s before it kills.
SHUTDOWN_S_MAX = 8.0
BACKLOG = 1024

NAME = "gateway"

_log = logger("gateway")
_commands = msgspec.json.Decoder(AnyCommand)


def make(
    settings: GatewaySettings,
    *,
    log: EventLog,
    bus: Bus,
    peers: Peers,
    clock: Clock,
    ids: Ids,
    is_connected: Callable[[], bool],
) -> Gateway:
    """A gateway over the given ports. Raises ConfigError."""
    settings.check()
    metrics = Metrics({"service": "gateway"})
    feed = Feed(log, clock, metrics)
    keys = Keys(log, clock, ids, on_revoked=feed.recheck)
    table = limit_table(settings.limits)
    return Gateway(
        settings=settings,
        bus=bus,
        keys=keys,
        limits=Limits(table, clock, peers, metrics, keys.accounts, is_on=not settings.no_limits),
        vitals=Vitals(bus, clock, ids, metrics),
        positions=Positions(clock),
        protections=Protections(clock),
        feed=feed,
        clock=clock,
        ids=ids,
        logger=logger("http"),
        is_connected=is_connected,
        openapi=cache(lambda: msgspec.json.encode(openapi_document())),
        specs=Sealer(settings.secret.reveal(), purpose=SPEC_PURPOSE),
    )


async def connected(settings: GatewaySettings, clock: Clock) -> Connection:
    """One connection for bus, log and peers, once the streams that we read are there."""
    connection = await once_well(lambda: open_connection(settings.nats_url.reveal(), name=NAME), clock)
    replicas = settings.stream_replicas
    for stream in (private_stream(NAME, replicas=replicas), public_stream(replicas=replicas)):
        await once_well(lambda stream=stream: ensure_stream(connection, stream), clock)
    return connection


async def serve(gateway: Gateway, stop: asyncio.Event, bug: Bug, ready: Callable[[int], None]) -> None:
    """Serve until `stop` is set; `ready` is told the port that was bound.

    Raises OSError when the port is taken, and any bug.
    """
    runner = web.ServerRunner(HttpServer(Pipeline(gateway)), shutdown_timeout=SHUTDOWN_S_MAX)
    await runner.setup()
    site = web.TCPSite(runner, gateway.settings.gateway_host, gateway.settings.gateway_port, backlog=BACKLOG)
    await site.start()
    try:
        async with asyncio.TaskGroup() as group:
            always = (
                gateway.keys.follow(), gateway.vitals.watch(), gateway.limits.run(), note_usage(gateway),
                gateway.feed.follow(), gateway.feed.push(), bug.raised(),
            )  # fmt: skip
            tasks = [group.create_task(task) for task in always]
            await gateway.bus.serve(NAME, answering(gateway))
            port = _port(runner)
            _log.info("gateway.listening", host=gateway.settings.gateway_host, port=port)
            if gateway.settings.no_limits:
                _log.warning(
                    "limits.off", reason="--no-limits: nothing is counted, for load tests on this machine only"
                )
            ready(port)
            await stop.wait()
            gateway.feed.close()
            await site.stop()
            await runner.cleanup()
            await note_last(gateway)
            for task in tasks:
                task.cancel()
    finally:
        await runner.cleanup()


def answering(gateway: Gateway) -> Callable[[str, Request], Awaitable[Reply]]:
    """What the gateway answers on the bus: wishes about keys and accounts, and how it is."""

    async def answer(subject: str, request: Request) -> Reply:
        kind, _, tag = subject.split(".", 2)
        if kind == "cmd":
            meta = request.meta
            position = await gateway.keys.execute(
                _commands.decode(request.body),
                cause=meta.request_id,
                correlation=meta.correlation,
                trace=meta.trace,
            )
            return Reply(position=position)
        return Reply(body=msgspec.Raw(msgspec.json.encode(_told(gateway, tag, request))))

    return answer


def _told(gateway: Gateway, tag: str, request: Request) -> object:
    match tag:
        case "keys":
            return gateway.keys.of_account(msgspec.json.decode(request.body, type=ListKeys).account_id)
        case "accounts":
            return gateway.keys.accounts.all()
        case "health":
            return _health(gateway)
        case "metrics":
            return MetricsText(gateway.vitals.own_metrics_text())
        case _:
            raise Refused("NOT_FOUND", method="qry", path=tag)


def _health(gateway: Gateway) -> ServiceHealth:
    reasons = [] if gateway.keys.caught_up else ["the index of keys is not caught up"]
    return ServiceHealth(
        service="gateway",
        ready=not reasons,
        reasons=reasons,
        version=VERSION,
        uptime_s=int(gateway.vitals.uptime_s),
        projection_lag_events=0,
        relay_lag_events=0,
        effects_running=0,
        dead_letters=0,
    )


def _port(runner: web.ServerRunner) -> int:
    address = runner.addresses[0]
    return int(address[1])
