"""Reconciliation: our charges per machine, and how they compare with what providers charged."""

from __future__ import annotations

from typing import Any

from libs.postgres import Database

MACHINES_PER_ROUND_MAX = 1_000

_SUMMARY_SQL = "select kind, count(*) as machines, sum(ours - theirs)::bigint as drift from reconciled group by kind"
_UNCOLLECTED_SQL = "select coalesce(-sum((totals->>'uncollected')::bigint), 0)::bigint from accounts"
# $1: closed before then, $2: how many. Machines whose books or bills have changed since they were compared, and ones
# that were closed long enough ago for a late bill to have come.
_DUE_SQL = """
with ours as (
    select machine_id, min(account_id) as account_id, sum(usd_micros)::bigint as usd_micros, max(until) as until,
           max(rate) as rate
    from segments where machine_id <> '' group by machine_id
), theirs as (
    select machine_id, min(account_id) as account_id, min(provider) as provider, sum(usd_micros)::bigint as usd_micros,
           max(until) as until
    from provider_charges group by machine_id
)
select machine_id, coalesce(o.account_id, t.account_id) as account_id, coalesce(t.provider, '') as provider,
       coalesce(o.usd_micros, 0) as ours, coalesce(t.usd_micros, 0) as theirs,
       coalesce(o.rate, 0) as rate
from ours o full join theirs t using (machine_id) left join reconciled r using (machine_id)
where greatest(o.until, t.until) < $1
  and not exists (select 1 from meters m where m.machine_id = o.machine_id and m.since is not null)
  and (r.machine_id is null or (r.ours, r.theirs) <> (coalesce(o.usd_micros, 0), coalesce(t.usd_micros, 0)))
order by machine_id limit $2
"""


async def summary(database: Database) -> list[Any]:
    """For the metrics: machines and the sum of differences by kind."""
    return await database.fetch(_SUMMARY_SQL)


async def uncollected(database: Database) -> int:
    """For the metrics: what was used beyond all prepaid balances."""
    return await database.fetchval(_UNCOLLECTED_SQL)


async def due_machines(database: Database, closed_before: Any) -> list[Any]:
    """Machines to be compared now, at most MACHINES_PER_ROUND_MAX."""
    return await database.fetch(_DUE_SQL, closed_before, MACHINES_PER_ROUND_MAX)
