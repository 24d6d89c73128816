"""The customer's history: usage by meter and day beside purchases, bonuses and corrections, with a running balance.

One statement adds what running meters have come to since they were last charged, in the same integer arithmetic as
`decider/metering.py`, so that the history always sums to the balance, to the micro-unit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from proto.billing.queries import Entry, EntryList, ListEntries, ListUsage, UsageDay, UsageList
from proto.billing.words import USAGE_TYPE, EntryType, Line
from services.billing.queries.context import Context

LINE_OF: dict[str, Line] = {kind: line for line, kind in USAGE_TYPE.items()}

# $1 account, $2 now, $3 prepaid. `usage`: one row per meter and day; `open` ones grow until midnight UTC.
# `uncollected`: what of it the credits did not cover, day by day; today it grows by what has run since.
USAGE_CTE = """
with running as (
    select m.account_id, m.meter_id, m.rate, m.since,
           greatest(m.since, m.paid_until, a.charged_until) as paid
    from meters m join accounts a using (account_id)
    where m.account_id = $1 and m.since is not null
), since_paid as (
    select r.meter_id, to_char(d.midnight at time zone 'UTC', 'YYYY-MM-DD') as day, r.rate, r.since,
           u.seconds, u.usd_micros,
           floor(extract(epoch from greatest(r.since, d.midnight, u.until) - r.since))::bigint as seconds_before,
           floor(extract(epoch from greatest(
               r.since, d.midnight, u.until, least($2, d.midnight + interval '1 day')) - r.since))::bigint
               as seconds_now,
           $2 < d.midnight + interval '1 day' as is_open,
           greatest(r.since, least($2, d.midnight + interval '1 day')) as until
    from running r
    cross join generate_series(date_trunc('day', r.paid, 'UTC'), $2, interval '1 day') as d(midnight)
    left join usage_days u on u.account_id = $1 and u.meter_id = r.meter_id
                          and u.day = to_char(d.midnight at time zone 'UTC', 'YYYY-MM-DD')
), usage as (
    select u.meter_id, u.day, u.seconds, u.usd_micros, u.until,
           u.day = to_char($2 at time zone 'UTC', 'YYYY-MM-DD') as is_open, null::bigint as rate
    from usage_days u
    where u.account_id = $1 and not exists (
        select 1 from since_paid p where p.meter_id = u.meter_id and p.day = u.day)
    union all
    select p.meter_id, p.day, coalesce(p.seconds, 0) + p.seconds_now - p.seconds_before,
           coalesce(p.usd_micros, 0) + (2 * p.seconds_now * p.rate + 3600) / 7200
                                     - (2 * p.seconds_before * p.rate + 3600) / 7200,
           p.until, p.is_open, p.rate
    from since_paid p
), running_now as (
    select coalesce(sum(
        (2 * floor(extract(epoch from greatest(r.paid, $2) - r.since))::bigint * r.rate + 3600) / 7200
        - (2 * floor(extract(epoch from r.paid - r.since))::bigint * r.rate + 3600) / 7200), 0)::bigint as accrued
    from running r
), uncollected as (
    select day, after - coalesce(lag(after) over (order by day), 0) as usd_micros, until
    from uncollected_days where account_id = $1
    union all
    select to_char($2 at time zone 'UTC', 'YYYY-MM-DD'),
           greatest(0, r.accrued - coalesce((a.totals->>'credits:paid')::bigint, 0)
                                 - coalesce((a.totals->>'credits:bonus')::bigint, 0)), $2
    from running_now r join accounts a on a.account_id = $1
    where $3
), history as (
    select entry_id, type, usd_micros as amount, created_at, description, instance_id, reference_id,
           null::bigint as seconds, null::bigint as rate, true as is_final
    from entries where account_id = $1
    union all
    select u.day || '.' || u.meter_id, 'line:' || m.line, -u.usd_micros,
           least(u.until, u.day::timestamp at time zone 'UTC' + interval '1 day' - interval '1 microsecond'),
           trim(m.line || ' ' || coalesce(m.label, '')), m.instance_id, null, u.seconds, u.rate, not u.is_open
    from usage u join meters m on m.account_id = $1 and m.meter_id = u.meter_id
    where u.usd_micros <> 0 or u.seconds <> 0
    union all
    select n.day || '.uncollected', 'uncollected', sum(n.usd_micros)::bigint,
           least(max(n.until), n.day::timestamp at time zone 'UTC' + interval '1 day' - interval '1 microsecond'),
           'Not collected: the balance was empty', null, null, null, null,
           n.day <> to_char($2 at time zone 'UTC', 'YYYY-MM-DD')
    from uncollected n group by n.day having sum(n.usd_micros) <> 0
)
"""
# $4 since, $5 until, $6 types (null: all), $7 instance (empty: all), $8 limit, $9 offset
_ENTRIES_SQL = (
    USAGE_CTE  # noqa: S608 - constants only
    + """, balanced as (
    select *, sum(amount) over (order by created_at, entry_id rows unbounded preceding)::bigint as after
    from history
)
select *, count(*) over () as total from balanced
where ($4::timestamptz is null or created_at >= $4) and ($5::timestamptz is null or created_at < $5)
  and ($6::text[] is null or type = any($6)) and ($7 = '' or instance_id = $7)
