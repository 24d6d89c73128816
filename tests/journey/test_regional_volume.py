"""The workspace is on a volume of the region: the machine goes, the volume stays, a new machine in the region gets it.

Real processes, real SFTP, over the public API. The cloud is the sandbox, whose volumes one machine at a time can have.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from tests.journey.platform import BRISK, Platform, eventually, platform
from tests.journey.test_failover import call, checksums, over, take_away, told, until, write

FILES = 20
SETTLE_MAX_S = 60.0
MOUNT_PATH = "/keep"
STORY = [
    "instance.interrupted",
    "failover.started",
    "failover.rung_tried",
    "instance.recovering",
    "instance.ready",
    "failover.regional_volume_success",
    "failover.completed",
]


@pytest.fixture(scope="module")
def up(module_data_dir: Path) -> Any:
    """A platform of its own, with brisk heartbeats: hibernation begins with one."""
    with platform(module_data_dir, environment=BRISK) as running:
        yield running


def protect_new_machines(up: Platform, strategy: str) -> None:
    block = {"enabled": True, "volume_size_gb": 20, "mount_path": MOUNT_PATH}
    call(up, "PUT", "/failover/settings/global", {"default_strategy": strategy, "regional_volume": block})


def running(up: Platform, instance_id: str) -> Any:
    return until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "running", "a running instance")


def on_volume(up: Platform, strategy: str = "regional_volume") -> Any:
    """A running instance whose failover knows of its volume."""
    protect_new_machines(up, strategy)
    instance_id = call(up, "POST", "/instances", {"gpu": "RTX 4090"})["id"]
    shown = running(up, instance_id)
    until(up, f"/failover/readiness/{instance_id}", lambda seen: seen["regional_volume_ready"], "readiness")
    return shown


def some_files(seed: int) -> dict[str, bytes]:
    chance = random.Random(seed)
    return {f"file-{number}.bin": chance.randbytes(20_000) for number in range(FILES)}


def sums(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def volumes_of(up: Platform, volume_id: str) -> list[Any]:
    return [one for one in up.cloud("GET", "/v1/volumes")["volumes"] if one["volume_id"] == volume_id]


def test_a_preempted_machine_is_replaced_in_its_region_and_nothing_is_lost(up: Platform) -> None:
    before = on_volume(up)
    instance_id, files = before["id"], some_files(7)
    kept = before["volume"]
    assert (kept["region"], kept["size_gb"], kept["mount_path"]) == (before["region"], 20, MOUNT_PATH)
    write(up, before, files)
    assert checksums(up, before, [f"{MOUNT_PATH}/{name}" for name in files]) == {
        f"{MOUNT_PATH}/{name}": checksum for name, checksum in sums(files).items()
    }
    take_away(up, instance_id)
    done = over(up, instance_id, 1)
    assert (done["success"], done["strategy_succeeded"], done["data_loss_window_s"]) == (True, "regional_volume", 0)
    assert [phase["phase"] for phase in done["phase_history"]] == ["regional_volume_check", "regional_volume_failover"]
    after = running(up, instance_id)
    assert after["provider_instance_id"] != before["provider_instance_id"]
    assert (after["region"], after["volume"]) == (before["region"], kept)
    assert checksums(up, after, files) == sums(files)
    facts = told(up, instance_id)
    assert [fact for fact in facts[facts.index("instance.interrupted") :] if fact in STORY] == STORY
    (listed,) = volumes_of(up, kept["volume_id"])
    assert listed["attached_to"] == [after["provider_instance_id"]], "the lost machine has it no more"
    call(up, "DELETE", f"/instances/{instance_id}")
    eventually(
        lambda: not volumes_of(up, kept["volume_id"]), timeout_s=SETTLE_MAX_S, what="the volume to be given back"
    )


def test_a_working_machine_is_given_up_for_another_when_somebody_tries_it(up: Platform) -> None:
    before = on_volume(up)
    instance_id, files = before["id"], some_files(8)
    write(up, before, files)
    plan = call(up, "POST", f"/failover/test/{instance_id}", {})
    assert plan["would_succeed"]
    assert {step["step"]: step["ready"] for step in plan["readiness"]["plan"]}["regional_volume"]
    tried = call(up, "POST", f"/failover/test/{instance_id}?dry_run=false", {})
    assert (tried["success"], tried["strategy_succeeded"]) == (True, "regional_volume")
    after = running(up, instance_id)
    assert after["provider_instance_id"] != before["provider_instance_id"]
    assert checksums(up, after, files) == sums(files)
    write(up, after, {"file-0.bin": b"onward"})
    assert checksums(up, after, ["file-0.bin"]) == sums({"file-0.bin": b"onward"})
    call(up, "DELETE", f"/instances/{instance_id}")


def test_without_a_gpu_in_the_region_the_rung_is_skipped_and_a_start_waits_for_one(up: Platform) -> None:
    before = on_volume(up)
    instance_id, files = before["id"], some_files(9)
    write(up, before, files)
    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"preferred_gpu_names": []}})
    sell_out(up)
    take_away(up, instance_id)
    done = over(up, instance_id, 1)
    assert (done["success"], done["error"]) == (False, "every_rung_failed")
    reasons = {attempt["strategy"]: (attempt["outcome"], attempt["reason"]) for attempt in done["attempts"]}
    assert reasons["regional_volume"] == ("skipped", "no_gpu_in_region")
    refused = up.request("POST", f"/api/v1/instances/{instance_id}/start", {}, key=True)
    assert (refused.status, refused.json["error"]["code"]) == (404, "NO_AVAILABLE_PRODUCTS"), refused.text
    up.cloud("POST", "/v1/faults", {"sold_out": []})

    def is_accepted() -> bool:  # the market that the platform knows is up to two seconds old
        return up.request("POST", f"/api/v1/instances/{instance_id}/start", {}, key=True).status in (200, 202)

    eventually(is_accepted, timeout_s=SETTLE_MAX_S, what="a start to be accepted")
    after = running(up, instance_id)
    assert (after["region"], after["volume"]) == (before["region"], before["volume"])
    assert checksums(up, after, files) == sums(files)
    call(up, "PUT", "/failover/settings/global", {"warm_pool": {"preferred_gpu_names": ["RTX_3090"]}})
    sell_out(up)
    take_away(up, instance_id)
    done = over(up, instance_id, 2)
    assert (done["success"], done["strategy_succeeded"]) == (True, "regional_volume")
    other = running(up, instance_id)
    assert "3090" in other["gpu_name"], "another model that its account has named"
    assert (other["region"], other["volume"]) == (before["region"], before["volume"])
    assert checksums(up, other, files) == sums(files)
    up.cloud("POST", "/v1/faults", {"sold_out": []})
    until(up, "/offers/RTX_4090", bool, "the platform to know that there are some again")
    call(up, "DELETE", f"/instances/{instance_id}")


def sell_out(up: Platform) -> None:
    up.cloud("POST", "/v1/faults", {"sold_out": ["RTX 4090", "RTX 4090 24GB"]})
    until(up, "/offers/RTX_4090", lambda seen: not seen, "the platform to know that there is none")


def test_one_machine_s_own_settings_take_effect_with_its_next_machine(up: Platform) -> None:
    call(up, "PUT", "/failover/settings/global", {"default_strategy": "both", "regional_volume": {"enabled": False}})
    instance_id = call(up, "POST", "/instances", {"gpu": "RTX 4090"})["id"]
    before, files = running(up, instance_id), some_files(10)
    assert before["volume"] is None
    write(up, before, files)
    own = {"use_global_settings": False, "strategy": "regional_volume", "regional_volume": {"volume_size_gb": 30}}
    settings = call(up, "PUT", f"/failover/settings/machines/{instance_id}", own)
    assert (settings["effective_strategy"], settings["regional_volume"]["volume_size_gb"]) == ("regional_volume", 30)
    blockers = call(up, "GET", f"/failover/readiness/{instance_id}")["blockers"]
    assert {"strategy": "regional_volume", "reason": "no_volume"} in blockers
    call(up, "POST", f"/instances/{instance_id}/hibernate")
    until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "hibernated", "hibernation")
    call(up, "POST", f"/instances/{instance_id}/wake")
    after = running(up, instance_id)
    assert (after["volume"]["size_gb"], after["volume"]["region"]) == (30, after["region"])
    assert checksums(up, after, files) == sums(files)
    call(up, "POST", f"/instances/{instance_id}/hibernate")
    volume_id = after["volume"]["volume_id"]
    until(up, f"/instances/{instance_id}", lambda seen: seen["volume"] is None, "the volume to be given up")
    eventually(lambda: not volumes_of(up, volume_id), timeout_s=SETTLE_MAX_S, what="no volume")
    call(up, "DELETE", f"/instances/{instance_id}")
