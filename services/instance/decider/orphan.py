"""A machine or a volume at a provider that no instance owns: found by the census, destroyed after a grace period.

The grace period lets a slow rent be adopted first, and an operator look.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from proto.base import Event
from proto.instance.host_commands import DestroyOrphan, OrphanCommand, ReportOrphan, ReportOrphanGone
from proto.instance.host_events import OrphanDestroyed, OrphanDestroyRequested, OrphanEvent, OrphanFound
from proto.instance.words import OrphanKind


class Orphan(Struct, frozen=True):
    status: Literal["found", "destroying", "gone"]
    destroy_after: datetime
    label: str = ""
    kind: OrphanKind = "machine"


# None: never seen as an orphan.
OrphanState: TypeAlias = Orphan | None


def decide(state: OrphanState, command: OrphanCommand) -> Sequence[Event]:
    """One orphan from found to gone. Seen again after it was gone, it is found again."""
    about = {"provider": command.provider, "provider_machine_id": command.provider_machine_id}
    match command:
        case ReportOrphan():
            if state is not None and state.status != "gone":
                return []
            return [OrphanFound(**about, label=command.label, destroy_after=command.destroy_after, kind=command.kind)]
        case DestroyOrphan():
            if state is None or state.status != "found" or command.now < state.destroy_after:
                return []
            return [OrphanDestroyRequested(**about, label=state.label, kind=state.kind)]
        case ReportOrphanGone():
            return [] if state is None or state.status == "gone" else [OrphanDestroyed(**about)]
        case _:
            raise TypeError(f"{type(command).__name__} is not a wish for an orphan")


def evolve(state: OrphanState, event: OrphanEvent) -> OrphanState:
    match event:
        case OrphanFound():
            return Orphan("found", event.destroy_after, event.label, event.kind)
        case OrphanDestroyRequested():
            assert state is not None, "an orphan is found before it is destroyed"
            return replace(state, status="destroying")
        case OrphanDestroyed():
            assert state is not None, "an orphan is found before it is gone"
            return replace(state, status="gone")
