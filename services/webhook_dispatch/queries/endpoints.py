"""Questions about endpoints: one, many. A deleted one is not answered."""

from __future__ import annotations

from typing import Protocol

import msgspec
from asyncpg import Record

from libs.postgres import Database
from libs.refusal import Refused
from proto.webhook_dispatch.queries import LIST_LIMIT_MAX, EndpointList, EndpointView, GetEndpoint, ListEndpoints

LIST_OFFSET_MAX = 1_000_000


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...


_COLUMNS = """
endpoint_id, account_id, name, url, events, status, kind, created_at, instance_id, sealed_secret <> '' as has_secret,
rate_limit_per_s, disabled_reason, failing_since, changed_at
"""
# $1 endpoint, $2 account
_GET_SQL = f"""
select {_COLUMNS} from endpoints where endpoint_id = $1 and account_id = $2 and deleted_at is null
"""  # noqa: S608 - only constants
# $1 account; $2 kind (null = any); $3 enabled ones only; $4 limit; $5 offset
_LIST_SQL = f"""
select {_COLUMNS}, count(*) over () as total from endpoints
where account_id = $1 and deleted_at is null and ($2::text is null or kind = $2) and (not $3 or status = 'enabled')
order by created_at desc, endpoint_id limit $4 offset $5
"""  # noqa: S608 - only constants


async def get_endpoint(query: GetEndpoint, context: Context) -> EndpointView:
    row = await context.pool.fetchrow(_GET_SQL, query.endpoint_id, query.account_id)
    if row is None:
        raise Refused("WEBHOOK_NOT_FOUND", webhook_id=query.endpoint_id)
    return _view(row)


async def list_endpoints(query: ListEndpoints, context: Context) -> EndpointList:
    limit = max(1, min(query.limit, LIST_LIMIT_MAX))
    offset = max(0, min(query.offset, LIST_OFFSET_MAX))
    rows = await context.pool.fetch(_LIST_SQL, query.account_id, query.kind, query.enabled_only, limit, offset)
    return EndpointList([_view(row) for row in rows], rows[0]["total"] if rows else 0)


def _view(row: Record) -> EndpointView:
    fields = dict(row)
    fields.pop("total", None)
    fields["events"] = msgspec.json.decode(row["events"], type=tuple[str, ...])
    return EndpointView(**fields)
