"""The hand for object storage: its bucket, snapshots in time, and taking away what no snapshot needs.

Called by the runtime for failed and expired snapshots and deleted instances; `keep_bucket` and `take_in_time` are
background tasks. Machines put the objects there themselves, with URLs that `queries.storage` signs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import aiohttp

from libs.ids import derive_id
from libs.refusal import Refused, Transient
from libs.runtime.service import Handle, Job
from libs.s3 import Bucket, Objects
from proto.base import Command
from proto.instance.commands import RequestSnapshot
from proto.instance.events import InstanceDeleted, SnapshotFailed, SnapshotsExpired
from proto.instance.storage_keys import manifest_key, pack_prefix, snapshots_prefix
from services.instance.config import InstanceSettings
from services.instance.decider.snapshots import SCHEDULED
from services.instance.effects.world import World
from services.instance.queries import storage

DELETES_AT_ONCE_MAX = 16
LOOKS_PER_INTERVAL = 10
LOOK_PAUSE_S_MIN = 0.2
BUCKET_PAUSE_S = 2.0


def storage_of(settings: InstanceSettings, http: aiohttp.ClientSession) -> Objects | None:
    """The storage this installation has, if any."""
    if not settings.storage_url:
        return None
    about = (settings.storage_bucket, settings.storage_access_key, settings.storage_secret_key, settings.storage_region)
    return Objects(Bucket(settings.storage_url, *about), http)


async def forget_failed(job: Job, world: World) -> Sequence[Command]:
    """SnapshotFailed: what it had stored so far is no part of any snapshot."""
    event = job.heard.event
    assert isinstance(event, SnapshotFailed)
    await _delete_prefixes([pack_prefix(event.instance_id, event.snapshot_id)], world)
    return []


async def forget_expired(job: Job, world: World) -> Sequence[Command]:
    """SnapshotsExpired: the manifests, and the packs that only they needed."""
    event = job.heard.event
    assert isinstance(event, SnapshotsExpired)
    if world.storage is None:
        return []
    for snapshot_id in event.snapshot_ids:
        await world.storage.delete(manifest_key(event.instance_id, snapshot_id), world.clock.now())
    await _delete_prefixes([pack_prefix(event.instance_id, pack) for pack in event.packs], world)
    return []


async def forget_all(job: Job, world: World) -> Sequence[Command]:
    """InstanceDeleted: the customer's files go with the instance."""
    event = job.heard.event
    assert isinstance(event, InstanceDeleted)
    await _delete_prefixes([snapshots_prefix(event.instance_id)], world)
    return []


async def _delete_prefixes(prefixes: Iterable[str], world: World) -> None:
    if world.storage is None:
        return
    for prefix in prefixes:
        keys = await world.storage.list(prefix, world.clock.now())
        for first in range(0, len(keys), DELETES_AT_ONCE_MAX):
            batch = keys[first : first + DELETES_AT_ONCE_MAX]
            await asyncio.gather(*(world.storage.delete(key, world.clock.now()) for key in batch))


async def keep_bucket(world: World, handle: Handle) -> None:
    """Make the bucket once; the storage may come up after us."""
    del handle
    while world.storage is not None and not await _has_made_bucket(world.storage, world):
        await world.clock.sleep(BUCKET_PAUSE_S)


async def _has_made_bucket(storage: Objects, world: World) -> bool:
    try:
        await storage.make_bucket(world.clock.now())
    except Transient as unwell:
        world.logger.info("storage.unwell", cause=str(unwell))
        return False
    return True


async def take_in_time(world: World, handle: Handle) -> None:
    """Ready instances with a living agent are copied every `snapshot_interval_s`; 0 switches this off."""
    if world.storage is None or not world.snapshot_interval_s:
        return
    while True:
        await world.clock.sleep(max(LOOK_PAUSE_S_MIN, world.snapshot_interval_s / LOOKS_PER_INTERVAL))
        try:
            due = await storage.due_for_snapshot(
                world.pool, world.clock.now(), interval_s=world.snapshot_interval_s, heartbeat_s=world.heartbeat_s
            )
            for instance_id, last_id in due:
                await _request(instance_id, last_id, world, handle)
        except Transient as unwell:
            world.logger.info("snapshots.postponed", cause=str(unwell))


async def _request(instance_id: str, last_id: str, world: World, handle: Handle) -> None:
    """Named after the snapshot before it, so that a repeat of this look asks for the same one."""
    snapshot_id = derive_id("snap", instance_id, last_id)
    wish = RequestSnapshot(
        now=world.clock.now(),
        instance_id=instance_id,
        snapshot_id=snapshot_id,
        reason=SCHEDULED,
        has_storage=True,
    )
    try:
        await handle.execute(wish, cause="watch.snapshots")
    except Refused as refused:
        world.logger.info("snapshots.refused", code=refused.code, instance_id=instance_id)
