"""Holds the machine's processes still for a moment, so that what is copied last is of one instant.

Used by `capturing` when a workspace never stands still by itself. A guardian process lets everything go on when the
agent dies or takes too long: a killed agent must not leave a frozen machine behind. Processes are stopped from the top
down and let go from the bottom up, so that no shell sees a child of its own stopped and takes it for a suspended job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator

import psutil

FROZEN_S_MAX = 3  # connections survive that; whoever copies more than fits in it is not let to finish frozen
PROCESSES_MAX = 2_000
LOOKS_MAX = 5  # processes that are started while we look are met at the next look


@contextlib.contextmanager
def held(scope: str) -> Generator[bool]:
    """Whether everything that might write is held. `scope` as in DUMONT_AGENT_SCOPE."""
    own = {os.getpid()}
    stopped: list[int] = []
    guardian: subprocess.Popen[bytes] | None = None
    try:
        for _ in range(LOOKS_MAX):
            fresh = [pid for pid in _processes(scope, own) if pid not in stopped]
            if not fresh:
                break
            if len(stopped) + len(fresh) > PROCESSES_MAX:
                yield False
                return
            previous = guardian
            guardian = _guardian([*stopped, *fresh])
            own.add(guardian.pid)
            _dismiss(previous)
            for pid in fresh:
                _send(pid, signal.SIGSTOP)
                stopped.append(pid)
        yield True
    finally:
        for pid in reversed(stopped):
            _send(pid, signal.SIGCONT)
        _dismiss(guardian)


def _processes(scope: str, own: set[int]) -> list[int]:
    """Parents before children. `own`: the agent and its guardians; their descendants are the guardians' own tools."""
    mine = psutil.Process()
    if scope == "parent":
        roots = [psutil.Process(os.getppid())]
    else:
        above = {process.pid for process in mine.parents()}
        roots = [each for each in psutil.process_iter() if each.pid not in above and each.pid != 1]
    spared = set(own)
    with contextlib.suppress(psutil.Error):
        spared |= {child.pid for child in mine.children(recursive=True)}
    found: dict[int, None] = {}
    for root in roots:
        with contextlib.suppress(psutil.Error):
            for process in (root, *root.children(recursive=True)):
                if process.pid not in spared:
                    found[process.pid] = None
    return list(found)


def _guardian(pids: list[int]) -> subprocess.Popen[bytes]:
    """Waits for its input to end (we let go, or died) or for the time to be over, then lets all go on."""
    numbers = " ".join(str(pid) for pid in reversed(pids))
    script = f"timeout {FROZEN_S_MAX} cat >/dev/null 2>&1; kill -CONT {numbers} 2>/dev/null"
    return subprocess.Popen(  # noqa: S603 - our own text and numbers
        ["/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _dismiss(guardian: subprocess.Popen[bytes] | None) -> None:
    if guardian is None:
        return
    if guardian.stdin is not None:
        guardian.stdin.close()
    guardian.wait()


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
