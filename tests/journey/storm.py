"""Take every machine away at once and see that each instance gets exactly one answer.

`test_storm.py` runs a small round, `just storm` the large one (1,000 instances). The sandbox is virtual, the bus,
the log and PostgreSQL are real. Of ten instances six have a hot standby, three a stopped one and one none at all, so
that some failovers must fail. A witness on PUB times it; at the end the instances' own log is folded commit by commit
to find a moment with two primaries, and the cloud is asked what still runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from services.instance.decider import INSTANCE
from services.instance.decider.instance import LIVE, Instance
from services.instance.rooms import SERVICE
from tests.journey.platform import Platform, platform, wipe
from tests.journey.witness import Witness, witness

INSTANCES = 1_000
KINDS = ("hot", "hot", "stopped", "hot", "hot", "stopped", "hot", "none", "hot", "stopped")
CALLS_AT_ONCE = 64
TRIES_MAX = 20
SETTLE_MAX_S = 120.0
INSTANCES_ONLY = "evt.instance.instance."
STORY = (
    "instance.interrupted",
    "failover.started",
    "warmpool.claimed",
    "instance.recovering",
    "instance.ready",
    "failover.completed",
    "warmpool.standby_wanted",
    "warmpool.provisioned",
)
ENDS = ("failover.completed", "failover.failed")
# Customers take the cheapest offer, so each model's crowd its cheapest host, and its standby must find room there too.
MODELS = ("RTX 4090", "RTX 4090 24GB", "RTX 3090", "RTX 3090 24GB", "A100 40GB", "A100 80GB", "H100", "H100 80GB")
AROUND = {
    "DUMONT_SANDBOX_OPTIONS": json.dumps(
        {"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0, "gpus": 1_000_000}
    ),
    "DUMONT_PREPAID": "false",  # all of them are one account's, more than its credit covers
}


@dataclass
class Outcome:
    """What a storm did. `last_s`: from the first machine taken to the last end told."""

    instances: int
    completed: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    last_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    taking_s: float = 0.0
    phases: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list)


class Customers:
    """Speaks HTTP for all of them, CALLS_AT_ONCE at a time; an answer that says "later" is obeyed."""

    def __init__(self, up: Platform, http: aiohttp.ClientSession) -> None:
        self.up, self._http = up, http
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)
        self._cloud_url = up.state()["sandbox_url"]
        self._cloud_key = (up.data_dir / "secrets" / "sandbox").read_text().strip()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The data of a granted request."""
        for _ in range(TRIES_MAX):
            headers = {"Authorization": f"Bearer {self.up.api_key}"}
            status, answer, later_s = await self._send(method, f"{self.up.api_url}/api/v1{path}", body, headers)
            if status < 400:
                return answer["data"]
            assert status in (429, 503, 504), f"{method} {path}: {status} {answer}"
            await asyncio.sleep(later_s)
        raise AssertionError(f"{method} {path}: not granted in {TRIES_MAX} tries")

    async def cloud(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._cloud_key}"}
        status, answer, _ = await self._send(method, self._cloud_url + path, body, headers)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    async def _send(self, method: str, url: str, body: Any, headers: dict[str, str]) -> tuple[int, Any, float]:
        async with self._places, self._http.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
            later_s = float(answer.headers.get("Retry-After", "1"))
            return answer.status, json.loads(text) if text else None, later_s


async def together(acts: Sequence[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*acts))


async def prepare(customers: Customers, heard: Witness, count: int, say: Callable[[str], None]) -> dict[str, str]:
    """`count` running instances with their protection in place; the kind of standby by instance id."""
    began_s = time.perf_counter()
    wishes = [{"gpu": MODELS[number % len(MODELS)]} for number in range(count)]
    made = await together([customers.ask("POST", "/instances", wish) for wish in wishes])
    kinds = {one["id"]: KINDS[number % len(KINDS)] for number, one in enumerate(made)}
    await _all_said(heard, "instance.ready", set(kinds))
    say(f"{count} instances ready after {time.perf_counter() - began_s:.1f} s")
    wanted = {instance_id: kind for instance_id, kind in kinds.items() if kind != "none"}
    await together([_protect(customers, instance_id, kind) for instance_id, kind in wanted.items()])
    await _all_said(heard, "warmpool.provisioned", set(wanted))
    await together([_until_noted(customers, instance_id) for instance_id in wanted])
    say(f"{len(wanted)} of them protected after {time.perf_counter() - began_s:.1f} s")
    return kinds


async def _protect(customers: Customers, instance_id: str, kind: str) -> None:
    await _until(customers, f"/instances/{instance_id}", lambda seen: seen["status"] == "running")
    await customers.ask("POST", "/warmpool/provision", {"machine_id": instance_id, "mode": kind})


async def _until_noted(customers: Customers, instance_id: str) -> None:
    await _until(customers, f"/failover/readiness/{instance_id}", lambda seen: seen["overall_ready"])


