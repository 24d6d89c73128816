"""`./dumont up` with the real services: ready, usable with the printed key, and gone when stopped."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import requests

from services.cli.exits import ALREADY_RUNNING, FAILED, USAGE
from tests.integration.platform_here import DEADLINE_S, ROOT, dumont, surroundings


def test_the_platform_starts_from_any_folder_serves_with_its_key_and_stops(data_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "a-link-to-dumont"
    link.symlink_to(ROOT / "dumont")
    up = subprocess.Popen(
        [link, "up", "--port", "0", "--json", "--sandbox", "virtual", "--data-dir", data_dir],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=surroundings(),
    )
    assert up.stdout is not None
    with up.stdout:
        said = json.loads(up.stdout.readline())
        key = {"Authorization": f"Bearer {said['api_key']}"}
        assert list(said["pids"]) == [
            "nats",
            "postgres",
            "storage",
            "sandbox",
            "instance",
            "failover",
            "warmpool",
            "billing",
            "webhook_dispatch",
            "gateway",
        ]
        assert requests.get(said["api_url"] + "/readyz", timeout=DEADLINE_S).status_code == 200
        listed = requests.get(said["api_url"] + "/api/v1/instances", headers=key, timeout=DEADLINE_S)
        assert listed.json()["data"] == []
        wrong = {"Authorization": "Bearer dumont_sk_" + "x" * 43}
        refused = requests.get(said["api_url"] + "/api/v1/instances", headers=wrong, timeout=DEADLINE_S)
        assert refused.status_code == 401
        made = json.loads(dumont(data_dir, "keys", "create", "second", "--scope", "instances:read", "--json").stdout)
        assert made["scopes"] == ["instances:read"]
        assert len(json.loads(dumont(data_dir, "keys", "list", "--json").stdout)) == 2
        assert _account_of_somebody_else(data_dir) == ("12.500000", [False])
        blank = dumont(data_dir, "instances", "get", "a b?c")
        assert (blank.returncode, "VALIDATION_ERROR" in blank.stderr) == (FAILED, True)
        assert json.loads(dumont(data_dir, "sandbox", "offers", "--json").stdout)
        _faults_are_armed_and_disarmed(data_dir)
        assert json.loads(dumont(data_dir, "rebuild", "instance", "--json").stdout)["rows"] == 0
        assert dumont(data_dir, "up", "--port", "0").returncode == ALREADY_RUNNING
        assert dumont(data_dir, "status").returncode == 0
        assert dumont(data_dir, "down").returncode == 0
        assert up.stdout.read() == ""
    assert up.wait(DEADLINE_S) == 0
    assert said["api_key"] not in "".join(path.read_text() for path in (data_dir / "logs").iterdir())


def _faults_are_armed_and_disarmed(data_dir: Path) -> None:
    armed = dumont(data_dir, "sandbox", "faults", "creates_timing_out=1", "sold_out=RTX 4090, A100", "--json")
    assert json.loads(armed.stdout)["creates_timing_out"] == 1
    assert json.loads(armed.stdout)["sold_out"] == ["RTX 4090", "A100"]
    assert "RTX 4090, A100" in dumont(data_dir, "sandbox", "faults").stdout
    assert dumont(data_dir, "sandbox", "faults", "creates_timing_out=0", "sold_out=").stdout == "nothing is armed\n"
    unknown = dumont(data_dir, "sandbox", "faults", "nothing_like_it=1")
    assert (unknown.returncode, "nothing_like_it" in unknown.stderr) == (FAILED, True)
    for wrong in ("creates_timing_out", "creates_timing_out=once"):
        assert dumont(data_dir, "sandbox", "faults", wrong).returncode == USAGE


def _account_of_somebody_else(data_dir: Path) -> tuple[str, list[bool]]:
    """What an operator does for it: its balance after a gift, and whether its keys still work."""

    def said(*words: str) -> Any:
        done = dumont(data_dir, *words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    said("accounts", "open", "acct_else")
    key_id = said("keys", "create", "first", "--account", "acct_else")["id"]
    for _ in range(2):
        said("accounts", "adjust", "acct_else", "--usd", "12.50", "--reason", "a gift", "--reference", "one")
    assert [key["id"] for key in said("keys", "list", "--account", "acct_else")] == [key_id]
    said("keys", "revoke", key_id, "--account", "acct_else")
    give_up_s = time.monotonic() + DEADLINE_S
    while (balance := said("accounts", "balance", "acct_else")["balance"]) == "0.000000":
        assert time.monotonic() < give_up_s, "the gift is in no balance"
    return balance, [key["is_active"] for key in said("keys", "list", "--account", "acct_else")]
