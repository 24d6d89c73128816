"""Which volume has the workspace of an instance. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator

from libs.runtime.service import Row
from proto.base import Heard
from proto.instance.events import VolumeAttached, VolumeGivenUp, VolumeOutdated, VolumeReleased, VolumeShared
from proto.instance.words import Volume


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one event."""
    match heard.event:
        case VolumeShared() as event:
            yield _instance(heard, Volume(event.volume_id, event.provider, event.host_id, event.size_gb))
        case VolumeAttached() as event:
            volume = Volume(
                volume_id=event.volume_id,
                provider=event.provider,
                host_id="",
                size_gb=event.size_gb,
                region=event.region,
                name=event.name,
                mount_path=event.mount_path,
            )
            yield _instance(heard, volume)
        case VolumeReleased() | VolumeOutdated() | VolumeGivenUp():
            yield _instance(heard, None)
        case _:
            return


def _instance(heard: Heard, volume: Volume | None) -> Row:
    return Row("instances", {"instance_id": heard.aggregate_id}, {"volume": volume})
