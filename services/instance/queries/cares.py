"""How accounts want their machines watched and replaced. Used by the watches, by intake and for heartbeats.

An account that wants machines looked at more often than clouds are hears of their agents as often: that is its `pace`.
"""

from __future__ import annotations

import msgspec

from libs.postgres import Database
from proto.failover.words import WarmPoolSettings

PACE_S_MIN = 1.0  # nobody makes the platform look more often than this
DEFAULT_GPU_NAMES = WarmPoolSettings().preferred_gpu_names

_GPU_NAMES_SQL = "select gpu_names from cares where account_id = $1"
# $1 only shorter than this. An instance on its way up, or lost, is looked at by those who bring it up.
_SHORTEST_SQL = """
select min(c.health_check_s) from cares c
where c.health_check_s > 0 and c.health_check_s < $1::float8
  and exists (select from instances i where i.account_id = c.account_id and i.status = 'ready')
"""


async def gpu_names_of(pool: Database, account_id: str) -> tuple[str, ...]:
    """Models that will do when a machine's own is not to be had, the best first."""
    found = await pool.fetchval(_GPU_NAMES_SQL, account_id)
    return DEFAULT_GPU_NAMES if found is None else msgspec.json.decode(found, type=tuple[str, ...])


async def shortest_check_s(pool: Database, usual_s: float) -> float:
    """How often the most demanding account that has machines wants them looked at; at most `usual_s`."""
    shortest = await pool.fetchval(_SHORTEST_SQL, usual_s)
    return usual_s if shortest is None else max(PACE_S_MIN, float(shortest))


def pace_s(health_check_s: int | None, *, heartbeat_s: float, poll_s: float) -> float:
    """How often the agents of an account report."""
    is_demanding = health_check_s is not None and 0 < health_check_s < poll_s
    return min(heartbeat_s, max(PACE_S_MIN, float(health_check_s or 0))) if is_demanding else heartbeat_s
