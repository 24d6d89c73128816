"""A machine is taken away and the customer's work goes on: same instance, same files, on another machine.

Real processes, real SFTP, over the public API. Runs with and without a warm pool, and with a working machine given up
on purpose.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
from typing import Any

import asyncssh
import pytest

from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.wire import header
from libs.tokens import mint_agent_token
from tests.journey.platform import ROOT, Platform, eventually, machines_directory, platform

READY_S_MAX = 60.0
FILES = 20
STORY = [
    "instance.interrupted",
    "failover.started",
    "failover.rung_tried",
    "warmpool.claimed",
    "instance.recovering",
    "instance.ready",
    "failover.warm_pool_success",
    "failover.completed",
]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A platform of its own, where failovers may follow each other and every GPU is to be had."""
    around = {
        "DUMONT_FAILOVER_SPACING_S": "0",
        "DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0}',
    }
    with platform(tmp_path_factory.mktemp("survival"), environment=around) as running:
        yield running


def call(up: Platform, method: str, path: str, body: Any = None) -> Any:
    """The data of a granted request."""
    answer = up.request(method, f"/api/v1{path}", body, key=True)
    assert answer.json["success"], answer.text
    return answer.json["data"]


def until(up: Platform, path: str, holds: Any, what: str) -> Any:
    last: Any = None

    def reached() -> bool:
        nonlocal last
        last = call(up, "GET", path)
        return holds(last)

    eventually(reached, timeout_s=READY_S_MAX, what=what, seen=lambda: last)
    return last


def running_instance(up: Platform, **wishes: Any) -> Any:
    created = call(up, "POST", "/instances", {"gpu": "RTX 4090", **wishes})
    return until(up, f"/instances/{created['id']}", lambda seen: seen["status"] == "running", "a running instance")


def active_pool(up: Platform, instance_id: str, mode: str) -> Any:
    call(up, "POST", "/warmpool/provision", {"machine_id": instance_id, "mode": mode})
    pool = until(up, f"/warmpool/status/{instance_id}", lambda seen: seen["state"] == "active", "an active pool")
    until(up, f"/failover/readiness/{instance_id}", lambda seen: seen["overall_ready"], "readiness")
    return pool


def take_away(up: Platform, instance_id: str) -> None:
    command = [sys.executable, "-m", "services.cli", "sandbox", "interrupt", instance_id]
    subprocess.run([*command, "--data-dir", str(up.data_dir)], cwd=ROOT, check=True, capture_output=True)


def over(up: Platform, instance_id: str, count: int) -> Any:
    """The newest failover, once `count` of them are over."""
    path = f"/failovers?machine_id={instance_id}"
    is_over = lambda found: len(found) == count and all(one["success"] is not None for one in found)  # noqa: E731
    return until(up, path, is_over, f"{count} failovers that are over")[0]


async def sftp(up: Platform, instance: Any, act: Any) -> Any:
    key = up.data_dir / "sandbox" / "keys" / "id_ed25519"
    where = {"username": "root", "client_keys": [str(key)], "known_hosts": None}
    async with asyncssh.connect(instance["ssh_host"], instance["ssh_port"], **where) as connection:
        async with connection.start_sftp_client() as files:
            return await act(files)


def write(up: Platform, instance: Any, files: dict[str, bytes]) -> None:
    async def act(sftp_files: Any) -> None:
        for name, content in files.items():
            async with sftp_files.open(name, "wb") as opened:
                await opened.write(content)

    asyncio.run(sftp(up, instance, act))


