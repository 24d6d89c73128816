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
        assert call(up, "POST", f"/instances/{instance_id}/hibernate")["status"] == "hibernated"
        stats = call(up, "GET", "/hibernation/stats")
        assert (stats["total_hibernations"], stats["machines"][0]["instance_id"]) == (1, instance_id)
        assert call(up, "POST", f"/instances/{instance_id}/wake")["status"] in ("starting", "running")
        after = becomes(up, instance_id, "running")
        assert after["provider_instance_id"] != before["provider_instance_id"]
        assert (workspace(up, after) / "models" / "weights.bin").read_bytes() == bytes(range(256)) * 400
        assert call(up, "GET", "/hibernation/stats")["total_hours_saved"] >= 0
        call(up, "DELETE", f"/instances/{instance_id}")
