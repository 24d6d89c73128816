"""What the cloud remembers of each machine: one JSON file per machine, replaced atomically.

Used by `cloud`. Owns DATA/sandbox/records. A record holds the machine's environment (with the agent's token), so the
directory is 0700 and a record has no repr of its content. Not fsynced: what power loss may take is a simulated machine,
and its processes are gone too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from services.sandbox.wire import Billing, EndpointView, InterruptionReason, Kind, MachineStatus, PortWish


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
    volume_id: str = ""
    user_id: int = 0  # 0: the daemon's own user
    endpoints: tuple[EndpointView, ...] = ()
    process: ProcessId | None = None
    interruption: InterruptionReason | None = None
    detail: str = ""
    suspended: bool = False  # was running when the daemon was asked to stop: boot it again

    def __repr__(self) -> str:
        return f"Record({self.machine_id}, {self.status})"


class Volume(Struct):
    """One shared directory; `group_id` owns its files (0: the daemon's own group)."""

    volume_id: str
    name: str
    host_id: str
    size_gb: int
    group_id: int = 0


class Records:
    """The directory of machine records."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._encoder = msgspec.json.Encoder()

    def load(self) -> list[Record]:
        decoder = msgspec.json.Decoder(Record)
        for leftover in self._directory.glob("*.new"):
            leftover.unlink()
        return [decoder.decode(path.read_bytes()) for path in sorted(self._directory.glob("*.json"))]

    def save(self, record: Record) -> None:
        replace(self._directory / f"{record.machine_id}.json", self._encoder.encode(record))

    def forget(self, machine_id: str) -> None:
        (self._directory / f"{machine_id}.json").unlink(missing_ok=True)


def replace(path: Path, content: bytes) -> None:
    """Write a file so that readers and a crash see the old content or the new, never a part. Mode 0600."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)
    new.replace(path)
