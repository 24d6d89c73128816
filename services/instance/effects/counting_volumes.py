"""The census of volumes: what a cloud keeps for us in a region and no instance has is an orphan, as a machine is.

Called by `watching` in its pass over the cloud, and by the runtime when an orphan's grace is over. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from libs.runtime.service import Job
from proto.base import Command
from proto.instance.host_events import OrphanDestroyRequested
from services.instance.effects.orphans import gone, orphan
from services.instance.effects.world import World
from services.instance.providers import Provider, ProviderVolume
from services.instance.queries import contracts


class VolumeCensus:
    """One cloud's volumes. `_unknown_since`: those that nobody seems to have, and since when."""

    def __init__(self, provider: Provider, world: World, report: Callable[[Command], Awaitable[None]]) -> None:
        self._provider = provider
        self._world = world
        self._report = report
        self._unknown_since: dict[str, float] = {}

    async def take(self) -> None:
        if not self._provider.capabilities.regional_volumes:
            return
        world, now_s = self._world, self._world.clock.monotonic_s()
        strays = {one.volume_id: one for one in await _strays(self._provider, world)}
        self._unknown_since = {key: self._unknown_since.get(key, now_s) for key in strays}
        reported = await contracts.open_orphans(world.pool, self._provider.name, "volume")
        for key, since_s in self._unknown_since.items():
            if now_s - since_s >= world.orphan_seen_s and key not in reported:
                await self._report(orphan(world, self._provider.name, key, strays[key].name, kind="volume"))
        for key in reported - strays.keys():
            await self._report(gone(world, self._provider.name, key))


async def _strays(provider: Provider, world: World) -> Sequence[ProviderVolume]:
    """Volumes of regions that this platform made for a machine and that no instance has. The cloud is asked first: what
    is made after that is not judged by rows that were read before."""
    listed = [one for one in await provider.volumes() if one.region]
    wanted = await contracts.wanted_volumes(world.pool) if listed else set[str]()
    return [one for one in listed if one.volume_id not in wanted and one.name not in wanted]


async def destroy_orphan_volume(job: Job, provider: Provider, world: World) -> Sequence[Command]:
    """Give back a volume that nobody has, unless somebody has come to have it meanwhile."""
    event = job.heard.event
    assert isinstance(event, OrphanDestroyRequested)
    for volume in await _strays(provider, world):
        if volume.volume_id == event.provider_machine_id:
            await provider.destroy_volume(volume.volume_id)
    return [gone(world, event.provider, event.provider_machine_id)]
