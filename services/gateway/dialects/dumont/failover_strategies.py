"""The strategies of contract dumont 3, in words for a person, with how long each takes."""

from __future__ import annotations

from msgspec import Struct

from proto.failover.words import RUNGS_OF, Rung

# Seconds from the loss to the instance being ready, of the losses that the rung answered: p5 and p95 on the market of
# docs/survival.md (2026-11-22). `just sim market --json` has them from when the loss was noticed, up to ten seconds
# later (`ready`): that is all that a hot standby takes. A stopped one is at the upper end; its 60 is contract dumont 3.
# For the others the contract has the original's guesses: 10 to 20 minutes, 30-60 s, 30-120 s.
ETA_S: dict[Rung, tuple[int, int]] = {
    "warm_pool": (1, 60),
    "cpu_standby": (4, 18),
    "regional_volume": (45, 180),
    "cloud_storage": (120, 325),
}


class DumontEta(Struct, frozen=True):
    min: int
    max: int


class DumontStrategy(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    description: str
    recovery_time: str
    cost: str
    requirements: list[str]
    eta_seconds: DumontEta | None
    available: bool


class DumontStrategies(Struct, frozen=True):
    strategies: list[DumontStrategy]


def _strategy(told: tuple[str, str, str, str, str], requirements: list[str], rungs: tuple[Rung, ...]) -> DumontStrategy:
    """`told`: id, name, description, cost, recovery time."""
    strategy, name, description, cost, recovery_time = told
    etas = [ETA_S[rung] for rung in rungs]
    return DumontStrategy(
        id=strategy,
        name=name,
        description=description,
        recovery_time=recovery_time,
        cost=cost,
        requirements=requirements,
        eta_seconds=DumontEta(min(eta[0] for eta in etas), max(eta[1] for eta in etas)) if etas else None,
        available=True,
    )


_POOL = "a second free GPU on the machine's host and a provider with shared volumes"
_VM = "a CPU standby in sync"
_REGION = "a workspace on a volume of its region (settings: regional_volume), and a free GPU there"
_BUCKET = "a snapshot in object storage"
STRATEGIES = [
    _strategy(
        ("warm_pool", "GPU warm pool", "A standby GPU on the same host takes over with the same volume.",
         "volume only while the standby is stopped; a second GPU while it is hot",
         "1-10 seconds (hot), 20-60 seconds (stopped)"), [_POOL], ("warm_pool",)),
    _strategy(
        ("cpu_standby", "CPU standby", "A CPU machine with a synced copy serves until there is a GPU again.",
         "CPU machine and its disk", "4-18 seconds to serve without a GPU; then a GPU as soon as one is to be had"),
        [_VM], ("cpu_standby",)),
    _strategy(
        ("both", "Warm pool, then CPU standby", "The default.", "sum of both", "as the rung that succeeds"),
        [_POOL, _VM], RUNGS_OF["both"]),
    _strategy(
        ("regional_volume", "Regional volume", "A new GPU in the region gets the volume that is the workspace.",
         "volume storage", "1-3 minutes, the boot of a machine"), [_REGION], ("regional_volume",)),
    _strategy(
        ("cloud_storage", "Cloud storage", "A new GPU anywhere restores from object storage.", "object storage",
         "2-6 minutes, the boot of a machine and the copy of the files"), [_BUCKET], ("cloud_storage",)),
    _strategy(
        ("all", "Every rung in order", "Warm pool, CPU standby, regional volume, cloud storage.", "sum of all",
         "as the rung that succeeds"), [_POOL, _VM, _REGION, _BUCKET], RUNGS_OF["all"]),
    _strategy(
        ("disabled", "No failover", "A lost machine stays lost until it is started again.", "none", "manual"), [], ()),
]  # fmt: skip
