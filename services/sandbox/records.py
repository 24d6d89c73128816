"""What the cloud remembers of each machine: a journal of records, of which the last one of a machine counts.

Used by `cloud`. Owns DATA/sandbox/records. A record holds the machine's environment (with the agent's token), so the
directory is 0700 and a record has no repr of its content. Not fsynced: what power loss may take is a simulated machine,
and its processes are gone too. One file, appended to: making a file per machine took half of the daemon's time and
waited for every disk flush of the event log beside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from services.sandbox.wire import Billing, EndpointView, InterruptionReason, Kind, MachineStatus, PortWish

# The journal is written anew when it holds this many lines more than a machine needs: seldom, and never much too long.
LINES_PER_MACHINE_MAX = 8
LINES_SPARE_MIN = 10_000


class ProcessId(Struct, frozen=True):
    """A process that cannot be mistaken for another: its number and the kernel's start time of it (clock ticks)."""

    pid: int
    started_ticks: int


# Where a machine is heading; `destroyed` is on its way out of memory.
Wanted = Literal["running", "stopped", "exited", "destroyed"]


class Record(Struct):
    """One machine. Changed only by `cloud`, saved after each change of status."""

    machine_id: str
    label: str
    status: MachineStatus
    wanted: Wanted
    offer_id: str
    host_id: str
    gpu: str
    gpu_count: int
    region: str
    kind: Kind
    billing: Billing
    price_usd_micros_per_hour: int
    created_at: float
    image: str
    slots: int
    slot_held: bool = True
    ports: tuple[PortWish, ...] = ()
    env: dict[str, str] = {}
    agent_env: dict[str, str] = {}
    start_command: str = ""
    ssh_public_keys: tuple[str, ...] = ()
    # Beside those, or beside the sandbox's own. Records on disk have it under its first name.
    inbox_public_keys: tuple[str, ...] = field(default=(), name="extra_public_keys")
    volume_id: str = ""
    mount_path: str = ""
    user_id: int = 0  # 0: the daemon's own user
    endpoints: tuple[EndpointView, ...] = ()
    process: ProcessId | None = None
    interruption: InterruptionReason | None = None
    detail: str = ""
    suspended: bool = False  # was running when the daemon was asked to stop: boot it again

    def __repr__(self) -> str:
        return f"Record({self.machine_id}, {self.status})"


class Volume(Struct):
    """One directory that outlives machines: of a host, or (`region`) of a region and then one machine's at a time.

    `group_id` owns its files (0: the daemon's own group).
    """

    volume_id: str
    name: str
    host_id: str
    size_gb: int
    group_id: int = 0
    region: str = ""


class _Line(Struct, omit_defaults=True):
    """One line of the journal: a record, or that a machine is forgotten."""

    record: Record | None = None
    forgotten: str = ""


class Records:
    """The journal. `load` comes first; it also makes the journal short again."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / "journal.jsonl"
        self._encoder = msgspec.json.Encoder()
        self._live: dict[str, bytes] = {}
        self._lines = 0
        self._descriptor = -1

    def load(self) -> list[Record]:
        """Every machine not forgotten, oldest first. A line cut off by a crash is the last one, and is dropped."""
        decoder = msgspec.json.Decoder(_Line)
        found: dict[str, Record] = {}
        text = self._path.read_bytes() if self._path.exists() else b""
        for line in text.split(b"\n")[:-1]:
            entry = decoder.decode(line)
            if entry.record is None:
                found.pop(entry.forgotten, None)
            else:
                found[entry.record.machine_id] = entry.record
        self._live = {machine_id: self._line(record) for machine_id, record in found.items()}
        self._shorten()
        return list(found.values())

    def save(self, record: Record) -> None:
        self._live[record.machine_id] = line = self._line(record)
        self._append(line)

    def forget(self, machine_id: str) -> None:
        if self._live.pop(machine_id, None) is not None:
            self._append(self._encoder.encode(_Line(forgotten=machine_id)) + b"\n")

    def _line(self, record: Record) -> bytes:
        return self._encoder.encode(_Line(record=record)) + b"\n"

    def _append(self, line: bytes) -> None:
        if self._lines >= LINES_SPARE_MIN + LINES_PER_MACHINE_MAX * len(self._live):
            self._shorten()
        os.write(self._descriptor, line)
        self._lines += 1

    def _shorten(self) -> None:
        """Write the journal anew with one line per machine."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        replace(self._path, b"".join(self._live.values()))
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._lines = len(self._live)


def replace(path: Path, content: bytes) -> None:
    """Write a file so that readers and a crash see the old content or the new, never a part. Mode 0600."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)
    new.replace(path)
