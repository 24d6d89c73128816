"""Facts of the instance service about snapshots: copies of a workspace in object storage, and machines filled from one.

Part of the `instance` aggregate (see `events`, whose union has them). A snapshot is a manifest and the *packs* that it
refers to; a pack is what one snapshot added, so a later snapshot refers to the packs of earlier ones.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.instance.words import HealthCheck


class SnapshotRequested(Event, tag="snapshot.requested", kw_only=True, frozen=True):
    """The agent of the primary is to copy the workspace. `base_id`: the snapshot it may add to."""

    public = True
    instance_id: str
    account_id: str
    snapshot_id: str
    machine_id: str
    generation: int
    reason: str
    requested_at: datetime
    give_up_at: datetime
    base_id: str = ""


class SnapshotCompleted(Event, tag="snapshot.completed", kw_only=True, frozen=True):
    """Everything written before `captured_at` is in storage. `stored_bytes`: what this snapshot added.

    `is_point_in_time`: the files are those of one instant; otherwise each is whole, but they may be of several instants
    after `captured_at`, because the workspace never stood still for long enough.
    """

    public = True
    instance_id: str
    account_id: str
    snapshot_id: str
    machine_id: str
    generation: int
    reason: str
    captured_at: datetime
    completed_at: datetime
    files: int
    bytes: int
    stored_bytes: int
    took_ms: int
    packs: tuple[str, ...] = ()
    is_point_in_time: bool = True


class SnapshotFailed(Event, tag="snapshot.failed", kw_only=True, frozen=True):
    """There is no such snapshot. `code` is one word (timeout, superseded, not_ready, in_progress, or the agent's)."""

    public = True
    instance_id: str
    account_id: str
    snapshot_id: str
    reason: str
    code: str
    detail: str = ""


class SnapshotsExpired(Event, tag="snapshot.expired", kw_only=True, frozen=True):
    """Older than what is kept. `packs` are those that no kept snapshot refers to."""

    instance_id: str
    snapshot_ids: tuple[str, ...]
    packs: tuple[str, ...] = ()


class MachineRestored(Event, tag="machine.restored", kw_only=True, frozen=True):
    """The machine has the files: as many as the manifest names, each with its checksum. Its probes begin now."""

    instance_id: str
    machine_id: str
    source: str
    captured_at: datetime
    files: int
    bytes: int
    took_ms: int
    health_check: HealthCheck = HealthCheck()


SnapshotEvent = SnapshotRequested | SnapshotCompleted | SnapshotFailed | SnapshotsExpired
