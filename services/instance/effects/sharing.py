"""The hand for volumes: what a standby shares with its primary is reported, and given back with the instance.

Called by `renting` (a standby is rented with the primary's workspace) and by the runtime for VolumeReleaseRequested.
"""

from __future__ import annotations

from collections.abc import Sequence

from libs.runtime.service import Job
from proto.base import Command
from proto.instance.commands import ReportVolumeReleased, ReportVolumeShared
from proto.instance.events import MachineRequested, VolumeReleaseRequested
from proto.instance.words import Volume
from services.instance.decider.instance import Instance
from services.instance.effects.world import World


def report_shared(event: MachineRequested, volume: Volume | None, world: World) -> Sequence[Command]:
    """What a standby shares with its primary."""
    if volume is None or not volume.volume_id:
        return []
    return [
        ReportVolumeShared(
            now=world.clock.now(),
            instance_id=event.instance_id,
            provider=volume.provider,
            host_id=volume.host_id,
            volume_id=volume.volume_id,
            size_gb=volume.size_gb,
        )
    ]


async def release_volumes(job: Job, world: World) -> Sequence[Command]:
    """VolumeReleaseRequested: wait until no machine has them, then give the volumes back. Those of a hibernated
    instance are forgotten by then, so there is nothing to report."""
    event = job.heard.event
    assert isinstance(event, VolumeReleaseRequested)
    state: Instance = job.state
    names = set(event.machine_ids) or set(state.shared_from)
    for provider in world.providers.values():
        if provider.capabilities.shared_volume:
            await provider.release_volumes(names)
    if event.machine_ids:
        return []
    return [ReportVolumeReleased(now=world.clock.now(), instance_id=event.instance_id)]
