"""One tick over 100,000 running instances, what it costs in bytes, and what a hold costs a create.

Product: the real decider over the real log (a nats-server that syncs every write); 1,000 accounts with 100 running
instances each are loaded, then every account is ticked once, as the deadlines loop does it. Ceiling: the same bytes
appended to as many subjects, with as many in flight, and nothing decided.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop

from libs.clock import SystemClock
from libs.embedded.nats import NatsServer
from libs.eventlog import Stored
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import ensure_stream, private_stream
from libs.ids import SystemIds
from libs.runtime.aggregates import Aggregates
from libs.runtime.deadlines import SIDE_BY_SIDE_MAX
from proto.billing.commands import AddCredits, NoteRate, PlaceHold, ReleaseHold, Tick
from services.billing.rooms import SERVICE
from tests.bench.report import Line

ACCOUNTS = 1_000
INSTANCES_EACH = 100
NOTES_PER_COMMIT = 40  # each may bring alerts of its own; a commit has room for 100 facts
TICK_S = 600
TICKS_PER_HOUR = 3_600 // TICK_S
TICK_GOAL_S = 2.0
# One posting per minute and instance, as a message of its own: envelope, ids, two entries, subject and stream overhead.
POSTING_BYTES = 450
BYTES_GOAL = POSTING_BYTES * 60 / 50
HOLDS = 500
ROUNDS = 3
START = datetime(2026, 11, 22, 1, tzinfo=UTC)
USD = 1_000_000


def measure() -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        server = NatsServer(Path(folder) / "nats", durability="always")
        server.start()
        try:
            return uvloop.run(_measure(server.url))
        finally:
            server.stop()


async def _measure(url: str) -> list[Line]:
    connection = await open_connection(url, name="bench")
    await ensure_stream(connection, private_stream("billing", replicas=1))
    log = JetStreamLog(connection, appending="grouped")
    ledgers = Aggregates(SERVICE, log, SystemClock(), SystemIds())
    accounts = [f"acct_{number:06d}" for number in range(ACCOUNTS)]
    await _side_by_side(accounts, lambda account: _fill(ledgers, account))
    ticks_s: list[float] = []
    ceilings_s: list[float] = []
    tick_bytes = 0
    for number in range(1, ROUNDS + 1):
        before = await log.last_seq("EVT_BILLING")
        now = START + timedelta(seconds=number * TICK_S)
        ticks_s.append(
            await _side_by_side(
                accounts, lambda account, now=now: ledgers.execute(Tick(now=now, account_id=account), cause="bench")
            )
        )
        stored = [await _newest(log, account, before) for account in accounts]
        tick_bytes = sum(len(message.data) + len(message.subject) for message in stored)
        ceilings_s.append(await _side_by_side(stored, lambda message, n=number: _raw(log, message, n)))
    hold_lines = await _holds(ledgers)
    await connection.close()
    tick_s, ceiling_s = statistics.median(ticks_s), statistics.median(ceilings_s)
    hourly = tick_bytes * TICKS_PER_HOUR / (ACCOUNTS * INSTANCES_EACH)
    return [
        Line(
            "metering tick, 100,000 running instances",
            f"{tick_s:.2f} s",
            f"{ceiling_s:.2f} s",
            f"{ceiling_s / tick_s:.2f}",
            "<= 2 s",
            tick_s <= TICK_GOAL_S,
        ),
        Line("bytes per instance-hour", f"{hourly:.0f}", "-", "-", f"<= {BYTES_GOAL:.0f}", hourly <= BYTES_GOAL),
        *hold_lines,
    ]


async def _newest(log: JetStreamLog, account: str, after_seq: int) -> Stored:
    return (await log.read("EVT_BILLING", f"evt.billing.account.{account}", after_seq=after_seq))[-1]


async def _raw(log: JetStreamLog, message: Stored, number: int) -> None:
    await log.append("EVT_BILLING", f"evt.billing.raw.c{message.seq}_{number}", message.data, expected_seq=0)


async def _fill(ledgers: Aggregates, account: str) -> None:
    """Money, and instances that run since a little before the first tick."""
    await ledgers.execute(AddCredits(now=START, account_id=account, credit_id="pay_1", usd_micros=90_000 * USD))
    notes = [
        NoteRate(
            now=START,
            account_id=account,
            meter_id=f"inst_{account[5:]}{number:026d}",
            instance_id=f"inst_{account[5:]}{number:026d}",
            line="gpu",
            at=START + timedelta(milliseconds=number),
            rate_usd_micros_per_hour=400_000 + number,
            machine_id=f"mach_{number:026d}",
        )
        for number in range(INSTANCES_EACH)
    ]
    for first in range(0, len(notes), NOTES_PER_COMMIT):
        await ledgers.execute_together(notes[first : first + NOTES_PER_COMMIT])


async def _holds(ledgers: Aggregates) -> list[Line]:
    """What a hold adds to a create: its latency alone, and how many of one account a second."""
    took_ms: list[float] = []
    account = "acct_holds"
    await ledgers.execute(AddCredits(now=START, account_id=account, credit_id="pay_1", usd_micros=90_000 * USD))
    for number in range(HOLDS):
        began_s = time.perf_counter()
        await ledgers.execute(_hold(account, number))
        took_ms.append((time.perf_counter() - began_s) * 1_000)
        await ledgers.execute(ReleaseHold(now=START, account_id=account, instance_id=f"inst_{number}"))
    took_s = await _side_by_side(range(HOLDS), lambda number: ledgers.execute(_hold(account, number)))
    return [
        Line("hold of one account, one after another", f"p50 {statistics.median(took_ms):.1f} ms", "-", "-", "-", True),
        Line("holds of one account, side by side", f"{HOLDS / took_s:,.0f}/s", "-", "-", "-", True),
    ]


def _hold(account: str, number: int) -> PlaceHold:
    return PlaceHold(now=START, account_id=account, instance_id=f"inst_{number}", usd_micros=66_667)


async def _side_by_side(each: Sequence[object], act: Callable[..., Awaitable[object]]) -> float:
    """Act on all, as many at once as the deadlines loop does; the seconds it took."""
    room = asyncio.Semaphore(SIDE_BY_SIDE_MAX)

    async def one(what: object) -> None:
        async with room:
            await act(what)

    began_s = time.perf_counter()
    await asyncio.gather(*(one(what) for what in each))
    return time.perf_counter() - began_s
