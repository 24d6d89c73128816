"""Questions about instances: one, many, counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec
from asyncpg import Record

from libs.postgres import Database
from libs.refusal import Refused
from libs.runtime.recent import Recent
from proto.instance.queries import (
    LIST_LIMIT_MAX,
    GetInstance,
    GetStats,
    InstanceList,
    InstanceStats,
    InstanceView,
    ListInstances,
    MachineView,
)
from proto.instance.words import Endpoint, MachineSpec, Offer, Volume
from services.instance.queries.batching import Batches

AUTO_STOP_DEFAULT_MINUTES = 20  # contract novita A6-10
AUTO_STOP_CHECK_MINUTES = 5  # promised at most; deadlines fire within a second of their instant
LIST_OFFSET_MAX = 1_000_000

_endpoints = msgspec.json.Decoder(tuple[Endpoint, ...])
_spec = msgspec.json.Decoder(MachineSpec)
_offer = msgspec.json.Decoder(Offer)
_volume = msgspec.json.Decoder(Volume)


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...

    @property
    def recent(self) -> Recent: ...


# One machine per row; an instance without machines gives one row of nulls.
_COLUMNS = """
i.instance_id, i.account_id, i.name, i.status, i.gpu, i.spec, i.created_at, i.generation, i.region, i.webhook_url,
i.status_reason, i.failure_code, i.auto_stop_minutes, i.ready_at, i.started_at, i.stopped_at, i.deleted_at,
i.last_used_at, i.keep_alive_until, i.machine_id as primary_machine_id, i.volume,
m.machine_id, m.role, m.status as machine_status, m.generation as machine_generation, m.provider,
m.provider_machine_id, m.host_id, m.endpoints, m.price_usd_micros_per_hour, m.offer, m.region as machine_region
"""

# $1: instance ids, $2: their accounts. What another account has costs what nobody has: a row is not even read.
_GET_SQL = f"""
select {_COLUMNS}
from unnest($1::text[], $2::text[]) wanted(instance_id, account_id)
join instances i using (instance_id, account_id) left join machines m using (instance_id)
order by i.instance_id, m.generation
"""  # noqa: S608 - only constants

# $1 account; $2 statuses, empty: all but deleted; $3 gpu; $4 name ('' = any); $5 limit; $6 offset
_LIST_SQL = f"""
with matching as (
    select instance_id, created_at from instances
    where account_id = $1
      and (case when cardinality($2::text[]) = 0 then status <> 'deleted' else status = any($2::text[]) end)
      and ($3 = '' or gpu = $3)
      and ($4 = '' or name = $4)
), page as (
    select instance_id from matching order by created_at desc, instance_id limit $5 offset $6
)
select t.total, {_COLUMNS}
from (select count(*) as total from matching) t
left join (instances i join page using (instance_id) left join machines m using (instance_id)) on true
order by i.created_at desc, instance_id, m.generation
"""  # noqa: S608 - only constants

# $1: account, '' = all
_STATS_SQL = """
select
    coalesce((select jsonb_object_agg(status, n) from (
        select status, count(*) as n from instances where $1 = '' or account_id = $1 group by status) s), '{}')
        as by_status,
    m.pending, m.running, m.completed, m.failed, a.stopped_total, a.last_at
from (
    select count(*) filter (where status = 'requested') as pending,
           count(*) filter (where status in ('rented', 'booted', 'stopping', 'destroying')) as running,
           count(*) filter (where status in ('healthy', 'stopped', 'destroyed')) as completed,
           count(*) filter (where status in ('failed', 'lost')) as failed
    from machines where $1 = '' or account_id = $1) m,
    (select count(*) as stopped_total, max(stopped_at) as last_at
     from auto_stops where $1 = '' or account_id = $1) a
