"""The gateway's process: settings, one connection for bus and log, HTTP. It needs no database."""

from __future__ import annotations

from libs import config, process, telemetry
from libs.clock import SystemClock
from libs.eventlog.jetstream import JetStreamLog
from libs.ids import SystemIds
from libs.peers import NatsPeers
from libs.rpc import NatsBus
from libs.starting import Bug
from services.gateway.config import GatewaySettings
from services.gateway.server import NAME, connected, make, serve


async def gateway(running: process.Running) -> None:
    settings, clock, ids, bug = config.read(GatewaySettings), SystemClock(), SystemIds(), Bug()
    telemetry.configure(
        service=NAME,
        log_level=settings.log_level,
        trace_sample_ppm=settings.trace_sample_ppm,
        otlp_endpoint=settings.otlp_endpoint,
    )
    connection = await connected(settings, clock)
    bus, log = NatsBus(connection, clock=clock, on_bug=bug.report), JetStreamLog(connection)
    peers = NatsPeers(connection, clock, service=NAME, me=ids.fresh("gw"))
    made = make(
        settings, log=log, bus=bus, peers=peers, clock=clock, ids=ids, is_connected=lambda: connection.is_connected
    )
    await serve(made, running.stop, bug, lambda _: running.ready())
    await bus.close()
    await connection.close()


def main() -> None:
    process.run(gateway)


if __name__ == "__main__":
    main()
