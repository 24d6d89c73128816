"""An instance sleeps and wakes: its machine is given back, its files are not, and what that saved is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.journey.platform import Platform, eventually, machines_directory, platform

SETTLE_MAX_S = 60.0
AROUND = {"DUMONT_HEARTBEAT_S": "1", "DUMONT_SANDBOX_OPTIONS": '{"outside_demand_ppm": 0}'}


def call(up: Platform, method: str, path: str, body: Any = None) -> Any:
    answer = up.request(method, f"/api/v1{path}", body, key=True)
    assert answer.json["success"], answer.text
    return answer.json["data"]


def becomes(up: Platform, instance_id: str, status: str) -> Any:
    seen: Any = None

    def is_there() -> bool:
        nonlocal seen
        seen = call(up, "GET", f"/instances/{instance_id}")
        return seen["status"] == status

    eventually(is_there, timeout_s=SETTLE_MAX_S, what=f"{instance_id} to be {status}", seen=lambda: seen)
    return seen


def workspace(up: Platform, instance: Any) -> Path:
    return machines_directory(up.data_dir) / instance["provider_instance_id"] / "workspace"


def test_a_hibernated_instance_costs_no_machine_and_wakes_with_its_files(own_data_dir: Path) -> None:
    with platform(own_data_dir, environment=AROUND) as up:
        instance_id = call(up, "POST", "/instances", {"gpu": "RTX 4090"})["id"]
        before = becomes(up, instance_id, "running")
        (workspace(up, before) / "models").mkdir()
        (workspace(up, before) / "models" / "weights.bin").write_bytes(bytes(range(256)) * 400)
        assert call(up, "POST", f"/instances/{instance_id}/hibernate")["status"] == "hibernating"
        becomes(up, instance_id, "hibernated")
        eventually(lambda: not up.machines(), timeout_s=SETTLE_MAX_S, what="no machine at the cloud", seen=up.machines)
        asleep = call(up, "POST", f"/instances/{instance_id}/hibernate")
        assert (asleep["status"], asleep["status_reason"]) == ("hibernated", "user_request")
        stats = call(up, "GET", "/hibernation/stats")
        assert (stats["total_hibernations"], stats["machines"][0]["instance_id"]) == (1, instance_id)
        assert call(up, "POST", f"/instances/{instance_id}/wake")["status"] in ("starting", "running")
        after = becomes(up, instance_id, "running")
        assert after["provider_instance_id"] != before["provider_instance_id"]
        assert (workspace(up, after) / "models" / "weights.bin").read_bytes() == bytes(range(256)) * 400
        assert call(up, "GET", "/hibernation/stats")["total_hours_saved"] >= 0
        assert after["status_reason"] == ""
        _is_hibernated_when_the_balance_ends(up, after)
        call(up, "DELETE", f"/instances/{instance_id}")


def _is_hibernated_when_the_balance_ends(up: Platform, instance: Any) -> None:
    """Little more than a minute of it is left: suspended within seconds, with money for a copy of its files."""
    balance = call(up, "GET", "/balance")
    taken = round(balance["balance"] - instance["cost_per_hour"] * 65 / 3_600, 6)
    up.verb("accounts", "adjust", "acct_default", "--usd", str(-taken), "--reason", "chargeback", "--reference", "one")
    up.verb("accounts", "adjust", "acct_default", "--usd", str(-taken), "--reason", "chargeback", "--reference", "one")
    asleep = becomes(up, instance["id"], "hibernated")
    assert asleep["status_reason"] == "insufficient_balance"
    refused = up.request("POST", f"/api/v1/instances/{instance['id']}/wake", key=True)
    assert (refused.status, refused.json["error"]["code"]) == (402, "INSUFFICIENT_BALANCE")
    told = {one["event"]: one["data"] for one in call(up, "GET", "/events?limit=100")["events"]}
    assert told["balance.suspended"]["instance_ids"] == [instance["id"]]
    (entry,) = [one for one in call(up, "GET", "/billing/history") if one["type"] == "adjustment"]
    assert (entry["amount"], entry["description"]) == (-taken, "chargeback")
    call(up, "POST", "/billing/add-credits", {"amount": 10})
    assert call(up, "POST", f"/instances/{instance['id']}/wake")["status"] in ("starting", "running")


def test_only_a_gpu_that_is_measured_and_rests_is_hibernated(own_data_dir: Path) -> None:
    """Real agents: one measures a GPU at rest, one a GPU at work, and one has no GPU to measure."""
    pace = {"DUMONT_HIBERNATE_IDLE_S": "3", "DUMONT_HIBERNATE_NOTICE_S": "1"}
    with platform(own_data_dir, environment={**AROUND, **pace}) as up:
        ids = [call(up, "POST", "/instances", {"gpu": "RTX 4090"})["id"] for _ in range(3)]
        resting, working, unmeasured = ids
        machines = {name: becomes(up, name, "running")["provider_instance_id"] for name in ids}
        up.cloud("POST", f"/v1/machines/{machines[working]}/gpus", {"utilizations": [93]})
        up.cloud("POST", f"/v1/machines/{machines[resting]}/gpus", {"utilizations": [0]})
        becomes(up, resting, "hibernated")
        agents = {one["instance_id"]: one for one in call(up, "GET", "/agent/instances")}
        assert (agents[working]["gpu_utilization"], agents[working]["idle_since"]) == (93, None)
        assert (agents[unmeasured]["gpu_utilization"], agents[unmeasured]["idle_since"]) == (None, None)
        # As long again as the resting one took: whoever else is to be hibernated would be by now.
        heard = agents[unmeasured]["uptime_seconds"]
        eventually(lambda: _uptime(up, unmeasured) >= 2 * heard, timeout_s=SETTLE_MAX_S, what="as much time again")
        for name in (working, unmeasured):
            seen = call(up, "GET", f"/instances/{name}")
            assert (seen["status"], seen["provider_instance_id"]) == ("running", machines[name])
        told = call(up, "GET", "/events?limit=100")["events"]
        scheduled = {one["data"]["instance_id"] for one in told if "hibernat" in one["event"]}
        assert scheduled == {resting}
        up.cloud("POST", f"/v1/machines/{machines[working]}/gpus", {"utilizations": [0]})
        becomes(up, working, "hibernated")


def _uptime(up: Platform, instance_id: str) -> int:
    agents = call(up, "GET", "/agent/instances")
    return next(one["uptime_seconds"] for one in agents if one["instance_id"] == instance_id)
