"""The supervisor with trivial services: one line of JSON, one per data directory, restarts, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from libs.embedded.files import pick_port
from libs.embedded.state import holder_pid, read_state
from services.supervisor import reach
from tests.integration.platform_here import IDLE, ROOT, Up, wait_for

ALREADY_RUNNING = 4


def wait_gone(pids: list[int]) -> None:
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), f"{pids} gone")


def test_it_prints_exactly_one_json_line_and_leaves_nothing_when_stopped(data_dir: Path) -> None:
    up = Up(data_dir)
    said = up.ready()
    assert set(said) == {"api_url", "api_key", "nats_url", "postgres_url", "data_dir", "pids"}
    assert list(said["pids"]) == ["nats", "postgres", "alpha", "beta"]
    assert all(psutil.pid_exists(pid) for pid in said["pids"].values())
    assert said["data_dir"] == str(data_dir)
    status, rest, err = up.stop()
    assert (status, rest, err) == (0, "", "")
    assert not any(psutil.pid_exists(pid) for pid in said["pids"].values())
    assert read_state(data_dir) is None


def test_ctrl_c_is_a_stop_too(data_dir: Path) -> None:
    up = Up(data_dir)
    up.ready()
    up.process.send_signal(signal.SIGINT)
    assert up.stop()[0] == 0


def test_a_second_one_on_the_same_data_says_so_and_changes_nothing(data_dir: Path) -> None:
    up = Up(data_dir)
    said = up.ready()
    before = (data_dir / "state.json").read_bytes()
    status, out, err = Up(data_dir).ended()
    assert status == ALREADY_RUNNING
    assert out == ""
    assert "already running" in err
    assert str(up.process.pid) in err
    assert (data_dir / "state.json").read_bytes() == before
    assert all(psutil.pid_exists(pid) for pid in said["pids"].values())
    assert holder_pid(data_dir) == up.process.pid
    up.stop()


@pytest.mark.parametrize("name", ["nats", "postgres", "beta"])
def test_a_killed_member_comes_back(data_dir: Path, name: str) -> None:
    up = Up(data_dir)
    said = up.ready()
    os.kill(said["pids"][name], signal.SIGKILL)

    def is_back() -> bool:
        state = read_state(data_dir)
        return state is not None and state.members[name].deaths >= 1 and state.pids[name] not in (0, said["pids"][name])

    wait_for(is_back, f"{name} restarted")
    state = read_state(data_dir)
    assert state is not None
    assert state.nats_url == said["nats_url"]
    wait_for(lambda: answers(said[f"{name}_url"]) if f"{name}_url" in said else True, f"{name} answers at its old port")
    status, _, err = up.stop()
    assert status == 0
    assert f"{name} died (killed by SIGKILL)" in err


def answers(url: str) -> bool:
    port = int(url.rsplit(":", 1)[1].partition("/")[0])
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_three_deaths_in_a_minute_are_loud(data_dir: Path) -> None:
    up = Up(data_dir)
    pid = up.ready()["pids"]["beta"]
    (data_dir / "idle-is-broken").touch()
    os.kill(pid, signal.SIGKILL)

    def is_failing() -> bool:
        state = read_state(data_dir)
        return state is not None and state.members["beta"].failing

    wait_for(is_failing, "three deaths")
    _, _, err = up.stop()
    assert "*** beta died 3 times within 60 s" in err
    assert "broken on purpose" in (data_dir / "logs" / "beta.log").read_text()


def test_a_service_that_never_starts_fails_the_boot_and_leaves_nothing(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "idle-is-broken").touch()
    status, out, err = Up(data_dir).ended()
    assert status == 1
    assert out == ""
    assert "alpha died 3 times" in err or "beta died 3 times" in err
    assert str(data_dir / "logs") in err


def test_after_a_kill_of_the_supervisor_nothing_lives_and_the_next_start_works(data_dir: Path) -> None:
    up = Up(data_dir)
    said = up.ready()
    up.process.kill()
    up.ended()
    wait_gone(list(said["pids"].values()))
    again = Up(data_dir)
    assert again.ready()["nats_url"] == said["nats_url"]
    assert again.stop()[0] == 0


def test_a_taken_port_is_explained(data_dir: Path) -> None:
    port = pick_port()
    with socket.create_server(("127.0.0.1", port)):
        status, _, err = Up(data_dir, port=port).ended()
    assert status == 1
    assert f"port {port} on 127.0.0.1 is taken" in err


def test_an_address_that_is_not_of_this_machine_is_explained(data_dir: Path) -> None:
    status, _, err = Up(data_dir, host="192.0.2.1").ended()
    assert (status, "Traceback" in err) == (1, False)
    assert "cannot listen on 192.0.2.1" in err


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, _, err = Up(tmp_path / "file").ended()
    assert (status, "Traceback" in err) == (1, False)
    assert f"{tmp_path / 'file'} cannot be used" in err


@pytest.mark.parametrize(("variable", "scheme"), [("DUMONT_NATS_URL", "nats"), ("DUMONT_POSTGRES_URL", "postgresql")])
def test_an_outside_server_that_is_not_there_is_said_without_its_password(variable: str, scheme: str) -> None:
    url = f"{scheme}://dumont:not-to-be-told@127.0.0.1:{pick_port()}/dumont"
    with pytest.raises(reach.Unreachable, match=f"{variable}. takes no connection") as said:
        reach.answering("it", variable, url, 1, timeout_s=0)
    assert "not-to-be-told" not in str(said.value)


def test_outside_servers_are_used_and_not_started(data_dir: Path) -> None:
    first = Up(data_dir)
    said = first.ready()
    environment = {"DUMONT_NATS_URL": said["nats_url"], "DUMONT_POSTGRES_URL": said["postgres_url"]}
    second = Up(data_dir.with_name("other"), environment=environment, services={"alpha": IDLE})
    line = second.ready()
    assert list(line["pids"]) == ["alpha"]
    assert line["nats_url"] == said["nats_url"]
    assert second.stop()[0] == 0
    first.stop()


def test_what_holds_secrets_is_ours_alone(data_dir: Path) -> None:
    up = Up(data_dir)
    up.ready()
    for path in [data_dir / "state.json", *(data_dir / "secrets").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    up.stop()


def test_wrong_options_are_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.supervisor", '{"data_dir": 7}'],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "wrong options" in done.stderr
