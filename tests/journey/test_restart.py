"""Stopping and starting the platform: nothing stays behind, nothing that a customer owns is lost."""

from __future__ import annotations

from pathlib import Path

from services.cli.exits import ALREADY_RUNNING
from tests.journey.platform import Platform, dumont, eventually, machines_directory, platform
from tests.journey.processes import machine_processes, platform_processes


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


def test_a_second_up_on_the_same_data_says_so_and_changes_nothing(up: Platform) -> None:
    before = up.state()
    second = dumont(up.data_dir, "up", "--json", "--port", "0")
    assert second.returncode == ALREADY_RUNNING
    assert "running" in second.stderr
    assert up.api_url in second.stderr + second.stdout
    assert up.state() == before
    assert up.request("GET", "/readyz").status == 200