async def _until(customers: Customers, path: str, holds: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(SETTLE_MAX_S):
        while not holds(seen := await customers.ask("GET", path)):
            await asyncio.sleep(0.05)
        return seen


async def _all_said(heard: Witness, name: str, about: set[str]) -> None:
    def said() -> bool:
        return about <= {fact.instance_id for fact in heard.facts if fact.name == name}

    await heard.wait_for(said, timeout_s=SETTLE_MAX_S, what=f"{name} of {len(about)} instances")


async def strike(customers: Customers, heard: Witness, kinds: dict[str, str], outcome: Outcome) -> None:
    """Take every primary away and wait for the last answer."""
    primary = {customers.up.label_of(fact.body["machine_id"]) for fact in heard.facts if fact.name == "instance.ready"}
    machines = (await customers.cloud("GET", "/v1/machines"))["machines"]
    taken = [one["machine_id"] for one in machines if one["label"] in primary]
    assert len(taken) == len(kinds), f"{len(taken)} primaries for {len(kinds)} instances"
    since, began_s = len(heard.facts), time.perf_counter()
    body = {"reason": "spot_preemption"}
    await together([customers.cloud("POST", f"/v1/machines/{one}/interrupt", body) for one in taken])
    outcome.taking_s = time.perf_counter() - began_s

    def ended() -> bool:
        return set(kinds) <= {fact.instance_id for fact in heard.facts[since:] if fact.name in ENDS}

    await heard.wait_for(ended, timeout_s=SETTLE_MAX_S, what="an answer for everybody")
    _judge(heard, since, began_s, kinds, outcome)


def _judge(heard: Witness, since: int, began_s: float, kinds: dict[str, str], outcome: Outcome) -> None:
    said = heard.facts[since:]
    ends = [fact for fact in said if fact.name in ENDS]
    lost = {fact.instance_id: fact for fact in said if fact.name == "instance.interrupted"}
    outcome.last_s = max(fact.arrived_s for fact in ends) - began_s
    outcome.phases = [_phase(name, [f.arrived_s - began_s for f in said if f.name == name]) for name in STORY]
    took_s = sorted(fact.arrived_s - lost[fact.instance_id].arrived_s for fact in ends)
    outcome.p50_s, outcome.p99_s = took_s[len(took_s) // 2], took_s[len(took_s) * 99 // 100]
    for fact in ends:
        kind, completed = kinds[fact.instance_id], fact.name == "failover.completed"
        if completed:
            outcome.completed += 1
        else:
            outcome.failed[fact.body["error"]] += 1
        if completed != (kind != "none"):
            outcome.complaints.append(f"{fact.instance_id} ({kind}): {fact.name} {fact.body.get('attempts')}")
    starts = Counter(fact.instance_id for fact in said if fact.name == "failover.started")
    answers = Counter(fact.instance_id for fact in ends)
    losses = Counter(fact.instance_id for fact in said if fact.name == "instance.interrupted")
    for name, counts in (("failover.started", starts), ("an end", answers), ("instance.interrupted", losses)):
        twice = [instance_id for instance_id, count in counts.items() if count != 1]
        if twice or set(counts) != set(kinds):
            outcome.complaints.append(f"{name}: {len(counts)} of {len(kinds)} instances, not once for {twice[:5]}")


def _phase(name: str, at_s: list[float]) -> str:
    at_s = sorted(at_s) or [0.0]
    return f"{name:26} first {at_s[0]:6.2f} s, half {at_s[len(at_s) // 2]:6.2f} s, last {at_s[-1]:6.2f} s"


async def two_primaries(heard: Witness) -> list[str]:
    """Every commit of every instance folded: moments with more than one live primary."""
    last_seq = await heard.log.last_seq("EVT_INSTANCE")
    own, states, found = OwnStream(SERVICE, heard.log, Courtesy()), dict[str, Instance | None](), list[str]()
    async for batch in heard.log.follow(own.stream, after_seq=0):
        for stored in batch:
            if not stored.subject.startswith(INSTANCES_ONLY):
                continue
            for said in own.decode(stored):
                states[said.aggregate_id] = INSTANCE.evolve(states.get(said.aggregate_id), said.event)
            state = states[stored.subject.removeprefix(INSTANCES_ONLY)]
            assert state is not None, "the first event makes an instance"
            live = [m.machine_id for m in state.machines if m.role == "primary" and m.status in LIVE]
            if len(live) > 1:
                found.append(f"{state.instance_id} has primaries {live}")
        if batch[-1].seq >= last_seq:
            break
    return found


async def not_running(customers: Customers, heard: Witness) -> list[str]:
    """Whom a failover named as the new primary must really run at the cloud."""
    running = {one["label"] for one in (await customers.cloud("GET", "/v1/machines"))["machines"]
               if one["status"] == "running"}  # fmt: skip
    named = [fact.body["machine_id"] for fact in heard.facts if fact.name == "failover.completed"]
    return [
        f"{machine_id} carries an instance and does not run"
        for machine_id in named
        if customers.up.label_of(machine_id) not in running
    ]


async def _storm(up: Platform, count: int, say: Callable[[str], None]) -> Outcome:
    outcome = Outcome(count)
    timeout = aiohttp.ClientTimeout(total=60)
    async with witness(up.nats_url) as heard, aiohttp.ClientSession(timeout=timeout) as http:
        customers = Customers(up, http)
        kinds = await prepare(customers, heard, count, say)
        await strike(customers, heard, kinds, outcome)
        outcome.complaints += [*await two_primaries(heard), *await not_running(customers, heard)]
    return outcome


def run(count: int, data_dir: Path, say: Callable[[str], None] = print) -> Outcome:
    """One storm on a platform of its own."""
    with platform(data_dir, "--sandbox", "virtual", environment=AROUND) as up:
        return asyncio.run(_storm(up, count, say))


def main() -> int:
    options = argparse.ArgumentParser(prog="just storm", description=__doc__)
    options.add_argument("--instances", type=int, default=INSTANCES)
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(options.parse_args().instances, Path(folder) / "data")
        wipe(Path(folder) / "data")
    print(
        f"{outcome.instances} machines taken within {outcome.taking_s:.1f} s: {outcome.completed} failovers completed, "
        f"failed {dict(outcome.failed)}; the last answer after {outcome.last_s:.1f} s, "
        f"interrupted to answered p50 {outcome.p50_s:.2f} s, p99 {outcome.p99_s:.2f} s"
    )
    print(*outcome.phases, sep="\n")
    for complaint in outcome.complaints:
        print(complaint, file=sys.stderr)
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
