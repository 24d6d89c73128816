"""The background task that notices agents that have gone silent, asks their cloud, and reports.

Run by the replica that holds the lease. Heartbeats reach us through our own gateway, so a silence may be ours: it is
counted from when this watch began at the earliest, and while most agents are silent at once, none is given up for it.
Rule: contract dumont 6 (three missed heartbeats, or as many as the account says, are told; 300 s, or a cloud that
disagrees, is a loss).
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from libs.refusal import Refused, Transient
from libs.runtime.service import Handle
from proto.base import Command
from proto.instance.commands import ReportHeard, ReportSilence
from services.instance.effects.world import World
from services.instance.queries import cares, contracts
from services.instance.queries.contracts import Silent

LOOKS_PER_HEARTBEAT = 3
# With fewer agents, all of them silent proves nothing about us.
AGENTS_FOR_A_VERDICT_MIN = 3
CHECKS_AT_ONCE_MAX = 32


async def watch_agents(world: World, handle: Handle) -> None:
    """Look for ever; an unwell database or cloud only postpones it."""
    began_at, pace_s = world.clock.now(), world.heartbeat_s
    while True:
        await world.clock.sleep(pace_s / LOOKS_PER_HEARTBEAT)
        try:
            await _look(began_at, world, handle)
            pace_s = await _pace_s(world)
        except Transient as unwell:
            world.logger.info("silence.postponed", cause=str(unwell))


async def _pace_s(world: World) -> float:
    """Of the agents that report most often."""
    check_s = await cares.shortest_check_s(world.pool, world.poll_s)
    return world.heartbeat_s if check_s >= world.poll_s else min(world.heartbeat_s, check_s)


async def _look(began_at: datetime, world: World, handle: Handle) -> None:
    now = world.clock.now()
    usual = contracts.Patience(world.heartbeat_s, world.heartbeat_misses_max, world.poll_s)
    found = await contracts.silent_agents(world.pool, now, usual)
    if not found:
        return
    silent = [one for one in found if now - max(one.last_seen_at, began_at) >= one.patience]
    heard = [one for one in found if one.known_since is not None and one.last_seen_at > one.known_since]
    for one in heard:
        report = ReportHeard(now=now, instance_id=one.instance_id, machine_id=one.machine_id, seen_at=one.last_seen_at)
        await _report(report, world, handle)
    is_ours = len(silent) >= AGENTS_FOR_A_VERDICT_MIN and 2 * len(silent) > await contracts.count_agents(world.pool)
    checks = asyncio.Semaphore(CHECKS_AT_ONCE_MAX)

    async def check(one: Silent) -> None:
        """What cannot be told now is met at the next look. Raised, it would cancel the others and end the watch."""
        async with checks:
            since = max(one.last_seen_at, began_at)
            try:
                await _report(await _verdict(one, now, since, is_ours, world), world, handle)
            except Transient as unwell:
                world.logger.info("silence.postponed", machine_id=one.machine_id, cause=str(unwell))

    async with asyncio.TaskGroup() as group:
        for one in silent:
            group.create_task(check(one))


async def _verdict(one: Silent, now: datetime, since: datetime, is_ours: bool, world: World) -> ReportSilence:
    """What the silence means, with what the cloud says about the machine."""
    silent_s = (now - since).total_seconds()
    provider = world.providers.get(one.provider)
    try:
        observed = None if provider is None else await provider.get(one.provider_machine_id)
    except Transient:
        observed = None  # a cloud that does not answer neither agrees nor disagrees
    disagrees = observed is not None and observed.status != "running"
    is_lost = disagrees or (silent_s >= world.heartbeat_loss_s and not is_ours)
    detail = f"no heartbeat for {silent_s:.0f} s"
    if observed is not None:
        detail += f"; the cloud says {observed.status}"
    return ReportSilence(
        now=now,
        instance_id=one.instance_id,
        machine_id=one.machine_id,
        last_seen_at=one.last_seen_at,
        missed=int(silent_s // one.pace_s),
        is_lost=is_lost,
        detail=detail,
    )


async def _report(report: Command, world: World, handle: Handle) -> None:
    try:
        await handle.execute(report, cause="watch.agents")
    except Refused as refused:
        world.logger.info("silence.refused", code=refused.code)
