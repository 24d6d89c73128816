"""The volume of a region as instances, readiness and status show it. Pure field maps."""

from __future__ import annotations

from msgspec import Struct

from proto.failover.queries import Readiness
from proto.failover.words import RegionalVolumeSettings
from proto.instance.queries import InstanceView


class DumontVolume(Struct, frozen=True):
    """The volume of the region that is the workspace: it outlives machines."""

    volume_id: str
    region: str
    size_gb: int
    mount_path: str | None


class DumontStatusVolume(Struct, frozen=True, kw_only=True):
    """`enabled`: the strategy would use one; `active`: there is one. `config`: the settings that hold."""

    enabled: bool
    active: bool
    volume_id: str | None
    region: str | None
    config: RegionalVolumeSettings


def volume(view: InstanceView) -> DumontVolume | None:
    """None: the workspace is on its machine, or shared on its host."""
    kept = view.volume
    if kept is None or not kept.region:
        return None
    return DumontVolume(kept.volume_id, kept.region, kept.size_gb, kept.mount_path or None)


def volume_status(found: Readiness, view: InstanceView) -> DumontStatusVolume:
    kept = volume(view)
    return DumontStatusVolume(
        enabled=any(step.rung == "regional_volume" and step.reason != "not_in_strategy" for step in found.plan),
        active=kept is not None,
        volume_id=kept.volume_id if kept else None,
        region=kept.region if kept else None,
        config=found.regional_volume,
    )
