"""What is remembered of an instance's hibernation: announced for when, which copy is being made, since when idle.

Used by `instance` (as a part of its state) and `hibernation`.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.events import (
    HibernationCancelled,
    HibernationScheduled,
    InstanceHibernated,
    InstanceHibernating,
    InstanceWaking,
    SnapshotRequested,
)
from proto.instance.hibernation_events import HibernationEvent


class Sleep(Struct, frozen=True):
    """`copies` of this hibernation so far, `copies_ever` of all: their ids derive from it."""

    will_at: datetime | None = None
    idle_since: datetime | None = None
    not_before: datetime | None = None
    snapshot_id: str = ""
    copies: int = 0
    copies_ever: int = 0
    wished: bool = False
    reason: str = ""
    price_usd_micros_per_hour: int = 0


def evolve(sleep: Sleep, event: HibernationEvent) -> Sleep:
    """Fold one fact."""
    match event:
        case HibernationScheduled():
            return replace(sleep, will_at=event.will_hibernate_at, idle_since=event.idle_since)
        case InstanceHibernating():
            return replace(
                sleep,
                idle_since=event.idle_since,
                snapshot_id=event.snapshot_id,
                copies=0,
                wished=event.wished,
                reason=event.reason,
                price_usd_micros_per_hour=event.price_usd_micros_per_hour,
            )
        case HibernationCancelled():
            return Sleep(not_before=event.not_before, copies_ever=sleep.copies_ever)
        case InstanceHibernated():
            return replace(sleep, will_at=None, snapshot_id=event.snapshot_id)
        case InstanceWaking():
            return Sleep(copies_ever=sleep.copies_ever)


def copying(sleep: Sleep, event: SnapshotRequested) -> Sleep:
    """One more copy for the hibernation that is under way."""
    return replace(sleep, snapshot_id=event.snapshot_id, copies=sleep.copies + 1, copies_ever=sleep.copies_ever + 1)


def ended(sleep: Sleep) -> Sleep:
    """The instance was interrupted, stopped or deleted: nothing is announced any more."""
    return Sleep(copies_ever=sleep.copies_ever)
