"""What runs in a data directory, for programs that did not start it: `state.json` and the lock.

Written by the supervisor only; read by the other verbs of the command line, tests and the bench. The lock, not the
file, says whether something runs: the kernel lets go of it whatever way the supervisor ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from libs.embedded.files import private_folder, replace_private

# Somebody who only asks (`holder_pid`) holds the lock for microseconds; a supervisor holds it for good.
LOCK_TRIES_MAX = 10
LOCK_PAUSE_S = 0.02


class Member(Struct, frozen=True, omit_defaults=True):
    """One supervised process. `born_at` (unix seconds) tells it from a later process with the same pid."""

    pid: int
    born_at: float = 0.0
    deaths: int = 0  # since boot
    last_end: str = ""  # how the last death came about, in words
    failing: bool = False  # three deaths within a minute


class State(Struct, frozen=True, omit_defaults=True):
    """A running platform. Holds secrets (the key, passwords inside URLs): the file is 0600, never logged."""

    data_dir: str
    supervisor_pid: int
    api_url: str
    nats_url: str
    postgres_url: str
    sandbox_url: str = ""
    api_key: str = ""
    durability: str = ""
    is_ready: bool = False
    members: dict[str, Member] = {}

    @property
    def pids(self) -> dict[str, int]:
        return {name: member.pid for name, member in self.members.items()}

    def __repr__(self) -> str:
        return f"State(data_dir={self.data_dir!r}, api_url={self.api_url!r}, pids={self.pids})"


def write_state(state: State) -> None:
    replace_private(Path(state.data_dir) / "state.json", msgspec.json.encode(state).decode())


def read_state(data_dir: Path) -> State | None:
    """The last written state, of a running platform or a past one; None when there never was one."""
    try:
        return msgspec.json.decode((data_dir / "state.json").read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def remove_state(data_dir: Path) -> None:
    (data_dir / "state.json").unlink(missing_ok=True)


def take_lock(data_dir: Path) -> int | None:
    """Hold the data directory: a descriptor to keep open, or None when somebody else holds it."""
    descriptor = os.open(private_folder(data_dir) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for _ in range(LOCK_TRIES_MAX):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOCK_PAUSE_S)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor
    os.close(descriptor)
    return None


def holder_pid(data_dir: Path) -> int:
    """Pid of the supervisor that runs in `data_dir`; 0 when none does."""
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return int(os.read(descriptor, 32) or b"0")
    finally:
        os.close(descriptor)
    return 0