def checksums(up: Platform, instance: Any, names: Any) -> dict[str, str]:
    async def act(sftp_files: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in names:
            async with sftp_files.open(name, "rb") as opened:
                found[name] = hashlib.sha256(await opened.read()).hexdigest()
        return found

    return asyncio.run(sftp(up, instance, act))


def told(up: Platform, instance_id: str) -> list[str]:
    """Every public fact about an instance, in the order of PUB."""

    async def read() -> list[str]:
        connection = await open_connection(up.nats_url, name="journey")
        log, found = JetStreamLog(connection), list[str]()
        last_seq = await log.last_seq("PUB")
        async for batch in log.follow("PUB", after_seq=0):
            found += [
                header(stored.headers, b"ce-type").decode()
                for stored in batch
                if header(stored.headers, b"ce-subject").decode() == instance_id
            ]
            if batch[-1].seq >= last_seq:
                break
        await connection.close()
        return found

    return asyncio.run(read())


@pytest.mark.parametrize("mode", ["hot", "stopped"])
def test_a_preempted_instance_goes_on_under_its_id_with_its_files(up: Platform, mode: str) -> None:
    before = running_instance(up, onstart_cmd="date +%s.%N >> started.txt")
    instance_id, chance = before["id"], random.Random(7)
    early = {f"early-{number}.bin": chance.randbytes(20_000) for number in range(FILES)}
    write(up, before, early)
    active_pool(up, instance_id, mode)
    late = {f"late-{number}.bin": chance.randbytes(20_000) for number in range(FILES)}
    write(up, before, late)
    take_away(up, instance_id)
    failover = over(up, instance_id, 1)
    assert (failover["success"], failover["strategy_succeeded"], failover["data_loss_window_s"]) == (
        True,
        "warm_pool",
        0,
    )
    assert failover["reason"] == "spot_preemption"
    after = call(up, "GET", f"/instances/{instance_id}")
    assert (after["status"], after["host_id"]) == ("running", before["host_id"])
    assert after["generation"] > before["generation"]
    assert after["provider_instance_id"] != before["provider_instance_id"]
    written = {name: hashlib.sha256(content).hexdigest() for name, content in {**early, **late}.items()}
    assert checksums(up, after, written) == written
    write(up, after, {"early-0.bin": b"the work goes on"})  # what the lost machine wrote can be changed
    started = machines_directory(up.data_dir) / after["provider_instance_id"] / "workspace" / "started.txt"
    runs = lambda: len(started.read_text().split())  # noqa: E731
    eventually(lambda: runs() == 2, timeout_s=30, what="the start command on both machines", seen=runs)
    until(up, f"/warmpool/status/{instance_id}", lambda pool: pool["state"] == "active", "another standby")
    assert runs() == 2, "the next standby does not run it"
    facts = told(up, instance_id)
    story = [fact for fact in facts[facts.index("instance.interrupted") :] if fact in STORY]
    assert story == STORY
    call(up, "DELETE", f"/instances/{instance_id}")


def test_a_late_machine_of_an_old_generation_is_not_heard(up: Platform) -> None:
    """Its agent may be cut off, or its cloud may have lied about its end: what it says must not count."""
    before = running_instance(up)
    instance_id = before["id"]
    ready = until(up, "/agent/instances", lambda seen: any(a["instance_id"] == instance_id for a in seen), "its agent")
    old = next(one for one in ready if one["instance_id"] == instance_id)
    active_pool(up, instance_id, "hot")
    take_away(up, instance_id)
    over(up, instance_id, 1)
    after = call(up, "GET", f"/instances/{instance_id}")
    secret = (up.data_dir / "secrets" / "platform").read_text().strip()
    was = {"machine_id": old["machine_id"], "generation": before["generation"]}
    token = mint_agent_token(secret, instance_id=instance_id, **was)
    beat = {"instance_id": instance_id, "status": "idle", "message": "I am back", "version": "1"}
    answer = up.request("POST", "/api/v1/agent/status", beat, key=token)
    assert (answer.status, answer.json["data"]["action"]) == (200, "shutdown")
    heard = [one for one in call(up, "GET", "/agent/instances") if one["instance_id"] == instance_id]
    assert old["machine_id"] not in [one["machine_id"] for one in heard]
    for method, path in (("POST", f"/instances/{instance_id}/stop"), ("DELETE", f"/instances/{instance_id}"),
                         ("POST", f"/agent/instances/{instance_id}/keep-alive"), ("GET", "/instances")):  # fmt: skip
        assert up.request(method, f"/api/v1{path}", None, key=token).status == 401, path
    assert call(up, "GET", f"/instances/{instance_id}")["provider_instance_id"] == after["provider_instance_id"]
    call(up, "DELETE", f"/instances/{instance_id}")


def test_without_a_pool_the_failover_fails_honestly_and_says_which_rungs_it_skipped(up: Platform) -> None:
    instance_id = running_instance(up)["id"]
    take_away(up, instance_id)
    failover = over(up, instance_id, 1)
    assert (failover["success"], failover["error"]) == (False, "every_rung_failed")
    assert [(one["strategy"], one["outcome"], one["reason"]) for one in failover["attempts"]] == [
        ("warm_pool", "skipped", "not_configured"),
        ("cpu_standby", "skipped", "not_configured"),
        ("regional_volume", "skipped", "not_in_strategy"),
        ("cloud_storage", "skipped", "not_in_strategy"),
    ]
    assert call(up, "GET", f"/instances/{instance_id}")["status"] == "interrupted"
    call(up, "DELETE", f"/instances/{instance_id}")


def test_a_dry_run_touches_nothing_and_a_real_test_moves_the_instance(up: Platform) -> None:
    before = running_instance(up)
    instance_id = before["id"]
    write(up, before, {"work.txt": b"mine"})
    dry = call(up, "POST", f"/failover/test/{instance_id}")
    assert (dry["dry_run"], dry["would_succeed"]) == (True, False)
    active_pool(up, instance_id, "stopped")
    dry = call(up, "POST", f"/failover/test/{instance_id}")
    assert dry["would_succeed"]
    first = dry["readiness"]["plan"][0]
    assert (first["step"], first["ready"]) == ("warm_pool", True)
    assert call(up, "GET", f"/failovers?machine_id={instance_id}") == []
    real = call(up, "POST", f"/failover/test/{instance_id}?dry_run=false")
    assert (real["success"], real["strategy_succeeded"]) == (True, "warm_pool")
    after = call(up, "GET", f"/instances/{instance_id}")
    assert after["provider_instance_id"] != before["provider_instance_id"]
    assert checksums(up, after, ["work.txt"])["work.txt"] == hashlib.sha256(b"mine").hexdigest()
    assert call(up, "GET", f"/failovers/{real['failover_id']}")["test"] is True
    assert call(up, "POST", f"/warmpool/disable/{instance_id}")["status"] == "disabled"
    assert call(up, "GET", f"/instances/{instance_id}")["status"] == "running"
    call(up, "DELETE", f"/instances/{instance_id}")


def test_settings_are_merged_and_unknown_machines_are_not_found(up: Platform) -> None:
    changed = call(up, "PUT", "/failover/settings/global", {"warm_pool": {"volume_size_gb": 60}})
    assert (changed["warm_pool"]["volume_size_gb"], changed["warm_pool"]["enabled"]) == (60, True)
    assert changed["default_strategy"] == "both"
    wrong = up.request("PUT", "/api/v1/failover/settings/global", {"default_strategy": "luck"}, key=True)
    assert (wrong.status, wrong.json["error"]["code"]) == (400, "VALIDATION_ERROR")
    instance_id = running_instance(up)["id"]
    own = call(
        up, "PUT", f"/failover/settings/machines/{instance_id}", {"use_global_settings": False, "strategy": "disabled"}
    )
    assert own["effective_strategy"] == "disabled"
    refused = up.request("POST", "/api/v1/failover/execute", {"machine_id": instance_id}, key=True)
    assert (refused.status, refused.json["error"]["code"]) == (409, "FAILOVER_DISABLED")
    for method, path in (
        ("GET", "/failover/readiness/inst_none"),
        ("GET", "/failover/status/inst_none"),
        ("GET", "/failover/settings/machines/inst_none"),
        ("GET", "/warmpool/status/inst_none"),
        ("POST", "/warmpool/enable/inst_none"),
    ):
        missing = up.request(method, f"/api/v1{path}", None if method == "GET" else {}, key=True)
        assert (missing.status, missing.json["error"]["code"]) == (404, "INSTANCE_NOT_FOUND"), path
    call(up, "DELETE", f"/instances/{instance_id}")


def test_hosts_and_strategies_are_listed(up: Platform) -> None:
    hosts = call(up, "GET", "/warmpool/hosts?gpu_name=RTX_4090&verified=false")
    assert hosts["count"] >= len(hosts["hosts"]) > 0
    assert all(host["can_create_warm_pool"] and host["available_gpus"] >= 2 for host in hosts["hosts"])
    names = [one["id"] for one in call(up, "GET", "/failover/strategies")["strategies"]]
    assert names == ["warm_pool", "cpu_standby", "both", "regional_volume", "cloud_storage", "all", "disabled"]