"""

_batches: WeakKeyDictionary[Database, Batches[InstanceView]] = WeakKeyDictionary()


async def get_instance(query: GetInstance, context: Context) -> msgspec.Raw:
    """One instance of the account, an encoded InstanceView. Deleted ones are found in lists, by their status."""
    question = f"{query.account_id}/{query.with_deleted}"
    return await context.recent.answer(query.instance_id, question, lambda: _read(query, context))


async def _read(query: GetInstance, context: Context) -> msgspec.Raw:
    batches = _batches.setdefault(context.pool, Batches())
    view = await batches.get(f"{query.account_id}/{query.instance_id}", lambda keys: _fetch(context.pool, keys))
    if view is None or (view.status == "deleted" and not query.with_deleted):
        raise Refused("INSTANCE_NOT_FOUND", instance_id=query.instance_id)
    return msgspec.Raw(msgspec.json.encode(view))


async def _fetch(pool: Database, keys: Sequence[str]) -> Mapping[str, InstanceView]:
    wanted = [key.partition("/") for key in dict.fromkeys(keys)]
    views = _views(await pool.fetch(_GET_SQL, [one[2] for one in wanted], [one[0] for one in wanted]))
    return {f"{view.account_id}/{view.instance_id}": view for view in views}


async def list_instances(query: ListInstances, context: Context) -> InstanceList:
    """A page of the account's instances, newest first."""
    rows = await context.pool.fetch(
        _LIST_SQL,
        query.account_id,
        list(query.statuses),
        query.gpu,
        query.name,
        max(1, min(query.limit, LIST_LIMIT_MAX)),
        max(0, min(query.offset, LIST_OFFSET_MAX)),
    )
    return InstanceList(_views(row for row in rows if row["instance_id"] is not None), rows[0]["total"])


def _views(rows: Iterable[Record]) -> list[InstanceView]:
    """Rows of one instance stand together."""
    grouped: dict[str, list[Record]] = {}
    for row in rows:
        grouped.setdefault(row["instance_id"], []).append(row)
    return [_view(group) for group in grouped.values()]


def _view(rows: Sequence[Record]) -> InstanceView:
    row = rows[0]
    machines = [machine for machine in rows if machine["machine_id"] is not None]
    primary = next((machine for machine in machines if machine["machine_id"] == row["primary_machine_id"]), None)
    rented_in: str | None = None if primary is None else primary["machine_region"]
    return InstanceView(
        instance_id=row["instance_id"],
        account_id=row["account_id"],
        name=row["name"],
        status=row["status"],
        gpu=row["gpu"],
        spec=_spec.decode(row["spec"]),
        created_at=row["created_at"],
        generation=row["generation"] or 1,
        region=rented_in or row["region"] or "",
        webhook_url=row["webhook_url"] or "",
        status_reason=row["status_reason"] or "",
        failure_code=row["failure_code"] or "",
        auto_stop_minutes=row["auto_stop_minutes"] or 0,
        ready_at=row["ready_at"],
        started_at=row["started_at"],
        stopped_at=row["stopped_at"],
        deleted_at=row["deleted_at"],
        last_used_at=row["last_used_at"],
        keep_alive_until=row["keep_alive_until"],
        volume=_volume.decode(row["volume"]) if row["volume"] else None,
        machines=tuple(_machine(machine) for machine in machines),
        **_of_primary(primary),
    )


def _of_primary(primary: Record | None) -> dict[str, Any]:
    """What the instance shows of the machine that carries it."""
    if primary is None or primary["provider"] is None:
        return {}
    return {
        "provider": primary["provider"],
        "provider_machine_id": primary["provider_machine_id"],
        "host_id": primary["host_id"],
        "price_usd_micros_per_hour": primary["price_usd_micros_per_hour"],
        "endpoints": _endpoints.decode(primary["endpoints"]) if primary["endpoints"] else (),
        "offer": _offer.decode(primary["offer"]) if primary["offer"] else None,
    }


def _machine(row: Record) -> MachineView:
    return MachineView(
        machine_id=row["machine_id"],
        role=row["role"],
        status=row["machine_status"],
        generation=row["machine_generation"],
        provider=row["provider"] or "",
        provider_machine_id=row["provider_machine_id"] or "",
        host_id=row["host_id"] or "",
        endpoints=_endpoints.decode(row["endpoints"]) if row["endpoints"] else (),
        price_usd_micros_per_hour=row["price_usd_micros_per_hour"] or 0,
    )


async def get_stats(query: GetStats, context: Context) -> InstanceStats:
    """Counts of instances by status and of machines by how far they are."""
    row = await context.pool.fetchrow(_STATS_SQL, query.account_id)
    assert row is not None, "an aggregate always gives a row"
    return InstanceStats(
        by_status=msgspec.json.decode(row["by_status"], type=dict[str, int]),
        work_pending=row["pending"],
        work_running=row["running"],
        work_completed=row["completed"],
        work_failed=row["failed"],
        auto_stop_check_minutes=AUTO_STOP_CHECK_MINUTES,
        auto_stop_default_minutes=AUTO_STOP_DEFAULT_MINUTES,
        auto_stop_last_check_at=row["last_at"],
        auto_stopped_total=row["stopped_total"],
    )
