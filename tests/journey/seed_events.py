"""What causes each event that the seeds name, and how a delivery is compared with its golden file.

Used by `test_seed_events.py`. A new cause is one function and one line of CAUSES.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tests.journey.platform import Platform, eventually, machines_directory

CAUSED_MAX_S = 60.0
# A day of three GPUs costs more than the credit; failovers may follow each other; an agent is silent after nine seconds
# and its machine lost much later.
AROUND = {
    "DUMONT_WELCOME_CREDIT_USD": "8",
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_HEARTBEAT_S": "3",
    "DUMONT_HEARTBEAT_MISSES_MAX": "3",
    "DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0, "gpus": 30000}',
}


def call(up: Platform, method: str, path: str, body: Any = None) -> Any:
    answer = up.request(method, f"/api/v1{path}", body, key=True)
    assert answer.json["success"], answer.text
    return answer.json["data"]


def live_and_die(up: Platform) -> None:
    """An instance that is made, becomes ready, is stopped and deleted."""
    instance_id = up.create_ready()["id"]
    assert up.request("POST", f"/api/instances/{instance_id}/stop").status == 200
    up.wait_for_status(instance_id, "stopped")
    call(up, "DELETE", f"/instances/{instance_id}")


def cost_more_than_there_is(up: Platform) -> None:
    """Three instances run, and the credit does not last a day whatever the market asks for them."""
    for _ in range(3):
        up.create_ready()


def be_taken_over(up: Platform) -> None:
    """An instance with a warm pool whose machine is taken away."""
    instance_id = up.create_ready()["id"]
    pool_of(up, instance_id)
    up.verb("sandbox", "interrupt", instance_id)
    up.wait_for_status(instance_id, "ready", timeout_s=CAUSED_MAX_S)


def lose_the_standby(up: Platform) -> None:
    """A pool whose standby is taken away is degraded."""
    instance_id = up.create_ready()["id"]
    before = {machine["machine_id"] for machine in up.machines()}
    pool_of(up, instance_id)
    for machine in up.machines():
        if machine["machine_id"] not in before:
            up.cloud("POST", f"/v1/machines/{machine['machine_id']}/interrupt", {})


def go_on_without_a_gpu(up: Platform) -> None:
    """An instance that is kept in sync with a CPU machine loses its own."""
    instance_id = up.create_ready()["id"]
    call(up, "PUT", f"/failover/settings/machines/{instance_id}", {"use_global_settings": False, "strategy": "all"})
    call(up, "POST", "/standby/configure", {"sync_interval": 5})
    call(up, "POST", f"/standby/provision/{instance_id}", {})
    call(up, "POST", "/standby/configure", {"enabled": False})  # for those that come after it
    path = f"/standby/associations/{instance_id}"
    eventually(
        lambda: call(up, "GET", path)["state"] == "ready", timeout_s=CAUSED_MAX_S, what="a CPU standby in sync",
        seen=lambda: call(up, "GET", path),
    )  # fmt: skip
    up.verb("sandbox", "interrupt", instance_id)
    up.wait_for_status(instance_id, "ready", timeout_s=CAUSED_MAX_S)


def sleep(up: Platform) -> None:
    """An instance is hibernated because its owner says so."""
    instance_id = up.create_ready()["id"]
    call(up, "POST", f"/instances/{instance_id}/hibernate")


def have_nothing_to_fall_back_on(up: Platform) -> None:
    """A machine is taken away and no rung of the ladder is ready."""
    instance_id = up.create_ready()["id"]
    up.verb("sandbox", "interrupt", instance_id)


def fail_to_boot(up: Platform) -> None:
    """Every machine that is rented fails to boot."""
    up.cloud("POST", "/v1/faults", {"boots_failing": 50})
    instance_id = up.create()
    up.wait_for_status(instance_id, "failed", timeout_s=CAUSED_MAX_S)
    up.cloud("POST", "/v1/faults", {"boots_failing": 0})


def fall_silent(up: Platform) -> None:
    """The agents of all machines stop speaking."""
    up.create_ready()
    for note in machines_directory(up.data_dir).glob("*/.dumont/agent_status.json"):
        with suppress(ProcessLookupError):
            os.kill(json.loads(note.read_text())["pid"], signal.SIGSTOP)


def pool_of(up: Platform, instance_id: str) -> None:
    call(up, "POST", "/warmpool/provision", {"machine_id": instance_id, "mode": "hot"})
    seen: dict[str, Any] = {}

    def is_ready() -> bool:
        seen["pool"] = call(up, "GET", f"/warmpool/status/{instance_id}")
        seen["readiness"] = call(up, "GET", f"/failover/readiness/{instance_id}")
        return seen["readiness"]["overall_ready"]

    eventually(is_ready, timeout_s=CAUSED_MAX_S, what="a warm pool", seen=lambda: seen)


# In the order in which they are made to happen.
CAUSES: Mapping[Callable[[Platform], None], tuple[str, ...]] = {
    live_and_die: ("instance.created", "instance.started", "instance.ready", "instance.stopped", "instance.deleted"),
    cost_more_than_there_is: ("balance.low",),
    be_taken_over: ("instance.interrupted", "failover.started", "failover.warm_pool_success", "failover.completed",
                    "warmpool.provisioned", "instance.migrated"),
    lose_the_standby: ("warmpool.degraded",),
    go_on_without_a_gpu: ("standby.sync_started", "standby.sync_completed", "failover.cpu_standby_success"),
    sleep: ("instance.hibernated",),
    have_nothing_to_fall_back_on: ("failover.failed",),
    fail_to_boot: ("instance.failed",),
    fall_silent: ("agent.heartbeat_lost",),
}  # fmt: skip

STEPS = ("attempts", "phases")  # which rungs there are is the ladder's business
WORDS = ("detail", "message")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_ID = re.compile(r"\b(inst|mach|cmt|corr|req|fo|evt|vol|host|acct|pool|offer|sbx)[_-][A-Za-z0-9_.-]+")
_PLACE = re.compile(r"127\.0\.0\.1(:\d+| -p \d+)?")
_FILE = re.compile(r"-i \S+")


def masked(value: Any, name: str = "") -> Any:
    """What differs from run to run replaced by what it is; everything a receiver branches on stays."""
    if isinstance(value, dict):
        return {key: masked(inner, key) for key, inner in value.items()}
    if name in STEPS:
        return "<steps>"
    if isinstance(value, list):
        return [masked(inner, name) for inner in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return value if name == "port" else "<number>"
    text = _FILE.sub("-i <file>", _PLACE.sub("<place>", _INSTANT.sub("<instant>", str(value))))
    text = _ID.sub(lambda found: f"<{found[1]}>", text)
    if name in WORDS:
        return "<words>"
    return "<name>" if name in ("name", "region", "host_id", "host_machine_id") else text
