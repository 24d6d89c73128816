"""kill -9 of billing, nats-server and postgres while accounts are metered and top themselves up: no tick and no payment
is lost, none counts twice."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from libs.clock import SystemClock
from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import ensure_stream, public_stream
from libs.ids import SystemIds
from libs.money import cost_micros
from libs.refusal import Transient
from libs.rpc import NatsBus
from proto.base import Command, Meta, Query
from proto.billing.commands import AddCredits, SetAlerts, Tick
from proto.billing.queries import BalanceView, GetBalance
from proto.billing.words import AlertSettings, AutoTopUp
from tests.integration.billing_world import ready, say, stopping
from tests.integration.platform_here import ROOT

ACCOUNTS = 6
INSTANCES_EACH = 5
TICKS = 30
PRICE = 777_777
ASK_MAX_S = 2.0
DEADLINE_S = 60.0
USD = 1_000_000
PAID, TOP_UP, TOP_UPS = 1_000 * USD, 20 * USD, 8
START = datetime(2060, 1, 1, 10, tzinfo=UTC)  # ahead of any clock, so that only our own ticks are due


class Billing:
    """The service in a process of its own."""

    def __init__(self, nats_url: str, postgres_url: str) -> None:
        self._environment = {
            **os.environ,
            "DUMONT_NATS_URL": nats_url,
            "DUMONT_POSTGRES_URL": postgres_url,
            "DUMONT_LOG_LEVEL": "error",
            "DUMONT_DURABILITY": "always",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.billing", cwd=ROOT, env=self._environment
        )

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def bus_and_log(nats: NatsServer) -> AsyncIterator[tuple[NatsBus, JetStreamLog]]:
    connection = await open_connection(nats.url, name="test")
    await ensure_stream(connection, public_stream(replicas=1))
    yield NatsBus(connection, on_bug=lambda _: None), JetStreamLog(connection)
    await connection.close()


async def again_until_well(act: Callable[[], Awaitable[object]]) -> object:
    """Whatever is down comes back; a wish whose outcome is unknown is sent again, as a gateway does."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await act()
            except Transient:
                await asyncio.sleep(0.05)


async def test_no_tick_is_lost_or_charged_twice(tmp_path: Path) -> None:
    chance, clock, ids = random.Random(5), SystemClock(), SystemIds()
    nats = NatsServer(tmp_path / "nats", durability="always")
    postgres = PostgresServer(tmp_path / "postgres")
    nats.start()
    postgres.start()
    billing = Billing(nats.url, postgres.url)
    accounts = [f"acct_{number}" for number in range(ACCOUNTS)]
    try:
        await billing.start()
        async with bus_and_log(nats) as (bus, log):

            async def ask(message: Command | Query) -> object:
                deadline = clock.now().timestamp() + ASK_MAX_S
                answer = await bus.ask(message, Meta(request_id=ids.fresh("req"), deadline=deadline))
                assert answer.refused is None, answer.refused
                return answer.body

            for account in accounts:
                paid = AddCredits(now=START, account_id=account, credit_id="pay_1", usd_micros=PAID)
                await again_until_well(lambda paid=paid: ask(paid))
                top_up = AutoTopUp(10 * PAID, TOP_UP, TOP_UPS * TOP_UP)  # at every tick, up to the day's maximum
                alerts = SetAlerts(now=START, account_id=account, alerts=AlertSettings(auto_top_up=top_up))
                await again_until_well(lambda alerts=alerts: ask(alerts))
            number = 0
            for account in accounts:
                for instance in range(INSTANCES_EACH):
                    number += 1
                    fact = ready(f"inst_{account}_{instance}", START, PRICE + instance, account_id=account)
                    await again_until_well(lambda fact=fact, number=number: say(log, fact, START, number))
            await again_until_well(lambda: all_running(ask, accounts))

            async def meter() -> None:
                for minute in range(1, TICKS + 1):
                    now = START + timedelta(minutes=minute, milliseconds=chance.randrange(1_000))
                    for account in accounts:
                        tick = Tick(now=now, account_id=account)
                        await again_until_well(lambda tick=tick: ask(tick))

            metering = asyncio.create_task(meter())
            for victim in ("billing", "nats", "billing", "postgres", "nats", "billing"):
                await asyncio.sleep(chance.uniform(0.1, 0.4))
                await strike(victim, billing, nats if victim == "nats" else postgres)
            await metering
            end = START + timedelta(minutes=TICKS, seconds=30)
            for account in accounts:
                for instance in range(INSTANCES_EACH):
                    number += 1
                    fact = stopping(f"inst_{account}_{instance}", account)
                    await again_until_well(lambda fact=fact, number=number: say(log, fact, end, number))
            seconds = TICKS * 60 + 30
            expected = sum(cost_micros(seconds, PRICE + instance) for instance in range(INSTANCES_EACH))
            for account in accounts:
                await again_until_well(lambda account=account: billed(ask, account, expected))
    finally:
        await billing.kill()
        nats.stop()
        postgres.stop()


async def strike(victim: str, billing: Billing, server: NatsServer | PostgresServer) -> None:
    if victim == "billing":
        await billing.kill()
        await billing.start()
        return
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def balance(ask: Callable[[Query], Awaitable[object]], account_id: str) -> BalanceView:
    body = await ask(GetBalance(account_id=account_id))
    assert isinstance(body, msgspec.Raw)
    return msgspec.json.decode(body, type=BalanceView)


async def all_running(ask: Callable[[Query], Awaitable[object]], accounts: list[str]) -> None:
    for account in accounts:
        if (await balance(ask, account)).active_instances != INSTANCES_EACH:
            raise Transient(f"{account} is not metered yet")


async def billed(ask: Callable[[Query], Awaitable[object]], account_id: str, expected: int) -> None:
    """Everything was heard and charged: exactly the price of the time, and the books balance."""
    view = await balance(ask, account_id)
    assert sum(view.totals.values()) == 0
    if view.active_instances or view.totals["revenue:gpu"] != expected:
        raise Transient(f"{account_id}: {view.totals['revenue:gpu']} of {expected}, {view.active_instances} running")
    if view.totals["cash"] != -PAID - TOP_UPS * TOP_UP:
        raise Transient(f"{account_id}: paid {-view.totals['cash']}")
