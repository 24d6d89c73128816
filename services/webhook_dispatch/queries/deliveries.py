"""Questions about deliveries and their attempts. A first attempt that succeeded is in the delivery's own row."""

from __future__ import annotations

from libs.postgres import Database
from libs.refusal import Refused
from proto.webhook_dispatch.queries import (
    LIST_LIMIT_MAX,
    AttemptList,
    AttemptView,
    DeliveryList,
    DeliveryView,
    ListAttempts,
    ListDeliveries,
)
from services.webhook_dispatch.queries.endpoints import LIST_OFFSET_MAX, Context

_OWNED_SQL = "select exists (select from endpoints where endpoint_id = $1 and account_id = $2)"
# $1 endpoint; $2 delivery ('' = any); $3 outcome (null = any)
_ATTEMPTS_SQL = """
(
    select delivery_id, 1::bigint as number, first_at as at, 'event' as triggered_by, 'delivered' as outcome,
           first_status_code as status_code, '' as error, first_response as response, first_took_ms as took_ms
    from deliveries where endpoint_id = $1 and first_at is not null and ($2 = '' or delivery_id = $2)
      and ($3::text is null or $3 = 'delivered')
    union all
    select delivery_id, number, at, triggered_by, outcome, status_code, error, response, took_ms
    from attempts where endpoint_id = $1 and ($2 = '' or delivery_id = $2) and ($3::text is null or outcome = $3)
) a
"""
_COUNT_SQL = f"select count(*) from {_ATTEMPTS_SQL}"  # noqa: S608 - only constants
# $4 limit; $5 offset
_LIST_SQL = f"""
select a.delivery_id, a.number, d.event_id, d.event_type, d.body, a.at as attempted_at, a.triggered_by as trigger,
       a.outcome, a.status_code, a.error, a.response, a.took_ms, d.status as delivery_status, d.next_at
from {_ATTEMPTS_SQL} join deliveries d using (delivery_id)
order by a.at desc, a.delivery_id, a.number desc limit $4 offset $5
"""  # noqa: S608 - only constants
# $1 endpoint; $2 status (null = any); $3 limit; $4 offset
_DELIVERIES_SQL = """
select delivery_id, event_id, event_type, status, attempts, event_at, next_at, coalesce(reason, '') as reason,
       count(*) over () as total
from deliveries where endpoint_id = $1 and ($2::text is null or status = $2)
order by public_seq desc limit $3 offset $4
"""


async def list_attempts(query: ListAttempts, context: Context) -> AttemptList:
    await _owned(context.pool, query.endpoint_id, query.account_id)
    about = (query.endpoint_id, query.delivery_id, query.outcome)
    total = await context.pool.fetchval(_COUNT_SQL, *about)
    rows = await context.pool.fetch(_LIST_SQL, *about, *_window(query.limit, query.offset))
    return AttemptList([AttemptView(**dict(row)) for row in rows], total)


async def list_deliveries(query: ListDeliveries, context: Context) -> DeliveryList:
    await _owned(context.pool, query.endpoint_id, query.account_id)
    rows = await context.pool.fetch(
        _DELIVERIES_SQL, query.endpoint_id, query.status, *_window(query.limit, query.offset)
    )
    items = [DeliveryView(**{name: value for name, value in row.items() if name != "total"}) for row in rows]
    return DeliveryList(items, rows[0]["total"] if rows else 0)


async def _owned(pool: Database, endpoint_id: str, account_id: str) -> None:
    if not await pool.fetchval(_OWNED_SQL, endpoint_id, account_id):
        raise Refused("WEBHOOK_NOT_FOUND", webhook_id=endpoint_id)


def _window(limit: int, offset: int) -> tuple[int, int]:
    return max(1, min(limit, LIST_LIMIT_MAX)), max(0, min(offset, LIST_OFFSET_MAX))
