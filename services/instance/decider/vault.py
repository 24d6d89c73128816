"""What is remembered of an instance's snapshots: those kept, the one being taken, and which were answered.

Used by `instance` (as a part of its state), `snapshots` and `recovery`.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.events import SnapshotCompleted, SnapshotFailed, SnapshotRequested, SnapshotsExpired
from proto.instance.snapshot_events import SnapshotEvent

# A repeated report comes within a redelivery.
ANSWERED_REMEMBERED_MAX = 64


class Snapshot(Struct, frozen=True):
    """A snapshot that is kept, and the packs it needs."""

    snapshot_id: str
    captured_at: datetime
    files: int
    bytes: int
    packs: tuple[str, ...]


class Pending(Struct, frozen=True):
    """The snapshot being taken, by which machine."""

    snapshot_id: str
    machine_id: str
    generation: int
    reason: str
    give_up_at: datetime


class Vault(Struct, frozen=True):
    """`kept` oldest first. At most one snapshot is being taken at a time."""

    kept: tuple[Snapshot, ...] = ()
    pending: Pending | None = None
    answered: tuple[str, ...] = ()

    @property
    def latest(self) -> Snapshot | None:
        return self.kept[-1] if self.kept else None

    def knows(self, snapshot_id: str) -> bool:
        is_pending = self.pending is not None and self.pending.snapshot_id == snapshot_id
        return is_pending or snapshot_id in self.answered


def evolve(vault: Vault, event: SnapshotEvent) -> Vault:
    """Fold one fact."""
    match event:
        case SnapshotRequested():
            pending = Pending(event.snapshot_id, event.machine_id, event.generation, event.reason, event.give_up_at)
            return replace(vault, pending=pending)
        case SnapshotCompleted():
            taken = Snapshot(event.snapshot_id, event.captured_at, event.files, event.bytes, event.packs)
            return replace(_answered(vault, event.snapshot_id), kept=(*vault.kept, taken))
        case SnapshotFailed():
            return _answered(vault, event.snapshot_id)
        case SnapshotsExpired():
            kept = tuple(each for each in vault.kept if each.snapshot_id not in event.snapshot_ids)
            return replace(vault, kept=kept)


def _answered(vault: Vault, snapshot_id: str) -> Vault:
    is_pending = vault.pending is not None and vault.pending.snapshot_id == snapshot_id
    answered = (*vault.answered, snapshot_id)[-ANSWERED_REMEMBERED_MAX:]
    return replace(vault, pending=None if is_pending else vault.pending, answered=answered)
