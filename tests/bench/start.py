"""How long `up` takes after the first time, and what all services weigh when idle."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.bench.report import Line
from tests.journey.platform import platform, wipe

STARTS = 5
START_GOAL_S = 5.0
MEMORY_GOAL_MB = 200
SERVERS = ("nats", "postgres")  # their memory is theirs; the goal speaks of our services


def measure() -> list[Line]:
    took_s: list[float] = []
    private_mb = shared_mb = storage_mb = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(STARTS + 1):
            started = time.perf_counter()
            with platform(Path(folder) / "data") as up:
                if number:  # the first start also makes the database
                    took_s.append(time.perf_counter() - started)
                ours = {name: pid for name, pid in up.pids.items() if name not in SERVERS}
                ours["supervisor"] = up.process.pid
                memory = {name: psutil.Process(pid).memory_full_info() for name, pid in ours.items()}
                private_mb = sum(one.uss for one in memory.values()) / 2**20
                shared_mb = sum(one.pss for one in memory.values()) / 2**20
                storage_mb = memory["storage"].uss / 2**20
        wipe(Path(folder) / "data")
    start_s = statistics.median(took_s)
    return [
        Line("up to ready, later starts", f"{start_s:.2f} s", "-", "-", "<= 5 s", start_s <= START_GOAL_S),
        Line(
            "all services idle",
            f"{private_mb:.0f} MB private (of it object storage {storage_mb:.0f}), {shared_mb:.0f} MB PSS",
            "-",
            "-",
            "<= 200 MB",
            private_mb <= MEMORY_GOAL_MB,
        ),
    ]
