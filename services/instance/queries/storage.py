"""Snapshots as the customer sees them, and what machines may put into and get out of the storage.

A machine never sees a key of the storage. It is given URLs, each good for one object and a few minutes: to put what it
copies, while it carries the instance and was asked for this snapshot; to get what it is to be filled from, once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from asyncpg import Record

from libs.clock import Clock
from libs.postgres import Database
from libs.refusal import Refused
from libs.s3 import Objects, presign
from proto.instance.copy_queries import ListSnapshots, SignedUrls, SignStorage, SnapshotList, SnapshotView
from proto.instance.storage_keys import manifest_key, pack_key

URL_VALID_S = 900  # a part of 16 MB takes this long at 18 kB/s
SNAPSHOTS_MAX = 100
DUE_MAX = 200  # in one look; the rest is met at the next
ALIVE_HEARTBEATS = 3


class World(Protocol):
    """What signing needs of the outside."""

    @property
    def clock(self) -> Clock: ...

    @property
    def storage(self) -> Objects | None: ...


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...

    @property
    def world(self) -> World: ...


# $1 account, $2 instance, $3 limit
_LIST_SQL = """
select * from snapshots where account_id = $1 and instance_id = $2
order by coalesce(requested_at, completed_at) desc limit $3
"""
_OWNER_SQL = "select account_id from instances where instance_id = $1"
# $1 machine, $2 instance
_MACHINE_SQL = """
select i.machine_id as current_machine_id, i.generation as current_generation, m.generation, m.restore, m.restored_at,
       m.status, (select array_agg(s.snapshot_id) from snapshots s
                  where s.machine_id = $1 and s.status = 'requested') as requested
from instances i join machines m on m.machine_id = $1 and m.instance_id = i.instance_id
where i.instance_id = $2
"""
# $1 heard of since, $2 last taken before, $3 limit. One that just failed counts as taken.
_DUE_SQL = """
select i.instance_id, coalesce(s.snapshot_id, '')
from instances i
join agents a on a.machine_id = i.machine_id and a.last_seen_at > $1
left join lateral (select snapshot_id, status, coalesce(completed_at, requested_at) as at from snapshots
                   where instance_id = i.instance_id
                   order by coalesce(requested_at, completed_at) desc limit 1) s on true
where i.status = 'ready' and coalesce(s.status, '') <> 'requested' and coalesce(s.at, i.ready_at) < $2
order by coalesce(s.at, i.ready_at) limit $3
"""


async def list_snapshots(query: ListSnapshots, context: Context) -> SnapshotList:
    """Newest first, failed ones too. INSTANCE_NOT_FOUND for somebody else's instance."""
    if await context.pool.fetchval(_OWNER_SQL, query.instance_id) != query.account_id:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=query.instance_id)
    rows = await context.pool.fetch(_LIST_SQL, query.account_id, query.instance_id, SNAPSHOTS_MAX)
    return SnapshotList([_view(row) for row in rows])


def _view(row: Record) -> SnapshotView:
    return SnapshotView(
        snapshot_id=row["snapshot_id"],
        instance_id=row["instance_id"],
        status=row["status"],
        reason=row["reason"] or "",
        requested_at=row["requested_at"],
        captured_at=row["captured_at"],
        completed_at=row["completed_at"],
        files=row["files"],
        bytes=row["bytes"],
        stored_bytes=row["stored_bytes"],
        took_ms=row["took_ms"],
        is_point_in_time=row["is_point_in_time"],
        error=row["error"] or "",
    )


async def sign_storage(query: SignStorage, context: Context) -> SignedUrls:
    """URLs for a machine that has a right to them. Raises MACHINE_FENCED, SNAPSHOT_NOT_FOUND or NOT_CONFIGURED."""
    storage = context.world.storage
    if storage is None:
        raise Refused("NOT_CONFIGURED", feature="storage")
    row = await context.pool.fetchrow(_MACHINE_SQL, query.machine_id, query.instance_id)
    if row is None:
        raise Refused("MACHINE_NOT_FOUND", instance_id=query.instance_id, machine_id=query.machine_id)
    if row["current_machine_id"] != query.machine_id:  # a machine is primary once, so its id says enough
        raise Refused("MACHINE_FENCED", instance_id=query.instance_id, generation=row["current_generation"])
    allowed = (row["requested"] or []) if query.method == "PUT" else [row["restore"]]
    if query.snapshot_id not in allowed:
        raise Refused("SNAPSHOT_NOT_FOUND", instance_id=query.instance_id, snapshot_id=query.snapshot_id)
    if query.method == "PUT" and any(part.pack_id != query.snapshot_id for part in query.parts):
        raise Refused("SNAPSHOT_NOT_FOUND", instance_id=query.instance_id, snapshot_id=query.snapshot_id)
    keys = [manifest_key(query.instance_id, query.snapshot_id)] if query.manifest else []
    keys += [pack_key(query.instance_id, part.pack_id, part.number) for part in query.parts]
    now = context.world.clock.now()
    urls = [presign(storage.bucket, query.method, key, now=now, valid_s=URL_VALID_S) for key in keys]
    return SignedUrls(tuple(urls), URL_VALID_S)


async def due_for_snapshot(
    pool: Database, now: datetime, *, interval_s: float, heartbeat_s: float
) -> list[tuple[str, str]]:
    """Instances to copy now, each with its last snapshot."""
    alive, before = timedelta(seconds=heartbeat_s * ALIVE_HEARTBEATS), timedelta(seconds=interval_s)
    rows = await pool.fetch(_DUE_SQL, now - alive, now - before, DUE_MAX)
    return [(row[0], row[1]) for row in rows]
