"""Rows of snapshots. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libs.runtime.service import Row, deadline, no_deadline, wish
from proto.base import Heard
from proto.instance.commands import GiveUpSnapshot
from proto.instance.events import SnapshotCompleted, SnapshotFailed, SnapshotRequested, SnapshotsExpired


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one fact about snapshots."""
    match heard.event:
        case SnapshotRequested() as event:
            yield _snapshot(
                event.snapshot_id,
                instance_id=event.instance_id,
                account_id=event.account_id,
                machine_id=event.machine_id,
                generation=event.generation,
                base_id=event.base_id,
                status="requested",
                reason=event.reason,
                requested_at=event.requested_at,
            )
            give_up = wish(GiveUpSnapshot, instance_id=event.instance_id, snapshot_id=event.snapshot_id)
            yield deadline(heard.aggregate_id, _give_up_name(event.snapshot_id), event.give_up_at, give_up)
        case SnapshotCompleted() as event:
            yield _snapshot(
                event.snapshot_id,
                status="completed",
                captured_at=event.captured_at,
                completed_at=event.completed_at,
                files=event.files,
                bytes=event.bytes,
                stored_bytes=event.stored_bytes,
                took_ms=event.took_ms,
                is_point_in_time=event.is_point_in_time,
                packs=event.packs,
            )
            yield no_deadline(heard.aggregate_id, _give_up_name(event.snapshot_id))
        case SnapshotFailed() as event:
            yield _snapshot(
                event.snapshot_id,
                instance_id=event.instance_id,
                account_id=event.account_id,
                status="failed",
                reason=event.reason,
                error=f"{event.code}: {event.detail}" if event.detail else event.code,
                completed_at=heard.at,
            )
            yield no_deadline(heard.aggregate_id, _give_up_name(event.snapshot_id))
        case SnapshotsExpired() as event:
            for snapshot_id in event.snapshot_ids:
                yield _snapshot(snapshot_id, status="expired")
        case _:
            return


def _snapshot(snapshot_id: str, **columns: Any) -> Row:
    return Row("snapshots", {"snapshot_id": snapshot_id}, columns)


def _give_up_name(snapshot_id: str) -> str:
    return f"give_up:{snapshot_id}"
