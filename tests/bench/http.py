"""GET one instance and POST a new one, against their ceilings; and how long a POST takes to become `ready`."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.runtime.recent import KEPT_MAX
from tests.bench.ceilings import ceiling_server, fill_ceiling_table
from tests.bench.customers import instances_in_turn, open_accounts, unsettled
from tests.bench.load import Call, Slice, run_load
from tests.bench.report import Line
from tests.journey.platform import Platform, passing_platform

ROUNDS = 3
SLICE_S = 2.0
CONNECTIONS = 32
# Creates are measured with these as well: they gather on their way to the disk, so more callers cost less each.
MANY_CONNECTIONS = 128
CREDITS_USD = 100_000  # lasts for days, whatever a burst leaves running
ACCOUNTS = 25  # a burst comes from many customers, of whom each may run some thousand instances at most
ANEW = KEPT_MAX + 500
INSTANCES = 200  # in the product's table and in the ceiling's: both are read by primary key
READY_RUNS = 100
READY_MAX_S = 10.0
SETTLE_MAX_S = 120.0
SETTLE_POLL_S = 0.1
STILL_S = 1.0  # no new commit for so long: what a burst set going is over
# No boot delay, machines without processes, and more of them than a bench can rent.
ZERO_DELAY = {"DUMONT_SANDBOX_OPTIONS": json.dumps({"boot_delay_ms": {"min": 0, "max": 0}, "gpus": 300_000})}
# Nobody has credits there, so creates go without a hold; they are measured once more where everybody has.
UNPAID = {**ZERO_DELAY, "DUMONT_PREPAID": "false"}
BODY = '{"gpu": "RTX 4090", "image": "pytorch:2.0-cuda12", "disk_size": 100}'


def measure() -> list[Line]:
    """Alternates product and ceiling; every line is the median of ROUNDS ratios."""
    with passing_platform("--sandbox", "virtual", environment=UNPAID) as up:
        lines = [ready_line(up)]
        keys = asyncio.run(open_accounts(up.nats_url, ACCOUNTS))
        lines += [get_line(up), *post_lines(up, keys, "POST create, a burst")]
        lines += [sustained_line(up, keys), get_anew_line(up, keys)]
    with passing_platform("--sandbox", "virtual", environment=ZERO_DELAY) as up:
        keys = asyncio.run(open_accounts(up.nats_url, ACCOUNTS, usd=CREDITS_USD))
        lines += post_lines(up, keys, "POST create with a hold, a burst")
    return lines


def get_line(up: Platform) -> Line:
    ids = [created(up, n) for n in range(INSTANCES)]
    log_still(up)
    asyncio.run(fill_ceiling_table(up.postgres_url, INSTANCES))
    key = (("Authorization", f"Bearer {up.api_key}"),)
    product = Call(port_of(up), "GET", tuple(f"/api/v1/instances/{id_}" for id_ in ids), key)
    with ceiling_server("get", up.nats_url, up.postgres_url) as port:
        ceiling = Call(port, "GET", tuple(f"/api/instances/inst_{n:026d}" for n in range(INSTANCES)))
        return alternate("GET one instance", product, ceiling, 200, goal=0.70)


def get_anew_line(up: Platform, keys: dict[str, str]) -> Line:
    """Of more instances than answers are kept of, in turn: each is a statement (the bursts before made that many)."""
    log_still(up)
    ids = asyncio.run(instances_in_turn(up.postgres_url, list(keys), ANEW // ACCOUNTS))
    product = Call(port_of(up), "GET", tuple(f"/api/v1/instances/{id_}" for id_ in ids), keys=tuple(keys.values()))
    with ceiling_server("get", up.nats_url, up.postgres_url) as port:
        ceiling = Call(port, "GET", tuple(f"/api/instances/inst_{n:026d}" for n in range(INSTANCES)))
        return alternate("GET, no answer kept", product, ceiling, 200)


def creates(up: Platform, keys: dict[str, str]) -> Call:
    return Call(port_of(up), "POST", ("/api/v1/instances",), body=BODY, keys=tuple(keys.values()))


def post_lines(up: Platform, keys: dict[str, str], name: str) -> list[Line]:
    with ceiling_server("post", up.nats_url, up.postgres_url) as port:
        ceiling = Call(port, "POST", ("/api/instances",), (), BODY)
        return [
            alternate(
                f"{name} of {connections}",
                creates(up, keys),
                ceiling,
                201,
                goal=0.50,
                after_ours=lambda: log_still(up),
                connections=connections,
            )
            for connections in (CONNECTIONS, MANY_CONNECTIONS)
        ]


def sustained_line(up: Platform, keys: dict[str, str]) -> Line:
    """A burst of creates until the last of them is `ready`: what the platform keeps up with for ever."""
    started = time.perf_counter()
    burst = run_load(creates(up, keys), connections=CONNECTIONS, seconds=SLICE_S)
    all_settled(up)
    per_second = sum(burst.statuses.values()) / (time.perf_counter() - started)
    return Line("POST create, until the last is ready", f"{per_second:,.0f}/s", "-", "-", "-", True)


def all_settled(up: Platform) -> None:
    """Every instance is `ready`, or has failed."""
    deadline = time.perf_counter() + SETTLE_MAX_S
    while left := asyncio.run(unsettled(up.postgres_url)):
        assert time.perf_counter() < deadline, f"{left} instances are not ready"
        time.sleep(SETTLE_POLL_S)


def log_still(up: Platform) -> None:
    """What creates set going must be over before anything else is measured: `ready` is followed by more facts."""
    asyncio.run(_log_still(up))


async def _log_still(up: Platform) -> None:
    connection = await open_connection(up.nats_url, name="bench")
    try:
        log = JetStreamLog(connection)
        started = since = time.perf_counter()
        last = [0]
        while time.perf_counter() - since < STILL_S:
            assert time.perf_counter() - started < SETTLE_MAX_S, "the log is still growing"
            now = [await log.last_seq(stream) for stream in ("EVT_INSTANCE", "EVT_BILLING", "PUB")]
            if now != last:
                last, since = now, time.perf_counter()
            await asyncio.sleep(SETTLE_POLL_S)
    finally:
        await connection.close()


def alternate(
    name: str,
    product: Call,
    ceiling: Call,
    status: int,
    *,
    goal: float | None = None,
    after_ours: Callable[[], None] = lambda: None,
    connections: int = CONNECTIONS,
) -> Line:
    pairs: list[tuple[Slice, Slice]] = []
    for _ in range(ROUNDS):
        ours = run_load(product, connections=connections, seconds=SLICE_S)
        after_ours()
        theirs = run_load(ceiling, connections=connections, seconds=SLICE_S)
        assert set(ours.statuses) == {status}, f"{name}: {ours.statuses}"
        pairs.append((ours, theirs))
    ratio = statistics.median(ours.per_second / theirs.per_second for ours, theirs in pairs)
    ours, theirs = (sorted(pairs, key=lambda pair: pair[0].per_second / pair[1].per_second))[ROUNDS // 2]
    return Line(
        name,
        f"{ours.per_second:,.0f}/s p50 {ours.p50_ms:.1f} p99 {ours.p99_ms:.1f} ms",
        f"{theirs.per_second:,.0f}/s p50 {theirs.p50_ms:.1f} p99 {theirs.p99_ms:.1f} ms",
        f"{ratio:.2f}",
        "-" if goal is None else f">= {goal:.2f}",
        goal is None or ratio >= goal,
    )


def ready_line(up: Platform) -> Line:
    """POST sent -> GET says `ready`, one after another."""
    took_ms: list[float] = []
    for _ in range(READY_RUNS):
        started = time.perf_counter()
        instance_id = created(up, 0)
        while up.instance(instance_id)["status"] != "ready":
            assert time.perf_counter() - started < READY_MAX_S, f"{instance_id} is not ready"
        took_ms.append((time.perf_counter() - started) * 1e3)
    took_ms.sort()
    p50, p99 = took_ms[READY_RUNS // 2], took_ms[int(READY_RUNS * 0.99)]
    return Line("POST to ready", f"p50 {p50:.0f} p99 {p99:.0f} ms", "-", "-", "p50 <= 300 ms", p50 <= 300)


def created(up: Platform, _number: int) -> str:
    answer = up.request("POST", "/api/v1/instances", json.loads(BODY), key=True)
    assert answer.status == 201, answer.text
    return answer.json["data"]["id"]


def port_of(up: Platform) -> int:
    port = urlsplit(up.api_url).port
    assert port is not None
    return port
