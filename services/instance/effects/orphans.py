"""What is reported of a machine or a volume at a cloud that no instance owns.

Called by the censuses (`watching`, `counting_volumes`) and by the hands that destroy orphans.
"""

from __future__ import annotations

from datetime import timedelta

from proto.instance.host_commands import OrphanKind, ReportOrphan, ReportOrphanGone
from services.instance.effects.world import World


def orphan(world: World, provider: str, key: str, label: str, *, kind: OrphanKind = "machine") -> ReportOrphan:
    """It may be destroyed when the grace period is over; `key` is the cloud's id."""
    now = world.clock.now()
    return ReportOrphan(
        now=now,
        provider=provider,
        provider_machine_id=key,
        label=label,
        destroy_after=now + timedelta(seconds=world.orphan_grace_s),
        kind=kind,
    )


def gone(world: World, provider: str, key: str) -> ReportOrphanGone:
    """The cloud has it no more, or an instance has come to own it."""
    return ReportOrphanGone(now=world.clock.now(), provider=provider, provider_machine_id=key)
