"""Questions about copies of a workspace: snapshots, CPU standbys, and what machines may put and get (see `queries`)."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from msgspec import Struct

from proto.base import Query


class SnapshotView(Struct, frozen=True, omit_defaults=True):
    """A snapshot as its owner may see it."""

    snapshot_id: str
    instance_id: str
    status: Literal["requested", "completed", "failed", "expired"]
    reason: str = ""
    requested_at: datetime | None = None
    captured_at: datetime | None = None
    completed_at: datetime | None = None
    files: int | None = None
    bytes: int | None = None
    stored_bytes: int | None = None
    took_ms: int | None = None
    is_point_in_time: bool | None = None
    error: str = ""


class SnapshotList(Struct, frozen=True):
    items: list[SnapshotView]


class ListSnapshots(Query, tag="snapshots", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = SnapshotList
    account_id: str
    instance_id: str


class WayBackView(Struct, frozen=True):
    """How far the way back to a GPU is. `stage`: searching, filling, handing_over, handed_over. `reason`: why the last
    try failed; `next_at`: when the next is made."""

    stage: str
    attempts_failed: int
    machine_id: str
    reason: str
    next_at: datetime | None


class CpuStandbyView(Struct, frozen=True, omit_defaults=True):
    """An instance's CPU standby. `state`: provisioning, syncing (no whole copy yet), ready, error, failover_active,
    recovering (a GPU machine is being filled, to take over from it).

    What it has (`copies`, `files`, `bytes`, `captured_at`) is what its own agent said last; a copy older than
    `sync_age_max_s` is too old to count on.
    """

    instance_id: str
    state: Literal["provisioning", "syncing", "ready", "error", "failover_active", "recovering"]
    sync_interval_s: int
    machine_id: str = ""
    host: str = ""
    ssh_port: int = 0
    region: str = ""
    price_usd_micros_per_hour: int = 0
    is_running: bool = False
    sync_age_max_s: int = 0
    copies: int = 0
    files: int | None = None
    bytes: int | None = None
    took_ms: int | None = None
    captured_at: datetime | None = None
    error: str = ""
    way_back: WayBackView | None = None


class CpuStandbyList(Struct, frozen=True):
    items: list[CpuStandbyView]


class ListCpuStandbys(Query, tag="cpu_standbys", frozen=True, kw_only=True):
    """Of all instances of an account, or of one."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = CpuStandbyList
    account_id: str
    instance_id: str = ""


class StoredPart(Struct, frozen=True):
    """One object: a part of a pack."""

    pack_id: str
    number: int


class SignedUrls(Struct, frozen=True):
    """In the order asked for: the manifest first, if it was, then the parts."""

    urls: tuple[str, ...]
    valid_s: int


class SignStorage(Query, tag="sign_storage", frozen=True, kw_only=True):
    """URLs for objects of one snapshot. Whose machine this is comes from the verified agent token."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = SignedUrls
    machine_id: str
    instance_id: str
    generation: int
    method: Literal["GET", "PUT"]
    snapshot_id: str
    manifest: bool = False
    parts: tuple[StoredPart, ...] = ()
