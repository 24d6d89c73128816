"""Which strategies the market is replayed for, and how each is asked for: by the commands that the gateway sends.

Used by the market simulation. A strategy of the failover service appears as soon as rungs of it have owners
(`services.failover.decider.ladder.OWNED`): nothing here imitates a rung. One that comes to the same rungs as another
is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proto.failover.words import RUNGS_OF, Rung, StandbyMode, Strategy
from proto.instance.words import BillingMode
from services.failover.decider.ladder import OWNED


class Choice(Struct, frozen=True):
    """What a customer has chosen for all instances. `pool` None: no warm pool."""

    name: str
    strategy: Strategy
    billing: BillingMode = "spot"
    pool: StandbyMode | None = None


def choices() -> list[Choice]:
    return [
        Choice("on demand", "disabled", billing="on_demand"),
        Choice("spot, by hand", "disabled"),
        *_of_the_ladder(),
    ]


def _of_the_ladder() -> Iterator[Choice]:
    seen: set[tuple[Rung, ...]] = set()
    for strategy, rungs in RUNGS_OF.items():
        owned = tuple(rung for rung in rungs if rung in OWNED)
        if not owned or owned in seen:
            continue
        seen.add(owned)
        if "warm_pool" not in owned:
            yield Choice(strategy, strategy)
            continue
        yield Choice(f"{strategy}, stopped", strategy, pool="stopped")
        yield Choice(f"{strategy}, hot", strategy, pool="hot")
