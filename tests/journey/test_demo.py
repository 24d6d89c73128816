"""`./dumont demo` as a user runs it: every proof holds, and whatever ends it, nothing is left running."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.journey.platform import ROOT, surroundings

SHOW_S_MAX = 110.0
STOP_S_MAX = 60.0


def demo(data_dir: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "services.cli", "demo", "--data-dir", str(data_dir), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings()
    )


def test_every_act_of_the_demo_holds(own_data_dir: Path) -> None:
    process = demo(own_data_dir, "--json")
    said, complaints = process.communicate(timeout=SHOW_S_MAX)
    assert process.returncode == 0, complaints
    show = json.loads(said)
    assert show["holds"]
    assert [act["strategy"] for act in show["acts"]] == ["warm_pool", "cpu_standby", "regional_volume", "cloud_storage"]
    for act in show["acts"]:
        assert act["files_written"] > 200
        assert [proof["promise"] for proof in act["proofs"] if not proof["holds"]] == []
        assert act["machine_before"] != act["machine_after"]
        assert 0 < act["detection_ms"] <= act["recovery_ms"]


def test_ctrl_c_stops_everything_that_was_started(own_data_dir: Path) -> None:
    process = demo(own_data_dir, "--act", "warm-pool")
    assert process.stdout is not None
    for line in process.stdout:
        if "written over SFTP" in line:
            break
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=STOP_S_MAX)
    assert process.returncode == 130, complaints
    assert "nothing is left running" in complaints
