"""What the dispatcher and the effects need to know of the rows: endpoints, what is under way, stored bytes.

Called by `services.webhook_dispatch.effects` only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from asyncpg import Record
from msgspec import Struct

from libs.postgres import Database
from proto.webhook_dispatch.words import DeliveryStatus

PAGE_MAX = 5_000

_ENDPOINTS_SQL = """
select endpoint_id, account_id, url, events, kind, instance_id, status, created_at, sealed_secret, sealed_old_secret,
       old_until, rate_limit_per_s, failing_since
from endpoints where deleted_at is null
"""
_SECRETS_SQL = "select account_id, sealed_secret from default_secrets"
# $1, $2: after this endpoint and place; $3: how many
_UNDER_WAY_SQL = """
select delivery_id, endpoint_id, event_type, lane, public_seq, attempts, tries, next_at from deliveries
where status in ('waiting', 'retrying') and (endpoint_id, public_seq) > ($1, $2)
order by endpoint_id, public_seq limit $3
"""
_STORED_SQL = """
select delivery_id, endpoint_id, mailbox_id, event_type, lane, public_seq, body, status, attempts
from deliveries where delivery_id = $1
"""
_KNOWN_SQL = "select delivery_id, status, attempts from deliveries where delivery_id = any($1::text[])"
# $1 endpoint
_ENDPOINT_SQL = _ENDPOINTS_SQL + " and endpoint_id = $1"


class UnderWay(Struct, frozen=True):
    """A delivery that is neither delivered nor given up."""

    delivery_id: str
    endpoint_id: str
    event_type: str
    lane: str
    public_seq: int
    attempts: int
    tries: int
    next_at: datetime | None


class StoredDelivery(Struct, frozen=True):
    delivery_id: str
    endpoint_id: str
    mailbox_id: str
    event_type: str
    lane: str
    public_seq: int
    body: str
    status: DeliveryStatus
    attempts: int


async def endpoints(pool: Database) -> list[dict[str, Any]]:
    """Every live endpoint, as fields of the dispatcher's target."""
    return [_endpoint(row) for row in await pool.fetch(_ENDPOINTS_SQL)]


async def endpoint(pool: Database, endpoint_id: str) -> dict[str, Any] | None:
    row = await pool.fetchrow(_ENDPOINT_SQL, endpoint_id)
    return None if row is None else _endpoint(row)


def _endpoint(row: Record) -> dict[str, Any]:
    fields = dict(row)
    fields["events"] = msgspec.json.decode(row["events"], type=tuple[str, ...])
    fields["sealed_secret"] = row["sealed_secret"] or ""
    fields["sealed_old_secret"] = row["sealed_old_secret"] or ""
    return fields


async def default_secrets(pool: Database) -> dict[str, str]:
    return {row[0]: row[1] for row in await pool.fetch(_SECRETS_SQL)}


async def under_way(pool: Database) -> AsyncIterator[list[UnderWay]]:
    """Everything not finished, page by page, each endpoint's in the order of the public stream."""
    endpoint_id, public_seq = "", 0
    while True:
        rows = await pool.fetch(_UNDER_WAY_SQL, endpoint_id, public_seq, PAGE_MAX)
        if rows:
            yield [UnderWay(*row) for row in rows]
        if len(rows) < PAGE_MAX:
            return
        endpoint_id, public_seq = rows[-1]["endpoint_id"], rows[-1]["public_seq"]


async def stored(pool: Database, delivery_id: str) -> StoredDelivery | None:
    row = await pool.fetchrow(_STORED_SQL, delivery_id)
    return None if row is None else StoredDelivery(*row)


async def known(pool: Database, delivery_ids: Sequence[str]) -> dict[str, tuple[DeliveryStatus, int]]:
    """Status and attempts of those that have been taken on before."""
    if not delivery_ids:
        return {}
    return {row[0]: (row[1], row[2]) for row in await pool.fetch(_KNOWN_SQL, list(delivery_ids))}
