"""The gateway's process: settings, one connection for bus and log, HTTP. It needs no database."""

from __future__ import annotations

from libs import config, process, telemetry
from libs.clock import SystemClock
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import ensure_stream, private_stream, public_stream
from libs.ids import SystemIds
from libs.rpc import NatsBus
from services.gateway.config import GatewaySettings
from services.gateway.server import NAME, Bug, make, serve, until_well


async def gateway(running: process.Running) -> None:
    settings = config.read(GatewaySettings)
    telemetry.configure(
        service=NAME,
        log_level=settings.log_level,
        trace_sample_ppm=settings.trace_sample_ppm,
        otlp_endpoint=settings.otlp_endpoint,
    )
    clock, bug, replicas = SystemClock(), Bug(), settings.stream_replicas
    connection = await until_well(lambda: open_connection(settings.nats_url.reveal(), name=NAME), clock)
    for stream in (private_stream(NAME, replicas=replicas), public_stream(replicas=replicas)):
        await until_well(lambda stream=stream: ensure_stream(connection, stream), clock)
    bus, log = NatsBus(connection, clock=clock, on_bug=bug.report), JetStreamLog(connection)
    made = make(settings, log=log, bus=bus, clock=clock, ids=SystemIds(), is_connected=lambda: connection.is_connected)
    await serve(made, running.stop, bug, lambda _: running.ready())
    await bus.close()
    await connection.close()


def main() -> None:
    process.run(gateway)


if __name__ == "__main__":
    main()
