"""The daemon's life: open the records, serve the API on the loopback, put every machine to sleep at the end.

Called by `__main__` with what had to be made before the event loop. Owns DATA/sandbox/lock (one daemon per directory)
and DATA/sandbox/daemon.json (where it listens; port 0 in DUMONT_SANDBOX_URL lets the system pick).
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from msgspec import Struct

from libs import config, telemetry
from libs.clock import SystemClock
from libs.config import Secret, setting
from libs.ids import SystemIds
from libs.process import Running
from libs.telemetry.log import logger
from services.sandbox.bills import Bills
from services.sandbox.carriers import Carrier, ProcessCarrier, open_virtual
from services.sandbox.cloud import Cloud
from services.sandbox.homes import Homes
from services.sandbox.news import NewsRoom
from services.sandbox.options import Options
from services.sandbox.records import Records, replace
from services.sandbox.routes import Api
from services.sandbox.volumes import Volumes
from services.sandbox.zygote import Zygote

SHUTDOWN_TIMEOUT_S = 2.0  # for requests in flight; machines have their own grace
log = logger("sandbox")


class SandboxSettings(Struct, frozen=True):
    """How the sandbox cloud is started."""

    data_dir: Annotated[str, setting("machines, records and keys live in DATA/sandbox", unit="path", example=".dumont")]
    sandbox_url: Annotated[
        str,
        setting(
            "where the sandbox cloud listens; loopback only, port 0 lets the system pick", example="http://127.0.0.1:0"
        ),
    ]
    sandbox_key: Annotated[Secret, setting("key that callers of the sandbox cloud show as a bearer token")]
    gateway_url: Annotated[
        str, setting("what agents in machines are told, whatever they were ordered with; empty: that")
    ] = ""
    sandbox_options: Annotated[
        str, setting("pace, luck and size of the sandbox, one JSON object", example='{"virtual":true}')
    ] = ""
    log_level: Annotated[str, setting("least important lines that are written", example="info")] = "info"


class NotLoopback(Exception):
    """The sandbox runs strangers' shells on this host: it is never offered to a network."""


class AlreadyRunning(Exception):
    """Another daemon serves this directory."""


class Place(Struct, frozen=True):
    """What `__main__` prepared before the event loop."""

    settings: SandboxSettings
    options: Options
    root: Path
    homes: Homes | None  # None: virtual
    zygote: Zygote | None


def read_settings() -> SandboxSettings:
    return config.read(SandboxSettings)


async def serve(place: Place, running: Running) -> None:
    """Run until asked to stop."""
    telemetry.configure(service="sandbox", log_level=place.settings.log_level)
    host, port = _address(place.settings.sandbox_url)
    lock = _lock(place.root / "lock")
    try:
        async with asyncio.TaskGroup() as tasks:
            cloud = await _open_cloud(place, tasks)
            stopping = asyncio.Event()
            api = Api(cloud, place.settings.sandbox_key.reveal(), stopping)
            runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
            await runner.setup()
            site = web.TCPSite(runner, host, port, reuse_address=True)
            await site.start()
            url = f"http://{host}:{runner.addresses[0][1]}"
            replace(place.root / "daemon.json", msgspec.json.encode({"url": url, "pid": os.getpid()}))
            log.info("sandbox.ready", url=url, virtual=place.options.virtual, machines=cloud.counts())
            running.ready()
            await _until_stopped(place.zygote, running)
            stopping.set()
            await runner.cleanup()
            await cloud.close()
            log.info("sandbox.stopped")
    finally:
        os.close(lock)
        telemetry.stop()


async def _open_cloud(place: Place, tasks: asyncio.TaskGroup) -> Cloud:
    ids, clock, options = SystemIds(), SystemClock(), place.options
    records = Records(place.root / "records")
    carrier: Carrier
    if place.homes is not None and place.zygote is not None:
        await place.zygote.hello()
        if place.settings.gateway_url:
            place.homes.tell(place.homes.gateway_file, place.settings.gateway_url.encode())
        carrier = ProcessCarrier(place.root, place.homes, place.zygote)
        free_user = place.homes.free_user
    else:
        carrier = await open_virtual()
        free_user = _nobody
    bills = Bills(place.root, options.charge_delay_s)
    volumes = Volumes(
        place.root / "volumes.json",
        place.homes,
        ids,
        bills=bills,
        price_usd_micros_per_gb_hour=options.volume_price_usd_micros_per_gb_hour,
    )
    for item in volumes.items():  # those of a release that charged nothing for them
        bills.note(item, clock.now().timestamp(), is_on=True)
    news = NewsRoom(
        ids.fresh("life"),
        Random(options.seed + 2),  # noqa: S311 - decides which news are lost, not a secret
        loss_ppm=options.news_loss_ppm,
        duplicate_ppm=options.news_duplicate_ppm,
    )
    cloud = Cloud(
        options,
        records=records,
        carrier=carrier,
        volumes=volumes,
        bills=bills,
        news=news,
        clock=clock,
        ids=ids,
        free_user=free_user,
        tasks=tasks,
    )
    await cloud.open()
    return cloud


async def _until_stopped(zygote: Zygote | None, running: Running) -> None:
    """Wait for the order to stop. Raises ZygoteLost when the warmed parent dies first."""
    if zygote is None:
        await running.stop.wait()
        return
    lost = asyncio.ensure_future(zygote.lost())
    asked = asyncio.ensure_future(running.stop.wait())
    await asyncio.wait([lost, asked], return_when=asyncio.FIRST_COMPLETED)
    if lost.done():
        asked.cancel()
        await lost
    lost.cancel()


def _nobody(_taken: Iterable[int]) -> int:
    return 0


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or not ipaddress.ip_address(host).is_loopback:
        raise NotLoopback(f"DUMONT_SANDBOX_URL must be http on a loopback address, not {url}")
    return host, parts.port or 0


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise AlreadyRunning(f"another sandbox daemon holds {path}") from error
    return descriptor
