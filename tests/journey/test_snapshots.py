"""Everything is gone but the storage: the instance comes back on a machine anywhere, with the files of its snapshot.

Real processes, real files, a real S3 server (rclone) and URLs that the machine was given; no key of the storage in it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.tokens import mint_agent_token
from tests.journey.platform import BRISK, Platform, eventually, machines_directory, platform
from tests.journey.test_failover import call, over, running_instance, take_away, until

FILES = 200
SNAPSHOT_S_MAX = 60.0


@pytest.fixture(scope="module")
def up(module_data_dir: Path) -> Any:
    """A platform of its own: brisk heartbeats, because a snapshot begins with one."""
    with platform(module_data_dir, environment=BRISK) as running:
        yield running


def workspace(up: Platform, instance_id: str) -> Path:
    """Where the files of the machine that carries the instance are on this host."""
    shown = call(up, "GET", f"/instances/{instance_id}")
    return machines_directory(up.data_dir) / shown["provider_instance_id"] / "workspace"


def write(folder: Path, files: int, text: str) -> dict[str, bytes]:
    written = {}
    for number in range(files):
        path = folder / f"run{number % 7}" / f"file-{number}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{text} {number} ".encode() * (number + 1))
        os.chown(path, folder.stat().st_uid, folder.stat().st_gid)
        os.chown(path.parent, folder.stat().st_uid, folder.stat().st_gid)
        written[str(path.relative_to(folder))] = path.read_bytes()
    return written


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_in(folder)}


def snapshot(up: Platform, instance_id: str) -> Any:
    """Take one and wait until it is there."""
    taken = call(up, "POST", f"/instances/{instance_id}/snapshots", {})["snapshot_id"]

    def is_over(found: Any) -> bool:
        return any(one["snapshot_id"] == taken and one["status"] != "requested" for one in found)

    found = until(up, f"/instances/{instance_id}/snapshots", is_over, "a finished snapshot")
    return next(one for one in found if one["snapshot_id"] == taken)


def test_everything_is_gone_and_the_files_come_back_from_the_storage(up: Platform) -> None:
    instance_id = running_instance(up)["id"]
    call(up, "PUT", f"/failover/settings/machines/{instance_id}", {"use_global_settings": False, "strategy": "all"})
    folder = workspace(up, instance_id)
    write(folder, FILES, "first")
    (folder / "link").symlink_to("run0/file-0.bin")
    os.lchown(folder / "link", folder.stat().st_uid, folder.stat().st_gid)
    first = snapshot(up, instance_id)
    assert (first["status"], first["files"], first["is_point_in_time"]) == ("completed", FILES, True)
    written = read(folder) | write(folder, 3, "second")
    second = snapshot(up, instance_id)
    assert second["status"] == "completed"
    assert second["size_bytes"] == sum(len(body) for body in written.values())
    assert second["stored_bytes"] < first["stored_bytes"] / 10, "only what has changed is stored"
    take_away(up, instance_id)
    done = over(up, instance_id, 1)
    assert (done["success"], done["strategy_succeeded"]) == (True, "cloud_storage")
    assert 0 <= done["data_loss_window_s"] <= SNAPSHOT_S_MAX
    assert read(workspace(up, instance_id)) == written
    assert (workspace(up, instance_id) / "link").readlink() == Path("run0/file-0.bin")
    third = snapshot(up, instance_id)
    assert (third["status"], third["files"]) == ("completed", FILES)
    assert third["stored_bytes"] == 0, "the new machine knows what it was filled with"
    call(up, "DELETE", f"/instances/{instance_id}")
    objects = up.data_dir / "storage" / "objects" / "dumont" / "instances" / instance_id
    eventually(
        lambda: not any(files for _, _, files in os.walk(objects)), timeout_s=SNAPSHOT_S_MAX, what="no files left"
    )


def test_an_agent_that_is_killed_while_it_copies_leaves_no_half_snapshot(up: Platform) -> None:
    instance_id = running_instance(up)["id"]
    folder = workspace(up, instance_id)
    (folder / "large.bin").write_bytes(os.urandom(48 * 1024 * 1024))
    os.chown(folder / "large.bin", folder.stat().st_uid, folder.stat().st_gid)
    taken = call(up, "POST", f"/instances/{instance_id}/snapshots", {})["snapshot_id"]
    spool = folder.parent / ".dumont" / "spool"
    eventually(spool.exists, timeout_s=SNAPSHOT_S_MAX, what="the copy to begin")
    os.kill(agent_pid(folder), signal.SIGKILL)

    def is_over(found: Any) -> bool:
        return any(one["snapshot_id"] == taken and one["status"] != "requested" for one in found)

    (made,) = until(up, f"/instances/{instance_id}/snapshots", is_over, "the snapshot to be made after all")
    assert (made["status"], made["files"]) == ("completed", 1)


def agent_pid(folder: Path) -> int:
    """The agent's, from the note it leaves in its machine."""
    return msgspec.json.decode((folder.parent / ".dumont" / "agent_status.json").read_bytes())["pid"]


