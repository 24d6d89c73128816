"""No GPU is to be had: the CPU standby, in sync over SFTP, carries the instance with the files of its last cycle.

A process inside the machine goes on writing numbered files all the while, so what the standby has can be judged: it
must be a prefix of what was written, and no older than the reported data-loss window (at full size: `just prefix`).
"""

from __future__ import annotations

import time

import pytest

from tests.journey.platform import Platform, eventually
from tests.journey.prefix import Load, home, in_sync, judge, write_for_ever
from tests.journey.test_failover import call, over, running_instance, take_away, until

INTERVAL_S = 2
SMALL = Load(files=120, lines=20)


@pytest.fixture
def up(survival: Platform) -> Platform:
    return survival


def test_without_a_gpu_the_cpu_standby_takes_over_with_a_consistent_prefix(up: Platform) -> None:
    before = running_instance(up)
    instance_id = before["id"]
    write_for_ever(up, before, SMALL)
    workspace = home(up, before["provider_instance_id"]) / "workspace" / "data"
    eventually(
        lambda: len(list(workspace.glob("file-*.txt"))) >= SMALL.files, timeout_s=30, what="a full round of files"
    )
    in_sync(up, instance_id, INTERVAL_S)
    first = call(up, "GET", f"/standby/associations/{instance_id}")
    assert first["sync_count"] >= 1
    told = call(up, "GET", f"/failover/readiness/{instance_id}")
    assert told["cpu_standby_ready"], told
    assert (
        told["cpu_standby_status"]["last_sync_age_seconds"] <= told["cpu_standby_status"]["last_sync_age_max_seconds"]
    )
    protected = call(up, "GET", f"/failover/status/{instance_id}")["cpu_standby"]
    assert (protected["enabled"], protected["active"]) == (True, False)
    assert protected["instance_name"] == first["cpu_standby"]["name"]
    time_of_loss = time.time()
    take_away(up, instance_id)
    done = over(up, instance_id, 1)
    assert (done["success"], done["strategy_succeeded"]) == (True, "cpu_standby"), done
    after = until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "running", "the instance to run")
    assert after["generation"] > before["generation"]
    shown = call(up, "GET", f"/standby/associations/{instance_id}")
    assert shown["state"] == "failover_active"
    assert shown["cpu_standby"]["name"] == first["cpu_standby"]["name"]
    told = call(up, "GET", f"/failover/readiness/{instance_id}")
    assert not told["cpu_standby_ready"]
    assert {"strategy": "cpu_standby", "reason": "failover_active"} in told["blockers"]
    _, written_at = judge(home(up, after["provider_instance_id"]) / "workspace" / "data", SMALL)
    lost_s = time_of_loss - written_at
    assert lost_s <= done["data_loss_window_s"] + 0.5, (
        f"{lost_s} s are missing, {done['data_loss_window_s']} s were told"
    )
    assert done["data_loss_window_s"] <= 2 * INTERVAL_S + 3
    inbox = home(up, after["provider_instance_id"]) / ".dumont" / "inbox"
    assert list(inbox.iterdir()) == [], "a late machine finds no place to write"


def test_standby_answers_and_errors(up: Platform) -> None:
    price = call(up, "GET", "/standby/pricing")
    assert (price["estimated_hourly_usd"], price["estimated_monthly_usd"]) == (0.01, 11.2)
    on_demand = call(up, "GET", "/standby/pricing?spot=false")
    assert on_demand["estimated_monthly_usd"] == 28.48
    assert up.request("GET", "/api/v1/standby/pricing?machine_type=z9", key=True).status == 400
    missing = up.request("POST", "/api/v1/standby/provision/inst_none", {}, key=True)
    assert (missing.status, missing.json["error"]["code"]) == (404, "INSTANCE_NOT_FOUND")
    instance_id = running_instance(up, skip_standby=True)["id"]
    none = up.request("GET", f"/api/v1/standby/associations/{instance_id}", key=True)
    assert (none.status, none.json["error"]["code"]) == (404, "ASSOCIATION_NOT_FOUND")
    in_sync(up, instance_id, INTERVAL_S)
    status = call(up, "GET", "/standby/status")
    assert (status["configured"], status["auto_standby_enabled"]) == (True, True)
    assert instance_id in status["associations"]
    assert status["config"]["sync_interval"] == INTERVAL_S
    call(up, "DELETE", f"/standby/associations/{instance_id}")
    assert instance_id not in call(up, "GET", "/standby/associations")["associations"]


def test_once_configured_a_new_instance_gets_a_standby_by_itself_and_disabling_keeps_it(up: Platform) -> None:
    call(up, "POST", "/standby/configure", {"sync_interval": INTERVAL_S})
    instance_id = running_instance(up)["id"]
    path = f"/standby/associations/{instance_id}"
    eventually(lambda: up.request("GET", f"/api/v1{path}", key=True).status == 200, timeout_s=30, what="an association")
    until(up, path, lambda seen: seen["state"] == "ready", "a CPU standby that nobody asked for")
    call(up, "POST", "/standby/configure", {"enabled": False})
    status = call(up, "GET", "/standby/status")
    assert (status["configured"], status["auto_standby_enabled"]) == (False, False)
    assert instance_id in status["associations"]
    later = running_instance(up)["id"]
    call(up, "POST", "/standby/configure", {"sync_interval": INTERVAL_S})
    assert later not in call(up, "GET", "/standby/associations")["associations"]
