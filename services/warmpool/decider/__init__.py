"""The rules of the warm pool service, pure: state, decide(state, command) -> events or Refused, evolve(state, event).

Split by noun: `pool` (what is remembered of one), `protecting` (how it gets, hands out and replaces its standby),
`wishes` (what the customer wants of it), `standby` (the facts about one), `account` (whom changed settings concern).
"""

from __future__ import annotations

from libs.runtime.service import Aggregate
from proto.warmpool.events import PoolEvent, PoolsTold
from services.warmpool.decider import account, pool, protecting

POOL = Aggregate("pool", pool.NO_POOL, protecting.decide, pool.evolve, PoolEvent)
ACCOUNT = Aggregate("account", account.UNTOLD, account.decide, account.evolve, PoolsTold)
AGGREGATES = (POOL, ACCOUNT)
