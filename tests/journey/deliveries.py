"""kill -9 dispatcher, nats-server and postgres at random while webhooks go to receivers that fail a fifth of the time.

`just deliveries` runs 20,000 of them; `tests/integration/test_webhook_kill.py` a small round. The receivers are the
witness: everything said has arrived, in order per endpoint and instance, and whatever came more than once came with the
same `webhook-id` and the same bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer
from libs.refusal import Transient
from proto.base import Event
from proto.instance.events import InstanceRunning
from proto.webhook_dispatch.queries import ListDeliveries
from tests.integration.webhook_process import Dispatching, Owner, owner
from tests.integration.webhook_world import ACCOUNT, Got, Speaker, eventually, receiver

ENDPOINTS = ("whe_a", "whe_b")
VICTIMS = ("dispatcher", "dispatcher", "nats", "postgres")
FAILING = 0.2
PACE_PPM = 200  # pauses of 1 ms, 60 ms, 0.4 s, 1.4 s, 3.6 s: five failures in a row happen once in 3,000
SAY_RETRY_S = 0.1
PAUSE_S_MAX = 3.0  # between kills
ALL_MAX_S = 600.0


@dataclass
class Arrivals:
    """What the receivers met."""

    chance: random.Random
    in_order: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    tries: Counter[str] = field(default_factory=Counter[str])
    bodies: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    taken: set[str] = field(default_factory=set[str])
    ids: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def answer(self, got: Got) -> int:
        self.tries[got.id] += 1
        self.bodies[got.id].add(got.body)
        told = got.json
        self.ids[got.path, told["id"]].add(got.id)
        if self.chance.random() < FAILING:
            return 500
        if got.id not in self.taken:
            self.taken.add(got.id)
            self.in_order[got.path, told["instanceId"]].append(int(told["data"]["machine_id"]))
        return 200

    def complaints(self, instances: int, facts_each: int) -> list[str]:
        wanted = list(range(facts_each))
        lanes = [numbers for numbers in self.in_order.values() if numbers != wanted]
        lost = len(ENDPOINTS) * instances * facts_each - len(self.taken)
        return [
            *([f"{lost} were lost"] if lost else []),
            *([f"{len(lanes)} lanes out of order, e.g. {lanes[0]}"] if lanes else []),
            *(f"{name} came with {len(same)} different bodies" for name, same in self.bodies.items() if len(same) > 1),
            *(f"{event} came under {len(names)} ids" for event, names in self.ids.items() if len(names) > 1),
        ]


@dataclass
class Outcome:
    """What a round found."""

    deliveries: int
    attempts: int
    kills: Counter[str]
    took_s: float
    complaints: list[str]


class Stage:
    """The three that are killed, and how they come back."""

    def __init__(self, folder: Path) -> None:
        self.nats, self.postgres = NatsServer(folder / "nats"), PostgresServer(folder / "postgres")
        self.nats.start()
        self.postgres.start()
        self.service = Dispatching(self.nats.url, self.postgres.url, pace_ppm=PACE_PPM)

    async def kill(self, victim: str) -> None:
        """And start it again, as a supervisor does."""
        if victim == "dispatcher":
            if self.service.is_running:
                await self.service.kill()
            await self.service.start()
            return
        server: Any = self.nats if victim == "nats" else self.postgres
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        if not self.service.is_running:  # the loss of a server may end a life; that is a supervisor's business too
            await self.service.start()

    async def stop(self) -> None:
        if self.service.is_running:
            await self.service.kill()
        await asyncio.to_thread(self.postgres.stop)
        await asyncio.to_thread(self.nats.stop)


async def say_surely(speaker: Speaker, event: Event) -> None:
    """As the relay does it: the same id until it is acknowledged."""
    event_id = speaker.fresh_id()
    while True:
        try:
            await speaker.say(event, event_id)
        except Transient:
            await asyncio.sleep(SAY_RETRY_S)
        else:
            return


async def speak(asking: Owner, instances: int, facts_each: int, pause_s: float) -> None:
    """Facts of all instances in turn, numbered."""
    speaker = Speaker(asking.log)
    for number in range(facts_each):
        about: dict[str, Any] = {"account_id": ACCOUNT, "name": "n", "gpu": "RTX 4090", "machine_id": str(number)}
        said = [InstanceRunning(instance_id=f"inst_{instance}", **about) for instance in range(instances)]
        await asyncio.gather(*(say_surely(speaker, event) for event in said))
        await asyncio.sleep(pause_s)


async def deliveries_round(
    folder: Path,
    *,
    seed: int,
    instances: int,
    facts_each: int,
    say_pause_s: float,
    kills_max: int = 1_000_000,
    pause_s: float = PAUSE_S_MAX,
) -> Outcome:
    """Say, kill until everything has arrived, and look."""
    arrivals, chance = Arrivals(random.Random(seed)), random.Random(seed + 1)
    stage, began_s, kills = Stage(folder), time.monotonic(), Counter[str]()
    total = len(ENDPOINTS) * instances * facts_each
    try:
        async with receiver(arrivals.answer) as target, owner(stage.nats.url) as asking:
            await stage.service.start()
            for endpoint_id in ENDPOINTS:
                await asking.endpoint(endpoint_id, f"{target.url}/{endpoint_id}", ("instance.running",))
            speaking = asyncio.create_task(speak(asking, instances, facts_each, say_pause_s))
            while len(arrivals.taken) < total and kills.total() < kills_max:
                assert time.monotonic() - began_s < ALL_MAX_S, f"{len(arrivals.taken)} of {total} after {ALL_MAX_S} s"
                target.got.clear()
                victim = VICTIMS[kills.total()] if kills.total() < len(VICTIMS) else chance.choice(VICTIMS)
                await asyncio.sleep(chance.uniform(0.2, pause_s))
                await stage.kill(victim)
                kills[victim] += 1
            await speaking
            await eventually(lambda: len(arrivals.taken) == total, within_s=120)
            await eventually(lambda: all_recorded(asking, instances * facts_each), within_s=120)
    finally:
        await stage.stop()
    complaints = arrivals.complaints(instances, facts_each)
    return Outcome(total, arrivals.tries.total(), kills, time.monotonic() - began_s, complaints)


async def all_recorded(asking: Owner, each: int) -> bool:
    for endpoint_id in ENDPOINTS:
        reply = await asking.ask(
            ListDeliveries(endpoint_id=endpoint_id, account_id=ACCOUNT, status="delivered", limit=1)
        )
        if reply is None or reply.body is None or msgspec.json.decode(reply.body)["total"] != each:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    instances = 200
    facts_each = options.deliveries // len(ENDPOINTS) // instances
    with tempfile.TemporaryDirectory(prefix="dumont-deliveries-") as folder:
        outcome = uvloop.run(
            deliveries_round(
                Path(folder), seed=options.seed, instances=instances, facts_each=facts_each, say_pause_s=0.5
            )
        )
    print(
        f"{outcome.deliveries} deliveries, {outcome.attempts} attempts, {outcome.kills.total()} kills "
        f"{dict(outcome.kills)}, {outcome.took_s:.0f} s, {len(outcome.complaints)} complaints"
    )
    for complaint in outcome.complaints:
        print("COMPLAINT", complaint)
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
