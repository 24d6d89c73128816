"""No GPU is to be had: the CPU standby, in sync over SFTP, carries the instance with the files of its last cycle.

A process inside the machine goes on writing numbered files all the while, so what the standby has can be judged: it
must be a prefix of what was written, and no older than the reported data-loss window.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.journey.platform import Platform, eventually, machines_directory, platform
from tests.journey.test_failover import call, over, running_instance, take_away, until

INTERVAL_S = 2
FILES = 120
WRITER = f"""
import itertools, os, time
for number in itertools.count(1):
    path = "data/file-%d.txt" % (number % {FILES})
    with open(path + ".new", "w") as out:
        out.write("%d %r\\n" % (number, time.time()) * 20)
    os.rename(path + ".new", path)
    time.sleep(0.002)
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Any:
    around = {
        "DUMONT_FAILOVER_SPACING_S": "0",
        "DUMONT_HEARTBEAT_S": "1",
        "DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0}',
    }
    with platform(tmp_path_factory.mktemp("cpu"), environment=around) as running:
        yield running


def in_sync(up: Platform, instance_id: str) -> Any:
    call(up, "POST", "/standby/configure", {"sync_interval": INTERVAL_S, "auto_recovery": False})
    call(up, "POST", f"/standby/provision/{instance_id}", {})
    path = f"/standby/associations/{instance_id}"
    found = until(up, path, lambda seen: seen["state"] == "ready", "a CPU standby in sync")
    until(up, f"/failover/readiness/{instance_id}", lambda seen: seen["overall_ready"], "readiness")
    return found


def write_for_ever(up: Platform, instance: Any) -> None:
    """Start the writer inside the machine and leave it running."""

    async def start() -> None:
        key = up.data_dir / "sandbox" / "keys" / "id_ed25519"
        where = {"username": "root", "client_keys": [str(key)], "known_hosts": None}
        async with asyncssh.connect(instance["ssh_host"], instance["ssh_port"], **where) as connection:
            await connection.run("mkdir -p data && cat > writer.py", input=WRITER, check=True)
            await connection.run("nohup setsid python3 writer.py > /dev/null 2>&1 < /dev/null & sleep 0.1", check=True)

    asyncio.run(start())


def home(up: Platform, provider_machine_id: str) -> Path:
    return machines_directory(up.data_dir) / provider_machine_id


def judge(folder: Path) -> tuple[int, float]:
    """The newest number in `folder` and when it was written. Every file must be as it was when that was written."""
    numbers: dict[int, tuple[int, float]] = {}
    for path in folder.glob("file-*.txt"):
        lines = path.read_text().splitlines()
        assert len(set(lines)) == 1, f"{path} is torn"
        assert len(lines) == 20, f"{path} is cut off"
        number, at = lines[0].split()
        numbers[int(path.stem.removeprefix("file-"))] = (int(number), float(at))
    newest, at = max(numbers.values())
    for slot in range(FILES):
        expected = max((n for n in range(max(1, newest - FILES + 1), newest + 1) if n % FILES == slot), default=0)
        if expected:
            assert numbers[slot][0] == expected, f"file {slot} is of another instant than number {newest}"
    return newest, at


def test_without_a_gpu_the_cpu_standby_takes_over_with_a_consistent_prefix(up: Platform) -> None:
    before = running_instance(up)
    instance_id = before["id"]
    write_for_ever(up, before)
    workspace = home(up, before["provider_instance_id"]) / "workspace" / "data"
    eventually(lambda: len(list(workspace.glob("file-*.txt"))) >= FILES, timeout_s=30, what="a full round of files")
    in_sync(up, instance_id)
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
    _, written_at = judge(home(up, after["provider_instance_id"]) / "workspace" / "data")
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
    in_sync(up, instance_id)
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
