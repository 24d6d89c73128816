"""The answer about one pool: SQL in, reply struct out. The runtime calls `QUERIES[type](query, context)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from libs.postgres import Database
from libs.refusal import Refused
from libs.runtime.service import Answer
from proto.base import Query
from proto.warmpool.queries import GetPool, PoolView


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...


_GET_SQL = """
select p.*, (select count(*) from swaps where instance_id = p.instance_id) as swaps
from pools p where instance_id = $1
"""


# $1 account, $2 limit
_POOLS_SQL = """
select instance_id from pools where account_id = $1 and status <> 'disabled' order by instance_id limit $2
"""
POOLS_MAX = 5_000  # one event names them


async def pools_of(pool: Database, account_id: str) -> tuple[str, ...]:
    """Instances of the account that have a pool."""
    return tuple(row["instance_id"] for row in await pool.fetch(_POOLS_SQL, account_id, POOLS_MAX))


async def get_pool(query: GetPool, context: Context) -> PoolView:
    row = await context.pool.fetchrow(_GET_SQL, query.instance_id)
    if row is None or row["status"] is None:
        return PoolView(query.instance_id, "disabled")
    if row["account_id"] != query.account_id:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=query.instance_id)
    return PoolView(
        instance_id=row["instance_id"],
        status=row["status"],
        mode=row["mode"],
        host_id=row["host_id"] or "",
        volume_id=row["volume_id"] or "",
        primary_machine_id=row["primary_machine_id"] or "",
        standby_machine_id=row["standby_machine_id"] or "",
        standby_state=row["standby_state"] or "none",
        failover_count=row["swaps"],
        last_failover_at=row["last_failover_at"],
        error=row["error"] or "",
        retry_at=row["retry_at"],
        changed_at=row["changed_at"],
    )


QUERIES: Mapping[type[Query], Answer] = {GetPool: get_pool}
