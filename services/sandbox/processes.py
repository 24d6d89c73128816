"""Real processes on this host: who is alive, which belong to a machine, and ending them all.

Used by `carriers`. Knows a process by number and kernel start time, so a reused number is never mistaken. A shell
leaves its machine's process group (job control needs a session of its own), so a machine is what descends from its
leader, sits in its session, or carries its id in the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from services.sandbox.records import ProcessId

PROC = Path("/proc")
MACHINE_VARIABLE = "DUMONT_SANDBOX_MACHINE"
# A dying machine may fork while it is being looked at; every round kills what the last one missed.
KILL_ROUNDS_MAX = 8
KILL_ROUND_PAUSE_S = 0.01
# Fields of /proc/<pid>/stat counted after the command's closing bracket (proc(5)).
STATE, PARENT, SESSION, STARTED = 0, 1, 3, 19


class Seen(Struct, frozen=True):
    """One live process as the kernel lists it. `user_id` is 0 for one that hides its memory from its own user."""

    pid: int
    parent: int
    session: int
    user_id: int


def identity(pid: int) -> ProcessId | None:
    """The process with this number, unless it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[STATE] == b"Z":
        return None
    return ProcessId(pid, int(fields[STARTED]))


def is_alive(process: ProcessId) -> bool:
    return identity(process.pid) == process


def open_handle(process: ProcessId) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it already has."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if is_alive(process):
        return handle
    os.close(handle)
    return None


def send(pid: int, number: signal.Signals) -> None:
    """Signal one process; one that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def send_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


class ProcessList:
    """The host's processes, read once for all who ask at the same time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[list[Seen]] | None = None

    async def fresh(self) -> list[Seen]:
        """A list that was begun after this call."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._read())
        return await asyncio.shield(self._next)

    async def _read(self) -> list[Seen]:
        async with self._lock:
            self._next = None
            return await asyncio.to_thread(_list)

    async def end(self, leader_pid: int, *, user_id: int, machine_id: str) -> None:
        """Kill everything that belongs to a machine. Returns when nothing of it is left."""
        if leader_pid:
            send_group(leader_pid, signal.SIGSTOP)  # nobody forks while we look
        for _ in range(KILL_ROUNDS_MAX):
            pids = members(await self.fresh(), leader_pid, user_id=user_id, machine_id=machine_id)
            if not pids:
                return
            for pid in pids:
                send(pid, signal.SIGKILL)
            await asyncio.sleep(KILL_ROUND_PAUSE_S)


def members(seen: Sequence[Seen], leader_pid: int, *, user_id: int, machine_id: str) -> list[int]:
    """Numbers of the processes that belong to a machine."""
    found = {process.pid for process in seen if leader_pid and leader_pid in (process.pid, process.session)}
    # The user alone proves nothing: another cloud on this host may have given the same number to a machine of its own.
    suspects = [process.pid for process in seen if user_id in (0, process.user_id) and process.pid not in found]
    found |= {pid for pid in suspects if _carries(pid, machine_id)}
    children: dict[int, list[int]] = {}
    for process in seen:
        children.setdefault(process.parent, []).append(process.pid)
    reached = list(found)
    while reached:
        for child in children.get(reached.pop(), []):
            if child not in found:
                found.add(child)
                reached.append(child)
    return sorted(found)


def _list() -> list[Seen]:
    seen: list[Seen] = []
    for entry in os.scandir(PROC):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        fields = _stat(pid)
        if fields is None or fields[STATE] == b"Z":
            continue
        with contextlib.suppress(OSError):
            user_id = entry.stat().st_uid
            seen.append(Seen(pid, int(fields[PARENT]), int(fields[SESSION]), user_id))
    return seen


def _stat(pid: int) -> list[bytes] | None:
    try:
        content = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    return content.rpartition(b")")[2].split()


def _carries(pid: int, machine_id: str) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"{MACHINE_VARIABLE}={machine_id}".encode() in environment.split(b"\0")
