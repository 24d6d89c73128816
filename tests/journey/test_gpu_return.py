"""From the CPU standby back to a GPU: nothing written is lost, one machine is primary, and the CPU machine stands by.

A program goes on writing on the CPU machine until it is held still. It notes every number also outside the workspace,
where nothing is synced, so the GPU machine's files can be judged against everything that was ever written.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.journey.platform import BRISK, Platform, eventually, platform
from tests.journey.prefix import Load, home, judge
from tests.journey.test_cpu_standby import INTERVAL_S
from tests.journey.test_failover import call, over, running_instance, take_away, told, until

EARLY = {"early.bin": b"before the loss" * 1_000, "deep/er/file.txt": b"x"}
LARGE = Load(files=500, lines=4_000)  # 50 MB, changing while they are copied
WRITER = f"""
import hashlib, itertools, os, time
log = open(os.environ["HOME"] + "/.written", "a")
for number in itertools.count(1):
    path = "data/file-%d.txt" % (number % {LARGE.files})
    text = "%d %r\\n" % (number, time.time()) * {LARGE.lines}
    with open(path + ".new", "w") as out:
        out.write(text)
    os.rename(path + ".new", path)
    log.write("%d %s\\n" % (number, hashlib.sha256(text.encode()).hexdigest()))
    log.flush()
    if number > {LARGE.files}:
        time.sleep(0.01)
