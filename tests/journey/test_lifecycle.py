"""One instance from its creation to its end, seen by its owner: the ways in are real and the files are kept."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncssh
import pytest

from tests.journey.platform import Platform, ask, eventually, unique

NOVITA = {"productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
DUMONT = {"gpu": "RTX 4090", "image": "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime", "disk_size": 50}
LOGIN_MAX_S = 15.0


def door_of(instance: Any) -> tuple[str, str, int]:
    """User, host and port of the printed ssh command; what follows is the key to use."""
    found = re.match(r"ssh (\w+)@([\d.]+) -p (\d+)\b", instance["connectionDetails"]["ssh"])
    assert found, instance["connectionDetails"]
    return found[1], found[2], int(found[3])


async def logged_in(instance: Any) -> asyncssh.SSHClientConnection:
    """As the printed command does it, without the ssh program."""
    user, host, port = door_of(instance)
    words = shlex.split(instance["connectionDetails"]["ssh"])
    key = words[words.index("-i") + 1]
    async with asyncio.timeout(LOGIN_MAX_S):
        return await asyncssh.connect(
            host, port, username=user, client_keys=[key], known_hosts=None, config=None, agent_path=None
        )


async def said_by(instance: Any, command: str) -> str:
    """What a shell command inside the machine prints."""
    connection = await logged_in(instance)
    try:
        return str((await connection.run(command, check=True)).stdout).strip()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def ready(up: Platform) -> Any:
    """An instance for journeys that only look."""
    return up.create_ready()


def test_its_ports_answer_where_port_mappings_say(ready: Any) -> None:
    pages = [mapping["endpoint"] for mapping in ready["portMappings"] if mapping["endpoint"].startswith("http")]
    assert pages
    assert [ask("GET", page + "/", None, {}).status for page in pages] == [200] * len(pages)


def test_its_connection_details_are_its_port_mappings(ready: Any) -> None:
    mapped = {mapping["type"]: urlsplit(mapping["endpoint"]) for mapping in ready["portMappings"]}
    assert door_of(ready) == ("root", mapped["ssh"].hostname, mapped["ssh"].port)
    assert ready["connectionDetails"]["jupyter"] == mapped["jupyter"].geturl()


async def test_the_printed_ssh_command_logs_in_and_touch_works(ready: Any) -> None:
    assert "made-here" in (await said_by(ready, "touch made-here && ls")).split()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh program on this machine")
def test_the_printed_ssh_command_works_as_it_stands_and_again_for_the_next_machine_on_its_port(ready: Any) -> None:
    command = [*shlex.split(ready["connectionDetails"]["ssh"]), "id"]
    assert "UserKnownHostsFile=/dev/null" in command, "a later machine on this port has another key"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOGIN_MAX_S)
    assert done.returncode == 0, done.stderr


async def test_a_stranger_cannot_log_in(ready: Any) -> None:
    user, host, port = door_of(ready)
    strange = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            host, port, username=user, client_keys=[strange], known_hosts=None, config=None, agent_path=None
        )


async def test_files_go_in_and_out_over_sftp(ready: Any, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 1000)
    async with await logged_in(ready) as connection, connection.start_sftp_client() as files:
        await files.put(str(tmp_path / "sent"), "/workspace/weights.bin")
        await files.get("/workspace/weights.bin", str(tmp_path / "received"))
    assert (tmp_path / "received").read_bytes() == (tmp_path / "sent").read_bytes()


async def test_files_are_there_again_after_a_stop_and_a_start(up: Platform) -> None:
    made = up.create_ready()
    await said_by(made, "echo kept > notes.txt")
    assert up.request("POST", f"/api/instances/{made['id']}/stop", {}).status == 200
    stopped = up.wait_for_status(made["id"], "stopped")
    assert not stopped.get("portMappings")
    assert up.request("POST", f"/api/instances/{made['id']}/start", {}).status == 202
    again = up.wait_for_status(made["id"], "ready")
    assert await said_by(again, "cat notes.txt") == "kept"


def test_a_deleted_instance_takes_its_machine_with_it_and_leaves_the_list(up: Platform) -> None:
    made = up.create_ready()
    assert up.request("DELETE", f"/api/instances/{made['id']}").status == 200
    eventually(
        lambda: made["novitaInstanceId"] not in {machine["machine_id"] for machine in up.machines()},
        timeout_s=20,
        what="the machine to be gone",
        seen=up.machines,
    )
    assert made["id"] not in {item["id"] for item in up.request("GET", "/api/instances?limit=100").json["instances"]}


def test_the_dumont_dialect_creates_stops_starts_and_deletes(up: Platform) -> None:
    made = up.request("POST", "/api/v1/instances", DUMONT, key=True)
    assert made.status == 201, made.text
    path = f"/api/v1/instances/{made.json['data']['id']}"

    def becomes(*statuses: str) -> Any:
        seen: Any = None

        def is_there() -> bool:
            nonlocal seen
            seen = up.request("GET", path, key=True).json["data"]
            return seen["status"] in statuses

        eventually(is_there, timeout_s=30, what=f"{path} to be {statuses}", seen=lambda: seen)
        return seen

    running = becomes("running")
    assert running["created_at"] == made.json["data"]["created_at"]
    assert running["ip"] == "127.0.0.1"
    assert running["ssh_port"] > 0
    assert up.request("POST", path + "/stop", key=True).status in (200, 202)
    becomes("stopped")
    assert up.request("POST", path + "/start", key=True).status in (200, 202)
    becomes("running")
    assert up.request("DELETE", path + "?wait=20", key=True).json["data"]["status"] == "deleted"


def test_one_idempotency_key_is_one_instance_and_one_machine_process(up: Platform) -> None:
    body = {"name": unique("twice"), **NOVITA}
    key = {"Idempotency-Key": unique("key")}
    answers = [up.request("POST", "/api/instances", body, headers=key) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    instance_id = answers[0].json["instanceId"]
    assert answers[1].json["instanceId"] == instance_id
    up.wait_for_status(instance_id, "ready")
    named = up.request("GET", "/api/instances?limit=100").json["instances"]
    assert [item["id"] for item in named if item["name"] == body["name"]] == [instance_id]
    owned = [item["novitaInstanceId"] for item in named if item["id"] == instance_id]
    assert [m["machine_id"] for m in up.machines() if m["machine_id"] in owned] == owned
    # Machines of nobody would be one create too many.
    everyones = {item.get("novitaInstanceId") for item in named}
    assert {machine["machine_id"] for machine in up.machines()} <= everyones


def test_one_idempotency_key_with_another_body_is_409(up: Platform) -> None:
    key = {"Idempotency-Key": unique("key")}
    assert up.request("POST", "/api/instances", {"name": "first", **NOVITA}, headers=key).status == 201
    other = up.request("POST", "/api/instances", {"name": "other", **NOVITA}, headers=key)
    assert (other.status, other.json["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")
