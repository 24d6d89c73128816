"""A change of the settings reaches the warm pools that are there, over the public API and with real machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.journey.platform import Platform, eventually, platform
from tests.journey.test_failover import READY_S_MAX, active_pool, call, running_instance, until


@pytest.fixture(scope="module")
def up(module_data_dir: Path) -> Any:
    """A platform of its own: its account's settings change, and nobody else may take the GPU of a standby."""
    around = {"DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0}'}
    with platform(module_data_dir, environment=around) as running:
        yield running


def pool_is(up: Platform, instance_id: str, **wanted: str) -> Any:
    def holds(seen: Any) -> bool:
        return all(seen[name] == value for name, value in wanted.items())

    return until(up, f"/warmpool/status/{instance_id}", holds, f"a pool with {wanted}")


def machines_are(up: Platform, machine_ids: set[str]) -> None:
    """What the cloud has, by its own account."""
    labels = {up.label_of(machine_id) for machine_id in machine_ids}
    seen: list[Any] = []

    def reached() -> bool:
        seen[:] = up.machines()
        return {machine["label"] for machine in seen} == labels

    eventually(reached, timeout_s=READY_S_MAX, what=f"only {labels} in the cloud", seen=lambda: seen)


def test_changed_settings_reach_a_pool_that_is_there(up: Platform) -> None:
    instance_id = running_instance(up)["id"]
    stopped = active_pool(up, instance_id, "stopped")
    primary = stopped["primary_gpu_id"]
    assert (stopped["mode"], stopped["standby_state"]) == ("stopped", "stopped")

    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"standby_mode": "hot"}})
    hot = pool_is(up, instance_id, mode="hot", state="active")
    assert hot["standby_state"] == "running"
    assert hot["standby_gpu_id"] != stopped["standby_gpu_id"]
    machines_are(up, {primary, hot["standby_gpu_id"]})

    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"enabled": False}})
    pool_is(up, instance_id, state="disabled", standby_state="none")
    machines_are(up, {primary})
    assert call(up, "GET", f"/instances/{instance_id}")["status"] == "running"

    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"enabled": True}})
    call(up, "POST", f"/warmpool/enable/{instance_id}")
    pool_is(up, instance_id, mode="hot", state="active")
    own = {"use_global_settings": False, "warm_pool_enabled": True}
    call(up, "PUT", f"/failover/settings/machines/{instance_id}", own)
    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"enabled": False, "volume_size_gb": 120}})
    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"standby_mode": "stopped"}})
    kept = pool_is(up, instance_id, mode="stopped", state="active")  # it decides for itself that it has a pool
    call(up, "PUT", f"/failover/settings/machines/{instance_id}", {"warm_pool_enabled": False})
    pool_is(up, instance_id, state="disabled")
    machines_are(up, {primary})
    assert kept["primary_gpu_id"] == primary


def test_a_change_that_comes_again_after_another_one_changes_nothing(up: Platform) -> None:
    instance_id = running_instance(up)["id"]
    own, account = f"/api/v1/failover/settings/machines/{instance_id}", "/api/v1/failover/settings/global"
    for path, wish in ((own, {"strategy": "warm_pool"}), (account, {"default_strategy": "cpu_standby"})):
        first = up.request("PUT", path, wish, headers={"Idempotency-Key": "first"}, key=True)
        name = next(iter(wish))
        assert first.json["data"][name] == wish[name]
        changed = up.request("PUT", path, {name: "all"}, headers={"Idempotency-Key": "second"}, key=True)
        late = up.request("PUT", path, wish, headers={"Idempotency-Key": "first"}, key=True)
        assert (late.status, changed.json["data"][name], late.json["data"][name]) == (200, "all", "all")
        again = up.request("PUT", path, wish, headers={"Idempotency-Key": "third"}, key=True)
        assert again.json["data"][name] == wish[name]
