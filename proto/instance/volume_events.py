"""Facts of the instance service about workspaces that outlive their machine: volumes of a host, and of a region.

Part of the `instance` aggregate (see `events`, whose union has them).
"""

from __future__ import annotations

from proto.base import Event
from proto.instance.words import VolumeWish


class VolumeWished(Event, tag="volume.wished", kw_only=True, frozen=True):
    """From its next new machine on, the workspace is to be on a volume of the region; None: no longer."""

    instance_id: str
    volume: VolumeWish | None = None


class VolumeAttached(Event, tag="volume.attached", kw_only=True, frozen=True):
    """The workspace is on this volume of the region now. It stays when the machine is lost, and costs until it is given
    up."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    volume_id: str
    provider: str
    region: str
    size_gb: int
    name: str
    mount_path: str = ""


class VolumeGivenUp(Event, tag="volume.given_up", kw_only=True, frozen=True):
    """The workspace is no longer on this volume of the region, which is given back. `reason`: moved, hibernated."""

    public = True
    instance_id: str
    account_id: str
    volume_id: str
    reason: str


class VolumeShared(Event, tag="volume.shared", kw_only=True, frozen=True):
    """The primary's workspace is a volume now, which other machines on its host can have as theirs."""

    instance_id: str
    provider: str
    host_id: str
    volume_id: str
    size_gb: int


class VolumeReleaseRequested(Event, tag="volume.release_requested", kw_only=True, frozen=True):
    """Its volumes go when no machine has them any more: those named after `machine_ids`, or, when the instance is
    being deleted, all (none are named)."""

    instance_id: str
    machine_ids: tuple[str, ...] = ()


class VolumeOutdated(Event, tag="volume.outdated", kw_only=True, frozen=True):
    """The instance is ready on a machine that has its files elsewhere: what is in the volume is no longer the newest,
    and no machine is rented for it any more. It is given back with the instance."""

    instance_id: str


class VolumeReleased(Event, tag="volume.released", kw_only=True, frozen=True):
    instance_id: str
