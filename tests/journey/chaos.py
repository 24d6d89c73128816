"""Kill everything, again and again, while customers work; then ask whether anything acknowledged was lost or done
twice.

`test_chaos.py` runs a short, seeded round; `just chaos` the long one (200 commands). The killer picks at random among
the service processes, nats-server and postgres; customers create, stop, start and delete through HTTP, keep what was
acknowledged, and repeat what was not with the same Idempotency-Key, as a careful client does. At the end the sandbox
cloud and the host's process list are the witnesses, not the platform.
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.journey.platform import Answer, Platform, eventually, platform, wipe
from tests.journey.processes import complaints_about_bugs, complaints_about_leftovers, machine_processes

VICTIMS = ("gateway", "instance", "nats", "postgres", "sandbox")
CUSTOMERS = 4
BACK_MAX_S = 10.0  # issue: all back within 10 s of a kill
SETTLE_MAX_S = 90.0
RETRY_PAUSE_S = 0.1
TRY_MAX_S = 60.0
PAGE = 100
# Other customers of the cloud would take GPUs away by chance; here only kills go wrong.
CALM_MARKET = {"DUMONT_SANDBOX_OPTIONS": '{"outside_demand_ppm": 0}'}
# Whose death makes the platform unable to serve, so that `/readyz` must say no until it is back.
NEEDED = ("instance", "nats", "postgres")
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
    slowest_victim: str = ""
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
            if self._settled(owned) == "failed":
                return

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

    def _settled(self, owned: Owned) -> str:
        return wait_for_rest(self.up, owned)


def wait_for_rest(up: Platform, owned: Owned) -> str:
    """The instance reaches the state its last acknowledged wish leads to. A start may also end in the cloud's honest
    no: a stopped machine does not keep its GPU, and another customer may have it by now."""
    wanted = RESTS[owned.wishes[-1]]
    is_start = owned.wishes[-1] == "start"
    seen: Any = None

    def there() -> bool:
        nonlocal seen
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            answer = up.request("GET", f"/api/instances/{owned.instance_id}")
            seen = answer.text
            if wanted == "deleted":
                return answer.status == 404 or answer.json.get("status") == "terminated"
            if is_start and answer.status == 200 and answer.json.get("errorCode") == "OFFER_UNAVAILABLE":
                return answer.json["status"] == "failed"
            return answer.status == 200 and answer.json.get("status") == wanted
        return False

    eventually(
        there, timeout_s=SETTLE_MAX_S, what=f"{owned.instance_id} {owned.wishes} to be {wanted}", seen=lambda: seen
    )
    return "failed" if wanted == "ready" and '"status":"failed"' in str(seen) else wanted


def kill_one(up: Platform, victim: str, outcome: Outcome) -> float:
    """kill -9, then wait until `/readyz` says ready again; returns the seconds that took."""
    pid = up.status_pids()[victim]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    if victim in NEEDED and says_ready_without(up, victim, pid):
        outcome.complaints.append(f"/readyz said ready while {victim} was dead")

    def back() -> bool:
        with contextlib.suppress(OSError, urllib.error.URLError, json.JSONDecodeError):
            return up.status_pids()[victim] not in (pid, 0) and up.request("GET", "/readyz").status == 200
        return False

    eventually(back, timeout_s=30.0, what=f"ready again after kill -9 of {victim}")
    return time.monotonic() - started


def says_ready_without(up: Platform, victim: str, pid: int) -> bool:
    """Whether `/readyz` claims all is well though the victim is gone before and after the answer."""
    give_up = time.monotonic() + 1.0
    while runs(pid) and time.monotonic() < give_up:
        time.sleep(0.001)
    try:
        status = up.request("GET", "/readyz").status
    except OSError:
        return False
    return status == 200 and up.status_pids()[victim] in (pid, 0)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def chaos_round(up: Platform, *, seed: int, commands: int, pause_s: float = 1.0) -> Outcome:
    """Customers send `commands` in all while processes are killed one after another; returns what was found."""
    outcome = Outcome()
    chance = random.Random(seed)
    customers = [Customer(up, seed * 100 + n, commands // CUSTOMERS, outcome) for n in range(CUSTOMERS)]
    for customer in customers:
        customer.start()
    while any(customer.is_alive() for customer in customers):
        victim = chance.choice(VICTIMS)
        took_s = kill_one(up, victim, outcome)
        outcome.kills[victim] += 1
        if took_s > outcome.slowest_back_s:
            outcome.slowest_back_s, outcome.slowest_victim = took_s, victim
        if took_s > BACK_MAX_S:
            outcome.complaints.append(f"{victim} took {took_s:.1f} s to be back")
        time.sleep(chance.uniform(0.2, 1.0) * pause_s)
    for owned in outcome.owned:
        with noted(outcome):
            wait_for_rest(up, owned)
    outcome.complaints += doubled_complaints(up, outcome) + machine_complaints(up, outcome)
    return outcome


@contextlib.contextmanager
def noted(outcome: Outcome) -> Iterator[None]:
    """One lost wish must not hide the next."""
    try:
        yield
    except AssertionError as failure:
        outcome.complaints.append(str(failure))


def doubled_complaints(up: Platform, outcome: Outcome) -> list[str]:
    """No create was carried out twice: every live instance is one that its customer knows."""
    known = {owned.instance_id for owned in outcome.owned}
    listed: list[str] = []
    while True:
        page = up.request("GET", f"/api/instances?limit={PAGE}&offset={len(listed)}").json["instances"]
        listed += [item["id"] for item in page]
        if len(page) < PAGE:
            break
    return [f"nobody asked for {instance_id}" for instance_id in listed if instance_id not in known]


def machine_complaints(up: Platform, outcome: Outcome) -> list[str]:
    """Every machine at the cloud is the one of a wanted instance; no process belongs to a machine that is not there."""
    wanted = [owned.instance_id for owned in outcome.owned if owned.wishes[-1] != "delete"]
    expected = {up.instance(instance_id)["novitaInstanceId"]: instance_id for instance_id in wanted}
    found: dict[str, Any] = {}

    def settled() -> bool:
        found["missing"] = set(expected) - {machine["machine_id"] for machine in up.machines()}
        found["unknown"] = [machine for machine in up.machines() if machine["machine_id"] not in expected]
        running = {machine["machine_id"] for machine in up.machines() if machine["status"] == "running"}
        found["without a record"] = {
            key: pids for key, pids in machine_processes(up.data_dir).items() if key not in running
        }
        return not any(found.values())

    try:
        eventually(settled, timeout_s=SETTLE_MAX_S, what="machines to match instances")
    except AssertionError:
        return [f"machines do not match: {found}"]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dumont-chaos-"))
    with platform(folder / "data", environment=CALM_MARKET) as up:
        outcome = chaos_round(up, seed=options.seed, commands=options.commands)
    outcome.complaints += complaints_about_leftovers(folder / "data")
    outcome.complaints += complaints_about_bugs(folder / "data")
    print(
        f"{outcome.commands} commands, {outcome.kills.total()} kills {dict(outcome.kills)}, "
        f"slowest back {outcome.slowest_back_s:.1f} s ({outcome.slowest_victim})"
    )
    if outcome.complaints:
        print(f"everything is kept in {folder}")
    else:
        wipe(folder / "data")
        folder.rmdir()
    for complaint in outcome.complaints:
        print("COMPLAINT", complaint)
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
