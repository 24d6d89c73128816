"""Volumes of a region: wished, made with a machine, the workspace from `ready` on, and kept when that machine is lost.

Called by `wishes.decide`, and by the rules about machines and starts. A volume belongs to the machine it was made for
until the instance is ready on it; from then on it is the instance's, until the instance is ready elsewhere, hibernates
or is deleted. What was made for a machine that never became ready is given back by the census.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proto.base import Event
from proto.instance.commands import WishVolume
from proto.instance.events import (
    VolumeAttached,
    VolumeGivenUp,
    VolumeOutdated,
    VolumeReleaseRequested,
    VolumeWished,
)
from proto.instance.words import Offer, Volume
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import Machine

RUNG = "regional_volume"
NO_VOLUME, NO_GPU = "no_volume", "no_gpu_in_region"


def wish(state: Instance, command: WishVolume) -> Sequence[Event]:
    """Takes effect with the next new machine: a workspace is not moved under a customer's hands."""
    if state.volume_wish == command.volume or state.status in ("deleting", "deleted"):
        return []
    return [VolumeWished(instance_id=state.instance_id, volume=command.volume)]


def of_region(state: Instance) -> Volume | None:
    """The volume of a region that has the instance's files, if one has."""
    return state.volume if state.volume is not None and state.volume.region else None


def offers_there(state: Instance, offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Those that could have the files: all of them when these are on no volume of a region."""
    volume = of_region(state)
    return tuple(offer for offer in offers if volume is None or volume.is_at(offer))


def settle(state: Instance, machine: Machine) -> Sequence[Event]:
    """The instance is ready on this machine: where its files are from now on."""
    old, new = state.volume, machine.volume
    if new is not None and (old is None or old.volume_id != new.volume_id):
        attached = VolumeAttached(
            instance_id=state.instance_id,
            account_id=state.account_id,
            machine_id=machine.machine_id,
            volume_id=new.volume_id,
            provider=new.provider,
            region=new.region,
            size_gb=new.size_gb,
            name=new.name,
            mount_path=new.mount_path,
        )
        return [*leave(state, "moved"), attached]
    is_elsewhere = not machine.on_volume and machine.mode is None
    return leave(state, "moved") if is_elsewhere else []


def leave(state: Instance, reason: str) -> Sequence[Event]:
    """What is on its volume is no longer the newest. That of a host is given back with the instance, that of a region,
    which costs, at once."""
    volume = state.volume
    if volume is None:
        return []
    if not volume.region:
        return [VolumeOutdated(instance_id=state.instance_id)]
    return [
        given_up(state, volume, reason),
        VolumeReleaseRequested(instance_id=state.instance_id, machine_ids=(volume.name,)),
    ]


def given_up(state: Instance, volume: Volume, reason: str) -> VolumeGivenUp:
    return VolumeGivenUp(
        instance_id=state.instance_id, account_id=state.account_id, volume_id=volume.volume_id, reason=reason
    )