order by created_at desc, entry_id desc limit $8 offset $9
"""
)
# $4 since day, $5 until day, $6 instance, $7 limit, $8 offset
_USAGE_SQL = (
    USAGE_CTE
    + """
select u.day, u.meter_id, u.seconds, u.usd_micros, u.is_open, m.instance_id, m.line, m.label,
       count(*) over () as total, (sum(u.usd_micros) over ())::bigint as usd_micros_total
from usage u join meters m on m.account_id = $1 and m.meter_id = u.meter_id
where (u.usd_micros <> 0 or u.seconds <> 0) and ($4 = '' or u.day >= $4) and ($5 = '' or u.day <= $5)
  and ($6 = '' or m.instance_id = $6)
order by u.day desc, m.instance_id, m.line, u.meter_id limit $7 offset $8
"""
)


async def list_entries(query: ListEntries, context: Context) -> EntryList:
    rows = await context.pool.fetch(
        _ENTRIES_SQL,
        query.account_id,
        context.world.clock.now(),
        context.world.settings.prepaid,
        query.since,
        query.until,
        [_row_type(kind) for kind in query.types] or None,
        query.instance_id,
        query.limit,
        query.offset,
    )
    return EntryList([_entry(row) for row in rows], rows[0]["total"] if rows else 0)


def _row_type(kind: EntryType) -> str:
    line = LINE_OF.get(kind)
    return f"line:{line}" if line else kind


def _entry(row: Any) -> Entry:
    kind: EntryType = USAGE_TYPE[row["type"][5:]] if row["type"].startswith("line:") else row["type"]
    return Entry(
        entry_id=row["entry_id"],
        type=kind,
        usd_micros=row["amount"],
        balance_before_usd_micros=row["after"] - row["amount"],
        balance_after_usd_micros=row["after"],
        created_at=row["created_at"],
        description=row["description"] or "",
        instance_id=row["instance_id"] or "",
        reference_id=row["reference_id"] or "",
        quantity_seconds=row["seconds"],
        unit_price_usd_micros_per_hour=row["rate"],
        is_final=row["is_final"],
    )


async def list_usage(query: ListUsage, context: Context) -> UsageList:
    return await usage_of(
        context,
        query.account_id,
        context.world.clock.now(),
        days=(query.since_day, query.until_day),
        instance_id=query.instance_id,
        limit=query.limit,
        offset=query.offset,
    )


async def usage_of(
    context: Context,
    account_id: str,
    now: datetime,
    *,
    days: tuple[str, str],
    instance_id: str = "",
    limit: int,
    offset: int = 0,
) -> UsageList:
    """Usage of a range of days, inclusive; empty bounds are open."""
    prepaid = context.world.settings.prepaid
    rows = await context.pool.fetch(_USAGE_SQL, account_id, now, prepaid, *days, instance_id, limit, offset)
    items = [
        UsageDay(
            day=row["day"],
            instance_id=row["instance_id"],
            meter_id=row["meter_id"],
            line=row["line"],
            seconds=row["seconds"],
            usd_micros=row["usd_micros"],
            label=row["label"] or "",
            is_final=not row["is_open"],
        )
        for row in rows
    ]
    return UsageList(items, rows[0]["total"] if rows else 0, rows[0]["usd_micros_total"] if rows else 0)