"""
STORY = [
    "standby.return_wanted",
    "standby.returning",
    "standby.handover_requested",
    "standby.handed_over",
    "instance.starting",
    "instance.ready",
    "standby.returned",
]


@pytest.fixture(scope="module")
def up(module_data_dir: Path) -> Any:
    with platform(module_data_dir, environment=BRISK) as running:
        yield running


def run_inside(up: Platform, instance: Any, command: str, given: str = "") -> None:
    async def run() -> None:
        key = up.data_dir / "sandbox" / "keys" / "id_ed25519"
        where = {"username": "root", "client_keys": [str(key)], "known_hosts": None}
        async with asyncssh.connect(instance["ssh_host"], instance["ssh_port"], **where) as connection:
            await connection.run(command, input=given, check=True)

    asyncio.run(run())


def on_cpu(up: Platform, *, auto_recovery: bool, auto_failover: bool = True, start_command: str = "") -> Any:
    """An instance that its CPU standby carries."""
    wish = {"sync_interval": INTERVAL_S, "auto_recovery": auto_recovery, "auto_failover": auto_failover}
    call(up, "POST", "/standby/configure", wish)
    before = running_instance(up, **({"onstart_cmd": start_command} if start_command else {}))
    instance_id = before["id"]
    workspace = home(up, before["provider_instance_id"]) / "workspace"
    for name, content in EARLY.items():
        path = workspace / name
        run_inside(up, before, f"mkdir -p {path.parent.relative_to(workspace)} && cat > {name}", content.decode())
    call(up, "POST", f"/standby/provision/{instance_id}", {})
    until(up, f"/standby/associations/{instance_id}", lambda seen: seen["state"] == "ready", "a standby in sync")
    if auto_failover:
        until(up, f"/failover/readiness/{instance_id}", lambda seen: seen["cpu_standby_ready"], "readiness")
    take_away(up, instance_id)
    done = over(up, instance_id, 1) if auto_failover else taken_over_by_hand(up, instance_id)
    assert done["strategy_succeeded"] == "cpu_standby", done
    return done


def taken_over_by_hand(up: Platform, instance_id: str) -> Any:
    failed = over(up, instance_id, 1)
    assert (failed["success"], failed["strategy_succeeded"]) == (False, None), failed
    assert failed["cpu_standby_error"] == "auto_failover_off", failed
    told_now = call(up, "GET", f"/failover/readiness/{instance_id}")
    assert {"strategy": "cpu_standby", "reason": "auto_failover_off"} in told_now["blockers"]
    assert call(up, "POST", f"/failover/test/{instance_id}?dry_run=true&strategy=cpu_standby", {})["would_succeed"]
    call(up, "POST", "/failover/execute", {"machine_id": instance_id, "force_strategy": "cpu_standby"})
    return over(up, instance_id, 2)


def returned(up: Platform, instance_id: str) -> Any:
    """The instance when it is ready on a GPU and its CPU machine stands by again."""
    eventually(
        lambda: "standby.returned" in told(up, instance_id),
        timeout_s=60,
        what="the return",
        seen=lambda: (told(up, instance_id), call(up, "GET", f"/standby/associations/{instance_id}")),
    )
    return until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "running", "a running instance")


def written(up: Platform, provider_machine_id: str) -> dict[int, str]:
    """Every number that was written, with the checksum of its file."""
    lines = (home(up, provider_machine_id) / ".written").read_text().splitlines()
    return {int(number): checksum for number, checksum in (line.split() for line in lines)}


def different(folder: Path, noted: dict[int, str]) -> list[int]:
    """Slots whose file is not, byte for byte, what was written there last."""
    last = {number % LARGE.files: checksum for number, checksum in noted.items()}
    found = {slot: hashlib.sha256((folder / f"file-{slot}.txt").read_bytes()).hexdigest() for slot in last}
    return [slot for slot in last if found[slot] != last[slot]]


def test_the_work_done_on_the_cpu_machine_is_on_the_gpu_machine_after_it(up: Platform) -> None:
    instance_id = on_cpu(up, auto_recovery=False, auto_failover=False)["machine_id"]
    cpu = until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "running", "the CPU machine")
    shown = call(up, "GET", f"/standby/associations/{instance_id}")
    assert (shown["state"], shown["recovery"]) == ("failover_active", None)
    run_inside(up, cpu, "mkdir -p data && cat > writer.py", WRITER)
    run_inside(up, cpu, "nohup setsid python3 writer.py > /dev/null 2>&1 < /dev/null & sleep 0.1")
    folder = home(up, cpu["provider_instance_id"]) / "workspace" / "data"
    eventually(lambda: len(list(folder.glob("file-*.txt"))) >= LARGE.files, timeout_s=60, what="a full round of files")
    before = len(written(up, cpu["provider_instance_id"]))

    answer = call(up, "POST", f"/standby/recover/{instance_id}", {})
    assert answer["association"]["recovery"]["stage"] in ("searching", "filling")
    gpu = returned(up, instance_id)

    assert gpu["provider_instance_id"] != cpu["provider_instance_id"]
    assert gpu["generation"] > cpu["generation"]
    workspace = home(up, gpu["provider_instance_id"]) / "workspace"
    newest, _ = judge(workspace / "data", LARGE)
    noted = written(up, cpu["provider_instance_id"])
    last = max(noted)
    assert newest in (last, last + 1), "a file that was written is not on the GPU machine"  # + 1: held before its note
    assert last > before, "nothing changed while it was copied"
    unnoted = {newest % LARGE.files} if newest > last else set()
    assert set(different(workspace / "data", noted)) <= unnoted
    assert {name: (workspace / name).read_bytes() for name in EARLY} == EARLY
    story = told(up, instance_id)
    steps = [fact for fact in story[story.index("standby.return_wanted") :] if fact in STORY]
    assert steps == STORY

    again = until(up, f"/standby/associations/{instance_id}", lambda seen: seen["state"] == "ready", "the standby")
    assert again["cpu_standby"]["name"] == shown["cpu_standby"]["name"]
    count = again["sync_count"]
    path = f"/standby/associations/{instance_id}"
    until(up, path, lambda seen: seen["sync_count"] > count, "the CPU machine being kept in sync by the GPU machine")
    call(up, "PUT", "/failover/settings/global", {"cpu_standby": {"auto_failover": True}})
    until(up, f"/failover/readiness/{instance_id}", lambda seen: seen["cpu_standby_ready"], "readiness again")
    assert max(written(up, cpu["provider_instance_id"])) == last, "the program goes on where nobody is served"
    refused = up.request("POST", f"/api/v1/standby/recover/{instance_id}", {}, key=True)
    assert (refused.status, refused.json["error"]["code"]) == (409, "INVALID_STATE")


def test_with_auto_recovery_it_returns_by_itself_and_its_command_runs_again(up: Platform) -> None:
    done = on_cpu(up, auto_recovery=True, start_command="date +%s.%N >> started.txt")
    gpu = returned(up, done["machine_id"])
    workspace = home(up, gpu["provider_instance_id"]) / "workspace"
    assert {name: (workspace / name).read_bytes() for name in EARLY} == EARLY
    eventually(
        lambda: len((workspace / "started.txt").read_text().split()) == 3,
        timeout_s=30,
        what="the start command on the first machine, on the CPU machine and on the GPU machine",
        seen=(workspace / "started.txt").read_text,
    )
