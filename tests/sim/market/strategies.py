"""Which strategies the market is replayed for, and how each is asked for: by the commands that the gateway sends.

Used by the market simulation. Nothing here imitates a rung. A strategy that comes to the same rungs as another is left
out; a warm pool and a volume of a region exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from proto.failover.words import RUNGS_OF, Rung, StandbyMode, Strategy
from proto.instance.words import BillingMode


class Choice(Struct, frozen=True):
    """What a customer has chosen for all instances. `pool` None: no warm pool. `volume`: one of the region."""

    name: str
    strategy: Strategy
    billing: BillingMode = "spot"
    pool: StandbyMode | None = None
    volume: bool = False


def choices() -> list[Choice]:
    return [
        Choice("on demand", "disabled", billing="on_demand"),
        Choice("spot, by hand", "disabled"),
        *_of_the_ladder(),
    ]


def _of_the_ladder() -> Iterator[Choice]:
    seen: set[tuple[Rung, ...]] = set()
    for strategy, rungs in RUNGS_OF.items():
        if not rungs or rungs in seen:
            continue
        seen.add(rungs)
        if "warm_pool" in rungs:
            yield Choice(f"{strategy}, stopped", strategy, pool="stopped")
            yield Choice(f"{strategy}, hot", strategy, pool="hot")
        elif "regional_volume" not in rungs:
            yield Choice(strategy, strategy)
        if "regional_volume" in rungs:
            name = strategy if strategy == "regional_volume" else f"{strategy}, volume"
            yield Choice(name, strategy, volume=True)
