"""The background task that sees to it that whoever is to have a CPU standby has one. Run by the lease holder.

A standby that was lost, or for which there was no offer, is looked for again at the next look.
"""

from __future__ import annotations

from libs.ids import derive_id
from libs.refusal import Refused, Transient
from libs.runtime.service import Handle
from proto.instance.commands import RequestCpuStandby
from services.instance.effects.intake import with_cpu_offers
from services.instance.effects.world import World
from services.instance.queries import contracts

LOOK_PAUSE_S = 10.0


async def keep_cpu_standbys(world: World, handle: Handle) -> None:
    """Look for ever; an unwell database only postpones it."""
    while True:
        await world.clock.sleep(min(LOOK_PAUSE_S, world.poll_s))
        try:
            for instance_id in await contracts.without_cpu_standby(world.pool):
                await _request(instance_id, world, handle)
        except Transient as unwell:
            world.logger.info("cpu_standbys.postponed", cause=str(unwell))


async def _request(instance_id: str, world: World, handle: Handle) -> None:
    now = world.clock.now()
    wish = RequestCpuStandby(
        now=now, instance_id=instance_id, machine_id=derive_id("mach", instance_id, "cpu", now.isoformat())
    )
    wish = await with_cpu_offers(wish, world)
    try:
        await handle.execute(wish, cause="watch.cpu_standbys")
    except Refused as refused:
        world.logger.info("cpu_standbys.refused", code=refused.code, instance_id=instance_id)
