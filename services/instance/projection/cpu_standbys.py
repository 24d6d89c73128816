"""Rows of CPU standbys and their syncs. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator

from libs.runtime.service import Row
from proto.base import Heard
from proto.instance.cpu_events import CpuStandbyDisabled, CpuStandbyEnabled, SyncCompleted, SyncStarted


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one fact about CPU standbys."""
    key = {"instance_id": heard.aggregate_id}
    match heard.event:
        case CpuStandbyEnabled() as event:
            cpu = {"sync_interval_s": event.sync_interval_s, "excludes": event.excludes}
            yield Row("instances", key, {"cpu": cpu})
        case CpuStandbyDisabled():
            yield Row("instances", key, {"cpu": None})
            yield Row("syncs", key, None)
        case SyncStarted() as event:
            yield Row("syncs", key, {"standby_machine_id": event.cpu_name, "started_at": heard.at})
        case SyncCompleted() as event:
            columns = {"cycle": event.cycle, "ok": event.ok, "took_ms": event.duration_ms, "error": event.error}
            if event.ok:
                columns |= {"files": event.files, "bytes": event.bytes, "captured_at": event.captured_at}
            yield Row("syncs", key, columns)
        case _:
            return
