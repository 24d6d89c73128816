"""From `instance.interrupted` to `failover.completed` on a hot standby, beside the sum of its synced appends.

A witness outside hears both facts on PUB, which holds them on the disk by then. After each run the same bytes are
appended once more, one after another, to a stream of the bench's own: the least that the chain of facts can cost.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from typing import Any, NamedTuple

import uvloop

from libs.eventlog.streams import StreamSpec, ensure_stream
from tests.bench.ceilings import BENCH_STREAM
from tests.bench.report import Line
from tests.journey.platform import Platform, passing_platform
from tests.journey.witness import Fact, Witness, witness

RUNS = 200
WAIT_MAX_S = 30.0
P50_GOAL_MS, P99_GOAL_MS = 40, 150
# Hosts so large that a lost machine's GPU is not needed for the next standby.
NO_DELAY = {"boot_delay_ms": {"min": 0, "max": 0}, "outside_demand_ppm": 0, "gpus": 30_000}
AROUND = {
    "DUMONT_SANDBOX_OPTIONS": json.dumps(NO_DELAY),
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_FAILOVERS_PER_DAY_MAX": "100000",
    "DUMONT_PREPAID": "false",
}
# Each fact waits for the one before it: the private commits that hold the first of these, and the public messages.
COMMITS = {
    "EVT_FAILOVER": ("failover.started", "failover.completed"),
    "EVT_WARMPOOL": ("warmpool.claimed",),
    "EVT_INSTANCE": ("machine.promoted", "machine.healthy"),
}
TOLD = ("failover.rung_tried", "warmpool.claimed", "instance.ready", "failover.completed")
POOL_READY = b'"readiness":"ready"'
APPENDS = sum(map(len, COMMITS.values())) + len(TOLD)


class Run(NamedTuple):
    """One failover. `taken_ms` counts from the moment before the cloud was told to take the machine away."""

    told_ms: float
    taken_ms: float
    appends_ms: float
    failover_seq: int


def measure() -> list[Line]:
    with passing_platform("--sandbox", "virtual", environment=AROUND) as up:
        runs = uvloop.run(_measure(up))
    told, taken = sorted(run.told_ms for run in runs), sorted(run.taken_ms for run in runs)
    appends = statistics.median(run.appends_ms for run in runs)
    p50, p99 = _percentile(told, 50), _percentile(told, 99)
    return [
        Line(
            f"interrupted to failover.completed, {RUNS} runs",
            f"p50 {p50:.1f} p99 {p99:.1f} ms",
            f"its {APPENDS} synced appends alone: {appends:.1f} ms",
            f"{appends / p50:.2f}",
            f"p50 <= {P50_GOAL_MS}, p99 <= {P99_GOAL_MS} ms",
            p50 <= P50_GOAL_MS and p99 <= P99_GOAL_MS,
        ),
        Line(
            "machine taken to failover.completed",
            f"p50 {_percentile(taken, 50):.1f} p99 {_percentile(taken, 99):.1f} ms",
            "-",
            "-",
            "-",
            True,
        ),
    ]


def _percentile(ordered: list[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def _measure(up: Platform) -> list[Run]:
    async with witness(up.nats_url) as heard:
        await ensure_stream(heard.connection, StreamSpec(name=BENCH_STREAM, subjects=("evt.bench.>",)))
        instance_id = await _protected(up, heard)
        runs: list[Run] = []
        for number in range(RUNS + 1):
            await _until_ready(heard, instance_id, runs[-1].failover_seq if runs else 0)
            runs.append(await _run(up, heard, instance_id, number))
    return runs[1:]  # the first one pays for imports and caches


async def _protected(up: Platform, heard: Witness) -> str:
    body = {"gpu": "RTX 4090", "image": "pytorch:2.0-cuda12", "disk_size": 100}
    created = await _ask(up, "POST", "/instances", body)
    await heard.fact("instance.ready", created["id"], timeout_s=WAIT_MAX_S)
    await asyncio.to_thread(up.wait_for_status, created["id"], "ready")
    await _ask(up, "POST", "/warmpool/provision", {"machine_id": created["id"], "mode": "hot"})
    return created["id"]


async def _run(up: Platform, heard: Witness, instance_id: str, number: int) -> Run:
    carrier = next(fact for fact in reversed(heard.facts) if fact.name == "instance.ready").body["machine_id"]
    label = up.label_of(carrier)
    machine = (await asyncio.to_thread(up.cloud, "GET", f"/v1/machines?label={label}"))["machines"][0]["machine_id"]
    since, seqs = len(heard.facts), {stream: await heard.log.last_seq(stream) for stream in COMMITS}
    began_s = time.perf_counter()
    await asyncio.to_thread(up.cloud, "POST", f"/v1/machines/{machine}/interrupt", {"reason": "spot_preemption"})
    lost = await heard.fact("instance.interrupted", instance_id, since=since, timeout_s=WAIT_MAX_S)
    done = await heard.fact("failover.completed", instance_id, since=since, timeout_s=WAIT_MAX_S)
    story = [fact for fact in heard.facts[since:] if fact.name in TOLD and fact.seq <= done.seq]
    chain = [*await _commits(heard, instance_id, seqs), *_unique(story)]
    assert len(chain) == APPENDS, f"{APPENDS} appends were expected, {len(chain)} found"
    appends_ms = await _append_alone(heard, chain, number)
    return Run(
        (done.arrived_s - lost.arrived_s) * 1e3, (done.arrived_s - began_s) * 1e3, appends_ms, seqs["EVT_FAILOVER"]
    )


def _unique(story: list[Fact]) -> list[bytes]:
    """Each public message once, as many bytes as it had."""
    return [b"x" * size for size in {fact.name: fact.size for fact in story}.values()]


async def _commits(heard: Witness, instance_id: str, seqs: dict[str, int]) -> list[bytes]:
    """The private commits of the chain."""
    found: list[bytes] = []
    kinds = {"EVT_FAILOVER": "failover.guard", "EVT_WARMPOOL": "warmpool.pool", "EVT_INSTANCE": "instance.instance"}
    for stream, signs in COMMITS.items():
        stored = await heard.log.read(stream, f"evt.{kinds[stream]}.{instance_id}", after_seq=seqs[stream])
        for sign in signs:
            found += [one.data for one in stored if f'"{sign}"'.encode() in one.data][:1]
    return found


async def _append_alone(heard: Witness, chain: list[bytes], number: int) -> float:
    began_s = time.perf_counter()
    for place, data in enumerate(chain):
        await heard.log.append(BENCH_STREAM, f"evt.bench.chain.{number}x{place}", data, expected_seq=0)
    return (time.perf_counter() - began_s) * 1e3


async def _until_ready(heard: Witness, instance_id: str, after_seq: int) -> None:
    """Another standby is there, and the failover service has noted it in its log: rows may be a moment behind."""
    give_up_s = time.perf_counter() + WAIT_MAX_S
    while True:
        noted = await heard.log.read("EVT_FAILOVER", f"evt.failover.guard.{instance_id}", after_seq=after_seq)
        if any(POOL_READY in one.data for one in noted):
            return
        assert time.perf_counter() < give_up_s, f"{instance_id} has no standby"


async def _ask(up: Platform, method: str, path: str, body: Any = None) -> Any:
    answer = await asyncio.to_thread(up.request, method, f"/api/v1{path}", body, key=True)
    assert answer.json["success"], answer.text
    return answer.json["data"]
