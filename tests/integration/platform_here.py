"""A running supervisor with trivial services, and the command line against it: for the tests of `up` and the CLI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0
IDLE = "tests.integration.idle_service"


class Up:
    """One supervisor process, as a program that starts the platform sees it."""

    def __init__(self, data_dir: Path, environment: dict[str, str] | None = None, **options: Any) -> None:
        self.data_dir = data_dir
        chosen = {"services": {"alpha": IDLE, "beta": IDLE}, "port": 0, "json_line": True, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.supervisor", json.dumps({"data_dir": str(data_dir), **chosen})],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**surroundings(), **(environment or {})},
        )

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ended without a word: {self.process.communicate()[1]}"
        return json.loads(line)

    def stop(self) -> tuple[int, str, str]:
        """Exit status, the rest of stdout, stderr."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.ended()

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, err


def surroundings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("DUMONT_")}


def dumont(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one verb of the command line against this data directory."""
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**surroundings(), "DUMONT_DATA_DIR": str(data_dir)},
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)
