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
import threading
from collections import Counter
from collections.abc import Generator, Mapping, Set
from pathlib import Path

import psutil

FROZEN_S_MAX = 3  # connections survive that; whoever copies more than fits in it is not let to finish frozen
PROCESSES_MAX = 2_000
LOOKS_MAX = 5  # processes that are started while we look are met at the next look


# How often each process is held: a snapshot may be taken while a handover holds everything, and must not let it go.
_holds: Counter[int] = Counter()
_counting = threading.Lock()


@contextlib.contextmanager
def held(scope: str, *, limit_s: int = FROZEN_S_MAX) -> Generator[bool]:
    """Whether everything that might write is held. `scope` as in DUMONT_AGENT_SCOPE."""
    guardian = _guardian(limit_s)
    stopped: list[int] = []
    try:
        for _ in range(LOOKS_MAX):
            fresh = [pid for pid in _processes(scope, {guardian.pid}) if pid not in stopped]
            if not fresh:
                break
            if len(stopped) + len(fresh) > PROCESSES_MAX:
                yield False
                return
            for pid in fresh:
                _entrust(guardian, pid)
                _hold(pid)
                stopped.append(pid)
        yield True
    finally:
        for pid in reversed(stopped):
            _let_go(pid)
        _dismiss(guardian)


def _hold(pid: int) -> None:
    with _counting:
        _holds[pid] += 1
        _send(pid, signal.SIGSTOP)


def _let_go(pid: int) -> None:
    with _counting:
        _holds[pid] -= 1
        if _holds[pid] <= 0:
            del _holds[pid]
            _send(pid, signal.SIGCONT)


def running(scope: str) -> Mapping[int, str]:
    """Every process of the machine but our own, with what tells it from a later one of the same number."""
    return {pid: born(pid) for pid in _processes(scope, frozenset())}


def end_others(scope: str, kept: Mapping[int, str]) -> None:
    """Kill every process but those `kept` and our own: the customer's programs in a machine that has handed over."""
    for _ in range(LOOKS_MAX):
        others = [pid for pid, born in running(scope).items() if born and kept.get(pid) != born]
        if not others:
            return
        for pid in others:
            _send(pid, signal.SIGKILL)


def born(pid: int) -> str:
    """When a process began, in the kernel's own count; empty: it is no more."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    state, start_time = facts[0], facts[19]
    return "" if state in ("Z", "X") else start_time


def _processes(scope: str, guardians: Set[int]) -> list[int]:
    """Parents before children, without us and our own tools: those have our session, or a guardian's. The customer's
    command, which we may have started, has one of its own."""
    mine = psutil.Process()
    if scope == "parent":
        roots = [psutil.Process(os.getppid())]
    else:
        above = {process.pid for process in mine.parents()}
        roots = [each for each in psutil.process_iter() if each.pid not in above and each.pid != 1]
    session = os.getsid(0)
    spared = {mine.pid}
    with contextlib.suppress(psutil.Error):
        spared |= {child.pid for child in mine.children(recursive=True) if _session(child.pid) == session}
    found: dict[int, None] = {}
    for root in roots:
        with contextlib.suppress(psutil.Error):
            for process in (root, *root.children(recursive=True)):
                if process.pid not in spared and _session(process.pid) not in guardians:
                    found[process.pid] = None
    return list(found)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _guardian(limit_s: int) -> subprocess.Popen[bytes]:
    """Is told of every process before it is stopped. When its input ends (we let go, or died) or the time is over, it
    lets all go on, those stopped last first."""
    script = f'for pid in $(timeout {limit_s} cat); do pids="$pid $pids"; done; kill -CONT $pids 2>/dev/null'
    return subprocess.Popen(  # noqa: S603 - our own text
        ["/bin/sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        bufsize=0,
    )


def _entrust(guardian: subprocess.Popen[bytes], pid: int) -> None:
    assert guardian.stdin is not None, "it was started with a pipe"
    with contextlib.suppress(BrokenPipeError):  # it is gone, or its time is over: nothing more is held for long
        guardian.stdin.write(b"%d\n" % pid)


def _dismiss(guardian: subprocess.Popen[bytes]) -> None:
    """Without its last act: somebody else may hold what we have let go."""
    guardian.kill()
    if guardian.stdin is not None:
        guardian.stdin.close()
    guardian.wait()


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
