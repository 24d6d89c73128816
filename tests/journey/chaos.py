"""Kill everything, again and again, while customers work; then ask whether anything acknowledged was lost or done
twice.

`test_chaos.py` runs a short, seeded round; `just chaos` runs the long one (200 commands). The killer picks at random
among the
service processes, nats-server and postgres; customers create, stop, start and delete through HTTP, keep what was
acknowledged,
and repeat what was not with the same Idempotency-Key, as a careful client does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.journey.platform import Answer, Platform, eventually, platform

VICTIMS = ("gateway", "instance", "nats", "postgres", "sandbox")
CUSTOMERS = 4
BACK_MAX_S = 10.0  # issue: all back within 10 s of a kill
SETTLE_MAX_S = 90.0
RETRY_PAUSE_S = 0.1
TRY_MAX_S = 60.0
# What each verb must leave behind once everything has settled.
RESTS = {"create": "ready", "start": "ready", "stop": "stopped", "delete": "deleted"}


@dataclass
class Owned:
    """One instance as its customer knows it: the last acknowledged wish decides where it must end."""

    instance_id: str
    wishes: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """What a round found."""

    commands: int = 0
    kills: Counter[str] = field(default_factory=Counter[str])
    slowest_back_s: float = 0.0
    owned: list[Owned] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


class Customer(threading.Thread):
    """Creates an instance, waits for it, stops and starts it, now and then deletes it; then the next one."""

    def __init__(self, up: Platform, seed: int, commands_max: int, outcome: Outcome) -> None:
        super().__init__(daemon=True)
        self.up, self.random, self.commands_max, self.outcome = up, random.Random(seed), commands_max, outcome
        self.name = f"customer-{seed}"
        self.sent = 0

    def run(self) -> None:
        try:
            while self.sent < self.commands_max:
                self._one_life()
        except AssertionError as failure:
            self.outcome.complaints.append(f"{self.name}: {failure}")

    def _one_life(self) -> None:
        body = {"name": f"{self.name}-{self.sent}", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
        made = self._command("create", "POST", "/api/instances", body)
        owned = Owned(made.json["instanceId"], ["create"])
        self.outcome.owned.append(owned)
        self._settled(owned)
        for verb in self.random.choice((["stop"], ["stop", "start"], ["delete"], ["stop", "start", "stop"], [])):
            if self.sent >= self.commands_max:
                return
            if verb == "delete":
                self._command(verb, "DELETE", f"/api/instances/{owned.instance_id}", None)
            else:
                self._command(verb, "POST", f"/api/instances/{owned.instance_id}/{verb}", {})
            owned.wishes.append(verb)
            self._settled(owned)

    def _command(self, verb: str, method: str, path: str, body: Any) -> Answer:
        """Until acknowledged. 5xx and broken connections are repeated with the same key: that must be safe."""
        key = f"{self.name}-{self.sent}"
        self.sent += 1
        self.outcome.commands += 1
        give_up = time.monotonic() + TRY_MAX_S
        while True:
            answer = None
            with contextlib.suppress(OSError, urllib.error.URLError):
                answer = self.up.request(method, path, body, headers={"Idempotency-Key": key})
            if answer is not None and answer.status < 500:
                assert answer.status in (200, 201, 202), f"{verb}: {answer.status} {answer.text}"
                return answer
            if answer is not None and answer.status == 500:
                self.outcome.complaints.append(f"{verb} answered 500: {answer.text}")
            assert time.monotonic() < give_up, f"{verb} not acknowledged within {TRY_MAX_S} s"
            time.sleep(RETRY_PAUSE_S)

    def _settled(self, owned: Owned) -> None:
        wait_for_rest(self.up, owned)


def wait_for_rest(up: Platform, owned: Owned) -> None:
    """The instance reaches the state its last acknowledged wish leads to."""
    wanted = RESTS[owned.wishes[-1]]
    seen: Any = None

    def there() -> bool:
        nonlocal seen
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            answer = up.request("GET", f"/api/instances/{owned.instance_id}")
            seen = answer.text
            if wanted == "deleted":
                return answer.status == 404 or answer.json.get("status") == "deleted"
            return answer.status == 200 and answer.json.get("status") == wanted
        return False

    eventually(
        there, timeout_s=SETTLE_MAX_S, what=f"{owned.instance_id} {owned.wishes} to be {wanted}", seen=lambda: seen
    )


def kill_one(up: Platform, victim: str) -> float:
    """kill -9, then wait until `/readyz` says ready again; returns the seconds that took."""
    pid = up.status_pids()[victim]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()

    def back() -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            return up.status_pids()[victim] != pid and up.request("GET", "/readyz").status == 200
        return False

    eventually(back, timeout_s=30.0, what=f"ready again after kill -9 of {victim}")
    return time.monotonic() - started


def chaos_round(up: Platform, *, seed: int, commands: int, pause_s: float = 1.0) -> Outcome:
    """Customers send `commands` in all while processes are killed one after another; returns what was found."""
    outcome = Outcome()
    chance = random.Random(seed)
    customers = [Customer(up, seed * 100 + n, commands // CUSTOMERS, outcome) for n in range(CUSTOMERS)]
    for customer in customers:
        customer.start()
    while any(customer.is_alive() for customer in customers):
        victim = chance.choice(VICTIMS)
        took_s = kill_one(up, victim)
        outcome.kills[victim] += 1
        outcome.slowest_back_s = max(outcome.slowest_back_s, took_s)
        if took_s > BACK_MAX_S:
            outcome.complaints.append(f"{victim} took {took_s:.1f} s to be back")
        time.sleep(chance.uniform(0.2, 1.0) * pause_s)
    for owned in outcome.owned:
        wait_for_rest(up, owned)
    outcome.complaints += machine_complaints(up, outcome)
    return outcome


def machine_complaints(up: Platform, outcome: Outcome) -> list[str]:
    """Every wanted instance has exactly one machine at the cloud, every other machine is gone."""
    wanted = {o.instance_id for o in outcome.owned if o.wishes[-1] != "delete"}
    found: dict[str, list[str]] = {}

    def settled() -> bool:
        found.clear()
        for machine in sandbox_machines(up):
            found.setdefault(machine["instance_id"], []).append(machine["id"])
        return set(found) == wanted and all(len(machines) == 1 for machines in found.values())

    with contextlib.suppress(AssertionError):
        eventually(settled, timeout_s=SETTLE_MAX_S, what="machines to match instances")
        return []
    doubled = {k: v for k, v in found.items() if len(v) > 1}
    return [f"machines do not match: missing {wanted - set(found)}, unknown {set(found) - wanted}, doubled {doubled}"]


def sandbox_machines(up: Platform) -> list[dict[str, Any]]:
    """What the sandbox cloud itself says it runs, each with the instance its label belongs to."""
    listed = []
    for instance in up.request("GET", "/api/v1/instances?limit=100", key=True).json["data"]:
        listed.append({"instance_id": instance["id"], "id": instance.get("provider_instance_id")})
    return listed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, platform(Path(folder) / "data") as up:
        outcome = chaos_round(up, seed=options.seed, commands=options.commands)
    print(f"{outcome.commands} commands, kills {dict(outcome.kills)}, slowest back {outcome.slowest_back_s:.1f} s")
    for complaint in outcome.complaints:
        print("COMPLAINT", complaint)
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
