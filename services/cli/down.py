"""`down`: ask the supervisor of a data directory to stop everything, and wait until it has."""

from __future__ import annotations

import os
import signal
import time
from typing import Annotated

import typer

from libs.embedded.state import holder_pid
from services.cli import output
from services.cli.exits import FAILED, NOT_RUNNING, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir

POLL_S = 0.05


def down(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds to wait for the end.")] = 60.0,
    json: output.AsJson = False,
) -> None:
    """Stop the platform of a data directory, sandbox machines included. Its data stays.

    Exit status: 0 stopped, 1 still running after the timeout, 3 nothing was running.
    """
    pid = holder_pid(data_dir)
    if pid == 0:
        raise Exit(f"nothing runs in {data_dir}", NOT_RUNNING)
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + timeout
    while holder_pid(data_dir) == pid:
        if time.monotonic() > deadline_s:
            raise Exit(f"pid {pid} is still stopping after {timeout:.0f} s", FAILED)
        time.sleep(POLL_S)
    if json:
        output.as_json({"stopped_pid": pid, "data_dir": str(data_dir)})
    else:
        output.tell(f"stopped (pid {pid}); data stays in {data_dir}")
