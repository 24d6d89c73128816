"""Which strategies the market is replayed for, and how each is asked for: as a customer would, over HTTP.

Used by the market simulation. Nothing here imitates a rung. A strategy that comes to the same rungs as another is left
out; a warm pool and a volume of a region exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from proto.failover.words import (
    LADDER,
    RUNGS_OF,
    GlobalPatch,
    RegionalVolumePatch,
    Rung,
    StandbyMode,
    Strategy,
    WarmPoolPatch,
)
from proto.instance.words import BillingMode

VOLUME_GB = 100
RUNG_S_MAX = 600  # a machine boots for up to three minutes, and may have to be rented twice
SECOND_GPU = "A10G"
_VOLUME = GlobalPatch(
    regional_volume=RegionalVolumePatch(enabled=True, volume_size_gb=VOLUME_GB, failover_timeout_seconds=RUNG_S_MAX)
)


class Choice(Struct, frozen=True):
    """What a customer has chosen. `strategy`: of each create. `settings`: put for the account before. `order`: the
    `strategy_order` of each instance. `second_gpu`: the market has hosts of that model too."""

    name: str
    strategy: Strategy
    billing: BillingMode = "spot"
    settings: GlobalPatch = GlobalPatch()
    order: tuple[Rung, ...] = LADDER
    second_gpu: bool = False


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
            yield Choice(f"{strategy}, stopped", strategy, settings=_pool("stopped"))
            yield Choice(f"{strategy}, hot", strategy, settings=_pool("hot"))
        elif "regional_volume" not in rungs:
            yield Choice(strategy, strategy)
        if "regional_volume" in rungs:
            name = strategy if strategy == "regional_volume" else f"{strategy}, volume"
            chosen = Choice(name, strategy, settings=_VOLUME, order=("regional_volume",))
            yield chosen
            if strategy == "regional_volume":
                names = replace(_VOLUME, warm_pool=WarmPoolPatch(preferred_gpu_names=(SECOND_GPU,)))
                yield replace(chosen, name=f"{name}, 2 GPUs", settings=names, second_gpu=True)


def _pool(mode: StandbyMode) -> GlobalPatch:
    return GlobalPatch(warm_pool=WarmPoolPatch(standby_mode=mode))
