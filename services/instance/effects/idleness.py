"""Hibernation's hands: the watch that says who is idle, and the check that a copy is in storage before anything goes.

The watch is run by the replica that holds the lease, the check by the runtime for SnapshotCompleted. Idle is what fresh
heartbeats say: a GPU that is measured and rests, and nobody logged in. What is not measured is not idle.
"""

from __future__ import annotations

from collections.abc import Sequence

from libs.refusal import Refused, Transient
from libs.runtime.service import Handle, Job
from proto.base import Command
from proto.instance.commands import ReportBusy, ReportIdle, ReportSnapshotChecked
from proto.instance.events import SnapshotCompleted
from proto.instance.storage_keys import manifest_key, pack_key, pack_prefix
from services.instance.decider.instance import HIBERNATION, Instance
from services.instance.effects.world import World
from services.instance.queries import hibernation
from services.instance.queries.hibernation import Idle

LOOK_PAUSE_S_MIN, LOOK_PAUSE_S_MAX = 0.1, 30.0  # contract dumont 5: looked at every 30 s
LOOKS_PER_NOTICE = 4


async def watch_idleness(world: World, handle: Handle) -> None:
    """Look for ever. Without storage nothing is hibernated by itself: there is nowhere for the files to go."""
    if world.storage is None or not world.hibernate_idle_s:
        return
    pause_s = min(max(world.hibernate_notice_s / LOOKS_PER_NOTICE, LOOK_PAUSE_S_MIN), LOOK_PAUSE_S_MAX)
    while True:
        await world.clock.sleep(pause_s)
        try:
            await _look(world, handle)
        except Transient as unwell:
            world.logger.info("idleness.postponed", cause=str(unwell))


async def _look(world: World, handle: Handle) -> None:
    found = await hibernation.idle_or_announced(
        world.pool,
        world.clock.now(),
        idle_s=max(0.0, world.hibernate_idle_s - world.hibernate_notice_s),
        alive_s=world.heartbeat_s * world.heartbeat_misses_max,
    )
    for one in found:
        try:
            await handle.execute(_report(one, world), cause="watch.idleness")
        except Refused as refused:
            world.logger.info("idleness.refused", code=refused.code, instance_id=one.instance_id)


def _report(one: Idle, world: World) -> Command:
    now = world.clock.now()
    if one.idle_since is None:
        reason = "in_use" if one.is_heard else "agent_silent"
        return ReportBusy(now=now, instance_id=one.instance_id, machine_id=one.machine_id, reason=reason)
    return ReportIdle(
        now=now,
        instance_id=one.instance_id,
        machine_id=one.machine_id,
        idle_since=one.idle_since,
        idle_s=int(world.hibernate_idle_s),
        notice_s=int(world.hibernate_notice_s),
    )


async def check_copy(job: Job, world: World) -> Sequence[Command]:
    """SnapshotCompleted: look for every object of a copy that a machine is to be given back for."""
    event = job.heard.event
    assert isinstance(event, SnapshotCompleted)
    if event.reason != HIBERNATION:
        return []
    missing = await _missing(event, world)
    return [
        ReportSnapshotChecked(
            now=world.clock.now(),
            instance_id=event.instance_id,
            snapshot_id=event.snapshot_id,
            is_whole=not missing,
            has_added=_has_added(event, job.state),
            detail=missing,
        )
    ]


async def _missing(event: SnapshotCompleted, world: World) -> str:
    """What is not in the storage, empty when all is."""
    if world.storage is None:
        return "there is no storage"
    if await world.storage.get(manifest_key(event.instance_id, event.snapshot_id), world.clock.now()) is None:
        return "its manifest is not in the storage"
    for pack in event.packs:
        keys = set(await world.storage.list(pack_prefix(event.instance_id, pack), world.clock.now()))
        expected = {pack_key(event.instance_id, pack, number) for number in range(len(keys))}
        if not keys or keys != expected:
            return f"pack {pack} is not whole in the storage"
    return ""


def _has_added(event: SnapshotCompleted, state: Instance) -> bool:
    """Whether it differs from the copy before it."""
    before = [kept for kept in state.vault.kept if kept.captured_at < event.captured_at]
    if not before or event.snapshot_id in event.packs or not event.is_point_in_time:
        return True
    return (before[-1].files, before[-1].bytes) != (event.files, event.bytes)
