"""The hand for volumes: shared with a standby, made in a region for a machine, kept from the lost one, given back.

Called by `renting` (a machine is rented with its workspace's volume) and by the runtime for VolumeReleaseRequested.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from libs.runtime.service import Job
from proto.base import Command
from proto.instance.commands import ReportVolumeReleased, ReportVolumeShared
from proto.instance.events import MachineRequested, VolumeReleaseRequested
from proto.instance.words import Offer, Volume
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE
from services.instance.effects.world import World
from services.instance.providers import Provider


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


async def made_volume(event: MachineRequested, offer: Offer, provider: Provider) -> Volume | None:
    """A volume in the offer's region for the machine that is about to be rented, if it is to have one. Named after the
    machine, so that a second try meets the first one's; a cloud without such volumes makes none."""
    wish = event.volume
    if wish is None or not provider.capabilities.regional_volumes:
        return None
    volume_id = await provider.make_volume(name=event.machine_id, region=offer.region, size_gb=wish.size_gb)
    return _volume(event, volume_id, provider, offer.region)


async def adopted_volume(event: MachineRequested, volume_id: str, provider: Provider) -> Volume | None:
    """The volume that was made for a machine whose rent we do not remember."""
    listed = next((one for one in await provider.volumes() if one.volume_id == volume_id), None) if volume_id else None
    is_its_own = listed is not None and listed.region and listed.name == event.machine_id
    return _volume(event, volume_id, provider, listed.region) if listed and is_its_own else None


def _volume(event: MachineRequested, volume_id: str, provider: Provider, region: str) -> Volume:
    wish = event.volume
    return Volume(
        volume_id=volume_id,
        provider=provider.name,
        host_id="",
        size_gb=wish.size_gb if wish else 0,
        region=region,
        name=event.machine_id,
        mount_path=wish.mount_path if wish else "",
    )


async def fence(
    event: MachineRequested,
    state: Instance,
    world: World,
    *,
    give_back: Callable[[Provider, str, World], Awaitable[None]],
) -> None:
    """Whoever had the volume is given back at its cloud first: it can no longer write. Raises Transient until then.

    Their end is in the log already, and their own give-back meets what was done here.
    """
    for machine in state.machines:
        provider = world.providers.get(machine.provider)
        is_former = machine.machine_id != event.machine_id and machine.status not in LIVE
        if is_former and machine.on_volume and machine.has_contract and provider is not None:
            await give_back(provider, machine.provider_machine_id, world)


async def release_volumes(job: Job, world: World) -> Sequence[Command]:
    """VolumeReleaseRequested: wait until no machine has them, then give the volumes back. Those of a hibernated
    instance are forgotten by then, so there is nothing to report."""
    event = job.heard.event
    assert isinstance(event, VolumeReleaseRequested)
    state: Instance = job.state
    names = set(event.machine_ids) or set(state.shared_from)
    for provider in world.providers.values():
        if provider.capabilities.shared_volume or provider.capabilities.regional_volumes:
            for volume in await provider.volumes():
                if volume.name in names:
                    await provider.destroy_volume(volume.volume_id)
    if event.machine_ids:
        return []
    return [ReportVolumeReleased(now=world.clock.now(), instance_id=event.instance_id)]
