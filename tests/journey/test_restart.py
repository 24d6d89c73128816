"""Stopping and starting the platform: nothing stays behind, nothing that a customer owns is lost."""

from __future__ import annotations

import socket
from pathlib import Path

from services.cli.exits import ALREADY_RUNNING
from tests.journey.platform import Platform, dumont, eventually, machines_directory, platform
from tests.journey.processes import machine_processes, platform_processes

HEARD_S_MAX = 60.0


def test_a_stop_leaves_no_process_behind_and_a_start_brings_instances_back_with_their_files(own_data_dir: Path) -> None:
    with platform(own_data_dir) as up:
        kept = up.create_ready()
        assert machine_processes(own_data_dir)
        note = machines_directory(own_data_dir) / kept["novitaInstanceId"] / "workspace" / "notes.txt"
        note.write_text("kept")
    assert up.process.returncode == 0
    assert platform_processes(own_data_dir) == []
    assert machine_processes(own_data_dir) == {}

    with platform(own_data_dir) as up:
        again = up.wait_for_status(kept["id"], "ready")
        assert again["connectionDetails"] == kept["connectionDetails"]
        assert note.read_text() == "kept"
        eventually(
            lambda: list(machine_processes(own_data_dir)) == [kept["novitaInstanceId"]],
            timeout_s=20,
            what="its machine to run again",
            seen=up.machines,
        )
        up.wait_for_status(kept["id"], "ready")


def test_agents_find_a_gateway_that_came_back_at_another_address(own_data_dir: Path) -> None:
    brisk = {"DUMONT_HEARTBEAT_S": "1"}

    def last_seen(up: Platform) -> list[str]:
        return [one["last_seen"] for one in up.request("GET", "/api/v1/agent/instances", key=True).json["data"]]

    with platform(own_data_dir, environment=brisk) as up:
        first_url = up.api_url
        up.create_ready()
        eventually(lambda: bool(last_seen(up)), timeout_s=HEARD_S_MAX, what="its agent to be heard")
        before = last_seen(up)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        other = str(taken.getsockname()[1])
    with platform(own_data_dir, "--port", other, environment=brisk) as up:
        assert up.api_url != first_url
        eventually(
            lambda: last_seen(up) > before, timeout_s=HEARD_S_MAX, what="its agent again", seen=lambda: last_seen(up)
        )


def test_a_second_up_on_the_same_data_says_so_and_changes_nothing(up: Platform) -> None:
    before = up.state()
    second = dumont(up.data_dir, "up", "--json", "--port", "0")
    assert second.returncode == ALREADY_RUNNING
    assert "running" in second.stderr
    assert up.api_url in second.stderr + second.stdout
    assert up.state() == before
    assert up.request("GET", "/readyz").status == 200