def test_a_late_machine_gets_no_urls_and_reports_nothing(up: Platform) -> None:
    instance_id = running_instance(up)["id"]
    call(up, "PUT", f"/failover/settings/machines/{instance_id}", {"use_global_settings": False, "strategy": "all"})
    shown = call(up, "GET", f"/instances/{instance_id}")
    snapshot(up, instance_id)
    late = machine_of(up, instance_id)
    take_away(up, instance_id)
    assert over(up, instance_id, 1)["success"]
    secret = (up.data_dir / "secrets" / "platform").read_text().strip()
    token = mint_agent_token(secret, machine_id=late, instance_id=instance_id, generation=shown["generation"])
    next_id = call(up, "POST", f"/instances/{instance_id}/snapshots", {})["snapshot_id"]
    about = {"instance_id": instance_id}
    wish = about | {"snapshot_id": next_id, "method": "PUT", "manifest": True}
    refused = up.request("POST", "/api/v1/agent/storage", wish, key=token)
    assert (refused.status, refused.json["error"]["code"]) == (409, "MACHINE_FENCED")
    said = about | {"kind": "snapshot", "source": next_id, "captured_at": "2026-01-01T00:00:00Z"}
    refused = up.request("POST", "/api/v1/agent/reports", said, key=token)
    assert (refused.status, refused.json["error"]["code"]) == (409, "MACHINE_FENCED")
    beat = up.request("POST", "/api/v1/agent/status", about, key=token)
    assert beat.json["data"]["action"] == "shutdown"


def machine_of(up: Platform, instance_id: str) -> str:
    (machine,) = [each for each in call(up, "GET", "/agent/instances") if each["instance_id"] == instance_id]
    return machine["machine_id"]


def stopped(up: Platform, instance_id: str) -> None:
    call(up, "POST", f"/instances/{instance_id}/stop")
    until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "stopped", "a stopped instance")


def rent_out(up: Platform, host_id: str) -> list[str]:
    """Somebody else takes every GPU that the host has free."""
    taken: list[str] = []
    while offers := [one for one in up.cloud("GET", "/v1/offers")["offers"] if one["host_id"] == host_id]:
        order = {"label": f"stranger-{len(taken)}", "offer_id": offers[0]["offer_id"], "image": "pytorch/pytorch"}
        taken.append(up.cloud("POST", "/v1/machines", order)["machine_id"])
    return taken


def give_back(up: Platform, machine_ids: list[str]) -> None:
    for machine_id in machine_ids:
        up.cloud("DELETE", f"/v1/machines/{machine_id}")


def settled(up: Platform, instance_id: str) -> Any:
    is_settled = lambda seen: seen["status"] in ("running", "failed")  # noqa: E731
    return until(up, f"/instances/{instance_id}", is_settled, "the start to end")


def test_a_stopped_instance_whose_gpu_is_gone_goes_on_elsewhere_with_its_files(up: Platform) -> None:
    before = running_instance(up)
    instance_id = before["id"]
    written = write(workspace(up, instance_id), 20, "kept")
    snapshot(up, instance_id)
    stopped(up, instance_id)
    strangers = rent_out(up, before["host_id"])
    call(up, "POST", f"/instances/{instance_id}/start")
    after = settled(up, instance_id)
    assert after["status"] == "running", after["status_reason"]
    assert after["host_id"] != before["host_id"]
    assert read(workspace(up, instance_id)) == written
    ids = lambda: {machine["machine_id"] for machine in up.machines()}  # noqa: E731
    until(up, "/instances", lambda _: before["provider_instance_id"] not in ids(), "the old disk to be given back")
    give_back(up, strangers)
    call(up, "DELETE", f"/instances/{instance_id}")


def test_without_a_snapshot_it_says_so_and_comes_up_on_its_own_disk_later(up: Platform) -> None:
    before = running_instance(up)
    instance_id = before["id"]
    written = write(workspace(up, instance_id), 3, "kept")
    stopped(up, instance_id)
    strangers = rent_out(up, before["host_id"])
    call(up, "POST", f"/instances/{instance_id}/start")
    failed = settled(up, instance_id)
    assert (failed["status"], failed["failure_code"]) == ("failed", "OFFER_UNAVAILABLE")
    assert "start it again later" in failed["status_reason"]
    give_back(up, strangers)

    def comes_up(_: Any) -> bool:
        answer = up.request("POST", f"/api/v1/instances/{instance_id}/start", key=True)
        return answer.status in (200, 202) and settled(up, instance_id)["status"] == "running"

    until(up, f"/instances/{instance_id}", comes_up, "the instance to run again")
    assert read(workspace(up, instance_id)) == written
    call(up, "DELETE", f"/instances/{instance_id}")
