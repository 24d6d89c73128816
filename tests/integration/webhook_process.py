"""Webhook dispatch as a process of its own on real servers, and the bus to talk to it: for kills and for benches."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psutil

from libs.clock import SystemClock
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import ensure_stream, public_stream
from libs.ids import SystemIds
from libs.refusal import Transient
from libs.rpc import NatsBus
from proto.base import Command, Meta, Query, Signal
from proto.webhook_dispatch.commands import CreateEndpoint
from tests.integration.platform_here import ROOT
from tests.integration.webhook_world import ACCOUNT, PLATFORM_SECRET, eventually

ASK_MAX_S = 2.0


class Dispatching:
    """The service in a process of its own. `pace_ppm` shortens the pauses between tries."""

    def __init__(self, nats_url: str, postgres_url: str, *, pace_ppm: int = 1_000_000) -> None:
        self._environment = {
            **os.environ,
            "DUMONT_NATS_URL": nats_url,
            "DUMONT_POSTGRES_URL": postgres_url,
            "DUMONT_SECRET": PLATFORM_SECRET,
            "DUMONT_WEBHOOK_PACE_PPM": str(pace_ppm),
            "DUMONT_WEBHOOK_PUBLIC": "false",
            "DUMONT_LOG_LEVEL": "warning",
            "DUMONT_DURABILITY": "always",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.webhook_dispatch", cwd=ROOT, env=self._environment
        )

    async def kill(self) -> None:
        assert self._process is not None and self._process.returncode is None, "it ended by itself"
        self._process.kill()
        await self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def cpu_s(self) -> float:
        """Seconds of processor it has used."""
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def memory_mb(self) -> float:
        assert self._process is not None
        return psutil.Process(self._process.pid).memory_info().rss / 1024 / 1024


class Owner:
    """Asks the service what an account's owner may ask."""

    def __init__(self, bus: NatsBus, log: JetStreamLog) -> None:
        self._bus = bus
        self.log = log
        self._clock, self._ids = SystemClock(), SystemIds()

    async def ask(self, message: Command | Query | Signal) -> Any:
        """None while the service, the log or the database is away."""
        meta = Meta(
            request_id=self._ids.fresh("req"), deadline=self._clock.now().timestamp() + ASK_MAX_S, account_id=ACCOUNT
        )
        try:
            return await self._bus.ask(message, meta)
        except Transient:
            return None

    async def endpoint(
        self, endpoint_id: str, url: str, events: Sequence[str] = ("*",), account_id: str = ACCOUNT
    ) -> None:
        """Made when this returns, however long the service takes to come up."""
        about = {"account_id": account_id, "name": "mine", "url": url, "events": tuple(events)}

        async def is_made() -> bool:
            reply = await self.ask(CreateEndpoint(now=self._clock.now(), endpoint_id=endpoint_id, **about))
            return reply is not None and reply.position is not None

        await eventually(is_made)


@asynccontextmanager
async def owner(nats_url: str) -> AsyncIterator[Owner]:
    connection = await open_connection(nats_url, name="test")
    await ensure_stream(connection, public_stream(replicas=1))
    yield Owner(NatsBus(connection, on_bug=lambda _: None), JetStreamLog(connection, appending="grouped"))
    await connection.close()
