"""The gateway as real processes on a real nats-server: replicas, an outage of the bus, an orderly end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from msgspec.structs import asdict

from libs.clock import SystemClock
from libs.embedded.nats import NatsServer
from libs.eventlog.connection import open_connection
from libs.rpc import NatsBus
from proto.base import Command, Meta
from proto.gateway.commands import IssueKey, OpenAccount, RevokeKey
from proto.gateway.words import fingerprint
from tests.integration.billing_owner import BillingOwner
from tests.integration.gateway_world import KEY, SECRET, Owner
from tests.integration.survival_owner import SurvivalOwner

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0
DUMONT = {"gpu": "RTX 4090"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def gateway_process(nats: NatsServer, **settings: str) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    environment = os.environ | {
        "DUMONT_NATS_URL": nats.url,
        "DUMONT_SECRET": SECRET,
        "DUMONT_GATEWAY_PORT": str(port),
        "DUMONT_LOG_LEVEL": "info",
        **settings,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.gateway"], cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {DEADLINE_S} s: {what}") from None


class Client:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def status(self, url: str, method: str = "GET", **more: Any) -> int:
        """0 when nobody listens."""
        try:
            async with self._http.request(method, url, headers={"X-API-Key": KEY}, **more) as response:
                await response.read()
                return response.status
        except aiohttp.ClientConnectionError:
            return 0


async def wish(bus: NatsBus, command: Command) -> None:
    await bus.ask(command, Meta(request_id="req_test", deadline=datetime.now(UTC).timestamp() + 5))


def issue_key() -> IssueKey:
    return IssueKey(
        now=datetime.now(UTC), key_id="key_1", account_id="acct_default", name="test", **asdict(fingerprint(KEY)),
    )  # fmt: skip


async def test_replicas_share_keys_and_an_outage_of_the_bus_is_503_until_it_is_over(fresh_nats: NatsServer) -> None:
    connection = await open_connection(fresh_nats.url, name="test")
    owner = Owner()
    bus = NatsBus(connection, clock=SystemClock(), on_bug=lambda error: None)
    await bus.serve("instance", owner.answer)
    await bus.serve("billing", BillingOwner(100).answer)
    await bus.serve("failover", SurvivalOwner().answer)
    async with (
        gateway_process(fresh_nats) as (first, one),
        gateway_process(fresh_nats) as (second, two),
        aiohttp.ClientSession() as http,
    ):
        client = Client(http)
        for url in (one, two):
            await until(lambda url=url: _is(client.status(f"{url}/readyz"), 200), "the gateway is ready")
        assert await client.status(f"{one}/api/v1/instances") == 401
        await wish(bus, issue_key())
        for url in (one, two):
            await until(lambda url=url: _is(client.status(f"{url}/api/v1/instances"), 200), "the key works")
        assert await client.status(f"{one}/api/v1/instances", "POST", json=DUMONT) == 201

        fresh_nats.kill()
        assert await client.status(f"{one}/api/v1/instances") == 503
        assert await client.status(f"{one}/api/v1/instances", "POST", json=DUMONT) in (503, 504)
        assert await client.status(f"{one}/api/v1/api-keys", "POST", json={"name": "ci"}) in (503, 504)
        assert await client.status(f"{one}/livez") == 200
        assert await client.status(f"{one}/readyz") == 503
        fresh_nats.start()
        for url in (one, two):
            await until(lambda url=url: _is(client.status(f"{url}/readyz"), 200), "the gateway is back")
        assert await client.status(f"{two}/api/v1/instances") == 200

        await wish(bus, RevokeKey(now=datetime.now(UTC), key_id="key_1", account_id="acct_default"))
        for url in (one, two):
            await until(lambda url=url: _is(client.status(f"{url}/api/v1/instances"), 401), "the key is refused")

        for process in (first, second):
            process.send_signal(signal.SIGTERM)
            _, log = await asyncio.to_thread(process.communicate, timeout=DEADLINE_S)
            assert process.returncode == 0, log.decode()
            assert KEY.encode() not in log
            assert b"http.bug" not in log, log.decode()
    await bus.close()
    await connection.close()


async def test_two_replicas_share_a_limit_and_a_revocation(fresh_nats: NatsServer) -> None:
    """Half of the requests here, half there, all at once: together they let through what one would."""
    connection = await open_connection(fresh_nats.url, name="test")
    bus = NatsBus(connection, clock=SystemClock(), on_bug=lambda error: None)
    async with (
        gateway_process(fresh_nats) as (_, one),
        gateway_process(fresh_nats) as (_, two),
        aiohttp.ClientSession() as http,
    ):
        client = Client(http)
        for url in (one, two):
            await until(lambda url=url: _shows(http, url, "dumont_gateway_replicas", 2), "the replicas know each other")
        await wish(bus, OpenAccount(now=datetime.now(UTC), account_id="acct_default", name="test", plan="free"))
        await wish(bus, issue_key())
        began = asyncio.get_running_loop().time()
        for url in (one, two):
            await until(lambda url=url: _is(client.status(f"{url}/api/v1/account"), 200), "the key works")
        statuses = await asyncio.gather(*(client.status(f"{url}/api/v1/account") for url in (one, two) * 60))
        took_s = asyncio.get_running_loop().time() - began
        assert set(statuses) == {200, 429}
        assert 57 <= statuses.count(200) + 2 <= 63 + took_s

        await wish(bus, RevokeKey(now=datetime.now(UTC), key_id="key_1", account_id="acct_default"))
        for url in (one, two):
            await until(lambda url=url: _is(client.status(f"{url}/api/v1/account"), 401), "the key is refused")
    await bus.close()
    await connection.close()


async def _shows(http: aiohttp.ClientSession, url: str, metric: str, value: int) -> bool:
    try:
        async with http.get(f"{url}/metrics") as response:
            text = await response.text()
    except aiohttp.ClientConnectionError:
        return False
    return f'{metric}{{service="gateway"}} {value}\n' in text


async def _is(status: Awaitable[int], wanted: int) -> bool:
    return await status == wanted
