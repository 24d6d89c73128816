"""Wishes and reports about workspaces that outlive their machine. Part of `commands.AnyCommand`."""

from __future__ import annotations

from proto.instance.snapshot_commands import InstanceCommand
from proto.instance.words import VolumeWish


class WishVolume(InstanceCommand, tag="wish_volume", frozen=True, kw_only=True):
    """What the customer's settings say now: it takes effect with the next new machine."""

    account_id: str
    volume: VolumeWish | None = None


class ReportVolumeShared(InstanceCommand, tag="report_volume_shared", frozen=True, kw_only=True):
    provider: str
    host_id: str
    volume_id: str
    size_gb: int


class ReportVolumeReleased(InstanceCommand, tag="report_volume_released", frozen=True, kw_only=True):
    pass
