"""Facts of the instance service about CPU standbys: a small machine that keeps a copy of the primary's files.

Part of the `instance` aggregate (see `events`, whose union has them). A cycle is one sync; not every cycle is a fact:
the first, those that end or begin a failure, and one in so many.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event


class CpuStandbyEnabled(Event, tag="standby.enabled", kw_only=True, frozen=True):
    """A CPU machine is to be kept in sync with the primary. `excludes`: names that are not copied."""

    instance_id: str
    account_id: str
    sync_interval_s: int
    excludes: tuple[str, ...] = ()


class CpuStandbyDisabled(Event, tag="standby.disabled", kw_only=True, frozen=True):
    """No CPU standby any more."""

    public = True
    instance_id: str
    account_id: str


class SyncStarted(Event, tag="standby.sync_started", kw_only=True, frozen=True):
    """The first sync to this standby has begun (seed 000)."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    cycle: int


class SyncCompleted(Event, tag="standby.sync_completed", kw_only=True, frozen=True):
    """A cycle has ended (seed 000). With `ok` the standby has everything written before `captured_at`."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    cycle: int
    ok: bool
    duration_ms: int
    files: int = 0
    bytes: int = 0
    captured_at: datetime | None = None
    error: str = ""


CpuStandbyEvent = CpuStandbyEnabled | CpuStandbyDisabled | SyncStarted | SyncCompleted
