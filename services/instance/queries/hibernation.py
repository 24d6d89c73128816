"""Who is idle, and what hibernation has saved. Rows and heartbeats; whatever matters is decided against the log."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from libs.clock import Clock
from libs.postgres import Database
from proto.instance.hibernation_queries import GetHibernationStats, HibernationStats, SavedByInstance

IDLE_MAX = 500  # in one look; the rest is met at the next
SAVED_MAX = 1_000  # instances listed by name; the totals are of all


class World(Protocol):
    @property
    def clock(self) -> Clock: ...


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...

    @property
    def world(self) -> World: ...


class Idle(Struct, frozen=True):
    """A primary machine that is idle (since), or one that was announced and is not. `is_heard`: its agent lives."""

    instance_id: str
    machine_id: str
    idle_since: datetime | None
    is_heard: bool


# $1 heard of since, $2 idle since before, $3 limit
_IDLE_SQL = """
select i.instance_id, i.machine_id,
       case when a.last_seen_at > $1 and a.idle_since is not null
            then greatest(a.idle_since, i.ready_at, i.last_used_at) end as idle_since,
       coalesce(a.last_seen_at > $1, false)
from instances i
left join agents a on a.machine_id = i.machine_id
where (i.status = 'ready' and i.hibernate_at is null and a.last_seen_at > $1
       and greatest(a.idle_since, i.ready_at, i.last_used_at) <= $2 and a.idle_since is not null)
   or (i.status = 'ready' and i.hibernate_at is not null)
   or (i.status = 'hibernating' and not coalesce(i.hibernation_wished, false)
       and (a.idle_since is null or a.last_seen_at <= $1))
order by i.instance_id limit $3
"""
# $1 account, $2 now. Saved is the time without a machine, at the price it had before.
_STATS_SQL = """
with each as (
    select h.instance_id, extract(epoch from coalesce(h.woke_at, i.deleted_at, $2) - h.hibernated_at) as saved_s,
           h.price_usd_micros_per_hour as price
    from hibernations h join instances i using (instance_id)
    where h.account_id = $1 and h.hibernated_at is not null
)
select instance_id, count(*), sum(saved_s)::bigint, sum(floor(saved_s * price / 3600))::bigint,
       sum(count(*)) over ()::bigint, sum(sum(saved_s)) over ()::bigint,
       sum(sum(floor(saved_s * price / 3600))) over ()::bigint
from each group by instance_id order by instance_id limit $3
"""


async def idle_or_announced(pool: Database, now: datetime, *, idle_s: float, alive_s: float) -> list[Idle]:
    rows = await pool.fetch(_IDLE_SQL, now - timedelta(seconds=alive_s), now - timedelta(seconds=idle_s), IDLE_MAX)
    return [Idle(*row) for row in rows]


async def hibernation_stats(query: GetHibernationStats, context: Context) -> HibernationStats:
    rows = await context.pool.fetch(_STATS_SQL, query.account_id, context.world.clock.now(), SAVED_MAX)
    if not rows:
        return HibernationStats(0, 0, 0, [])
    return HibernationStats(
        total=rows[0][4],
        saved_s=rows[0][5],
        saved_usd_micros=rows[0][6],
        instances=[SavedByInstance(*row[:4]) for row in rows],
    )
