"""Wishes about snapshots: taken, reported by an agent, checked by us, given up; and what was filled from one.

Part of what `commands` accepts, whose union has them.
"""

from __future__ import annotations

from datetime import datetime

from proto.instance.instance_command import InstanceCommand


class RequestSnapshot(InstanceCommand, tag="request_snapshot", frozen=True, kw_only=True):
    """Copy the workspace to storage. From a customer (`account_id`) it is refused when it cannot be; from our own
    policy (`account_id` empty) the answer is always a fact. `has_storage` is filled by the owner."""

    snapshot_id: str
    reason: str
    account_id: str = ""
    has_storage: bool = False


class ReportSnapshot(InstanceCommand, tag="report_snapshot", frozen=True, kw_only=True):
    """The agent has stored it all. Refused (MACHINE_FENCED) from a machine that no longer carries the instance."""

    machine_id: str
    generation: int
    snapshot_id: str
    captured_at: datetime
    files: int
    bytes: int
    stored_bytes: int
    packs: tuple[str, ...]
    took_ms: int
    is_point_in_time: bool = True


class ReportSnapshotFailed(InstanceCommand, tag="report_snapshot_failed", frozen=True, kw_only=True):
    machine_id: str
    snapshot_id: str
    code: str
    detail: str = ""


class ReportSnapshotChecked(InstanceCommand, tag="report_snapshot_checked", frozen=True, kw_only=True):
    """We have looked for it in the storage. `has_added`: it differs from the snapshot before it."""

    snapshot_id: str
    is_whole: bool
    has_added: bool
    detail: str = ""


class GiveUpSnapshot(InstanceCommand, tag="give_up_snapshot", frozen=True, kw_only=True):
    """The agent has had its time (deadline)."""

    snapshot_id: str


class ReportRestored(InstanceCommand, tag="report_restored", frozen=True, kw_only=True):
    """The agent has filled its machine from `source` and checked every file."""

    machine_id: str
    source: str
    captured_at: datetime
    files: int
    bytes: int
    took_ms: int
