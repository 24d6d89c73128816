"""What is remembered of the way back from a CPU machine to a GPU: whether it is wanted, and how far it has come.

Used by `instance` (as a part of its state) and `gpu_return`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.return_events import (
    GpuReturning,
    HandedOver,
    HandoverRequested,
    ReturnAbandoned,
    ReturnCopied,
    Returned,
    ReturnEvent,
    ReturnTryFailed,
    ReturnWanted,
)

Stage: TypeAlias = Literal["none", "searching", "filling", "handing_over", "handed_over"]


class WayBack(Struct, frozen=True):
    """`due_at`: the next try while searching, else when this try is given up. `machine_id`: the GPU machine of it."""

    is_wanted: bool = False
    stage: Stage = "none"
    cpu_machine_id: str = ""
    wanted_at: datetime | None = None
    due_at: datetime | None = None
    attempts_failed: int = 0
    machine_id: str = ""
    cycle: int = 0
    copies: int = 0
    handed_over_at: datetime | None = None  # the instant of the last copy

    @property
    def is_on_cpu(self) -> bool:
        """The CPU machine carries the instance, and a GPU is looked for or filled."""
        return self.stage in ("searching", "filling", "handing_over")


NO_WAY_BACK = WayBack()


def evolve(way: WayBack, event: ReturnEvent) -> WayBack:
    """Fold one fact."""
    match event:
        case ReturnWanted():
            return WayBack(True, "searching", event.cpu_name, event.wanted_at, event.try_at)
        case GpuReturning():
            return replace(way, stage="filling", machine_id=event.machine_id, due_at=event.give_up_at)
        case ReturnTryFailed():
            return WayBack(True, "searching", event.cpu_name, way.wanted_at, event.retry_at, event.attempts)
        case ReturnCopied():
            return replace(way, cycle=event.cycle, copies=way.copies + 1)
        case HandoverRequested():
            return replace(way, stage="handing_over", due_at=event.give_up_at)
        case HandedOver():
            return replace(way, stage="handed_over", due_at=None, handed_over_at=event.captured_at)
        case Returned():
            return NO_WAY_BACK
        case ReturnAbandoned():
            return WayBack(is_wanted=way.is_on_cpu)
