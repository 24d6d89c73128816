"""CPU standbys as the customer sees them: where each is, and how old its copy is. One statement."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

import msgspec
from asyncpg import Record
from msgspec import Struct

from libs.postgres import Database
from proto.instance.copy_queries import CpuStandbyList, CpuStandbyView, ListCpuStandbys, WayBackView
from proto.instance.words import SSH_PORT, Endpoint

STANDBYS_MAX = 1_000
# Contract dumont 3: a copy older than three intervals is too old. Below 5 s the heartbeats that tell of it decide.
SYNC_AGE_INTERVALS_MAX = 3
SYNC_AGE_MAX_MIN_S = 15
State: TypeAlias = Literal["provisioning", "syncing", "ready", "error", "failover_active", "recovering"]


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...


class _CpuWish(Struct, frozen=True):
    sync_interval_s: int


# $1 account, $2 instance ('' = all), $3 limit. The machine is the live standby, or the one that has taken over.
_LIST_SQL = """
select i.instance_id, i.cpu, i.machine_id as primary_id, m.machine_id, m.status, m.region, m.endpoints,
       m.price_usd_micros_per_hour, s.standby_machine_id, s.ok, s.took_ms, s.error, a.copies,
       a.copy_captured_at, a.copy_files, a.copy_bytes,
       r.stage, r.attempts_failed, r.machine_id as successor_id, r.reason, r.next_at
from instances i
left join lateral (
    select * from machines where instance_id = i.instance_id
    and (role = 'cpu_standby' and status in ('requested', 'rented', 'booted', 'healthy')
         or machine_id = i.machine_id and offer->>'kind' = 'cpu')
    order by generation desc limit 1) m on true
left join syncs s on s.instance_id = i.instance_id
left join agents a on a.machine_id = m.machine_id
left join gpu_returns r on r.instance_id = i.instance_id
where i.account_id = $1 and ($2 = '' or i.instance_id = $2) and i.cpu is not null and i.status <> 'deleted'
order by i.created_at desc limit $3
"""


async def list_cpu_standbys(query: ListCpuStandbys, context: Context) -> CpuStandbyList:
    rows = await context.pool.fetch(_LIST_SQL, query.account_id, query.instance_id, STANDBYS_MAX)
    return CpuStandbyList([_view(row) for row in rows])


def _view(row: Record) -> CpuStandbyView:
    has_synced = row["machine_id"] is not None and row["standby_machine_id"] == row["machine_id"]
    endpoints = msgspec.json.decode(row["endpoints"] or "[]", type=tuple[Endpoint, ...])
    ssh = next((endpoint for endpoint in endpoints if endpoint.port == SSH_PORT), None)
    interval_s = msgspec.json.decode(row["cpu"], type=_CpuWish).sync_interval_s
    view = CpuStandbyView(
        instance_id=row["instance_id"],
        state=_state(row, has_synced),
        sync_interval_s=interval_s,
        sync_age_max_s=max(SYNC_AGE_MAX_MIN_S, SYNC_AGE_INTERVALS_MAX * interval_s),
        is_running=row["status"] == "healthy",
        way_back=_way_back(row),
        machine_id=row["machine_id"] or "",
        host=ssh.host if ssh else "",
        ssh_port=ssh.public_port if ssh else 0,
        region=row["region"] or "",
        price_usd_micros_per_hour=row["price_usd_micros_per_hour"] or 0,
    )
    if not has_synced:
        return view
    return msgspec.structs.replace(
        view,
        copies=row["copies"] or 0,
        files=row["copy_files"],
        bytes=row["copy_bytes"],
        took_ms=row["took_ms"],
        captured_at=row["copy_captured_at"],
        error=row["error"] or "",
    )


def _way_back(row: Record) -> WayBackView | None:
    if row["stage"] is None:
        return None
    return WayBackView(
        stage=row["stage"],
        attempts_failed=row["attempts_failed"] or 0,
        machine_id=row["successor_id"] or "",
        reason=row["reason"] or "",
        next_at=row["next_at"],
    )


def _state(row: Record, has_synced: bool) -> State:
    if row["machine_id"] is None or row["status"] in ("requested", "rented"):
        return "provisioning"
    if row["machine_id"] == row["primary_id"]:
        return "recovering" if row["stage"] in ("filling", "handing_over") else "failover_active"
    if not has_synced or row["copy_captured_at"] is None:
        return "syncing"
    return "ready" if row["ok"] else "error"
