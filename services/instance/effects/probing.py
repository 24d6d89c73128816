"""The hand that proves a booted machine healthy: connects to its tcp ports and asks its http ports.

Called by the runtime for MachineBooted, for MachineRestored (a machine that is being filled is not probed before), and
for MachinePromoted when the standby is up already. Rules (contract novita A7): every endpoint, or only the target port,
must answer; 200-399 is healthy; refusals, timeouts and 5xx are tried again with a growing, jittered pause; 4xx is
final; without a port it is healthy at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, TypeAlias

import aiohttp

from libs.bodies import read_at_most
from libs.runtime.service import Job
from proto.base import Command, Heard
from proto.instance.commands import ReportFailed, ReportHealthy
from proto.instance.events import MachineBooted, MachinePromoted, MachineRestored
from proto.instance.words import Endpoint, HealthCheck
from services.instance.decider.machine import is_being_restored
from services.instance.effects.renting import machine_of
from services.instance.effects.world import World
from services.instance.queries import contracts

BODY_BYTES_MAX = 4_096  # enough to recognise a proxy's error page
PROXY_ERRORS = (b"bad gateway", b"upstream error")
JITTER_MIN, JITTER_MAX = 0.5, 1.5
PAUSE_MAX_S = 30.0  # a service that takes minutes to load should not wait as long again to be noticed

Proven: TypeAlias = MachineBooted | MachinePromoted | MachineRestored
Verdict = Literal["healthy", "not_yet", "broken", "unwanted"]


async def probe(job: Job, world: World) -> Sequence[Command]:
    """Report healthy or failed; nothing when the machine is no longer wanted."""
    event = job.heard.event
    assert isinstance(event, MachineBooted | MachinePromoted | MachineRestored)
    machine = machine_of(job, event.machine_id)
    if machine is None or machine.status != "booted" or is_being_restored(machine):
        return []
    targets = _targets(machine.endpoints, event.health_check)
    if targets is None:
        return [_failed(event, world, "HEALTH_CHECK_FAILED", f"port {event.health_check.target_port} is not exposed")]
    verdict = await _probe_all(job.heard, event, targets, world)
    match verdict:
        case "healthy":
            now = world.clock.now()
            return [ReportHealthy(now=now, instance_id=event.instance_id, machine_id=event.machine_id)]
        case "not_yet":
            waited_s = event.health_check.wait_max_ms // 1000
            return [_failed(event, world, "HEALTH_CHECK_TIMEOUT", f"not every port answered within {waited_s} s")]
        case "broken":
            return [_failed(event, world, "HEALTH_CHECK_FAILED", "a port answered with a client error")]
        case "unwanted":
            return []


def _targets(endpoints: Sequence[Endpoint], check: HealthCheck) -> Sequence[Endpoint] | None:
    """What must answer; None when the target port is not there at all."""
    if not check.target_port:
        return endpoints
    chosen = [endpoint for endpoint in endpoints if endpoint.port == check.target_port]
    return chosen or None


def _failed(event: Proven, world: World, code: str, reason: str) -> ReportFailed:
    return ReportFailed(
        now=world.clock.now(),
        instance_id=event.instance_id,
        machine_id=event.machine_id,
        stage="connecting",
        code=code,
        reason=reason,
    )


async def _probe_all(heard: Heard, event: Proven, targets: Sequence[Endpoint], world: World) -> Verdict:
    """Endpoints side by side; the first that is broken or unwanted decides for all."""
    probes = [asyncio.create_task(_probe_until_known(heard, event, target, world)) for target in targets]
    try:
        async with asyncio.timeout(event.health_check.wait_max_ms / 1000):
            for known in asyncio.as_completed(probes):
                if (verdict := await known) != "healthy":
                    return verdict
    except TimeoutError:
        return "not_yet"
    finally:
        for each in probes:
            each.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
    return "healthy"


async def _probe_until_known(heard: Heard, event: Proven, target: Endpoint, world: World) -> Verdict:
    """Rounds of `retries_max` tries with growing pauses, until the total wait (our caller's) is over."""
    check = event.health_check
    attempt = 0
    while True:
        verdict = await _probe_once(target, check.timeout_ms / 1000, world)
        if verdict != "not_yet":
            return verdict
        jitter = world.random.uniform(JITTER_MIN, JITTER_MAX)
        pause_s = min(check.retry_delay_ms / 1000 * 2**attempt, PAUSE_MAX_S) * jitter
        await world.clock.sleep(pause_s)
        attempt = attempt + 1 if attempt < check.retries_max else 0
        if await contracts.has_left(world.pool, event.machine_id, "booted", since=heard.at):
            return "unwanted"


async def _probe_once(target: Endpoint, timeout_s: float, world: World) -> Verdict:
    try:
        async with asyncio.timeout(timeout_s):
            if target.protocol == "tcp":
                return await _connect(target)
            return await _ask(target, world)
    except (OSError, TimeoutError, aiohttp.ClientError):
        return "not_yet"


async def _connect(target: Endpoint) -> Verdict:
    _, writer = await asyncio.open_connection(target.host, target.public_port)
    writer.close()
    return "healthy"


async def _ask(target: Endpoint, world: World) -> Verdict:
    url = f"http://{target.host}:{target.public_port}/"
    async with world.http.get(url, allow_redirects=False) as answer:
        if answer.status >= 500:
            return "not_yet"
        if answer.status >= 400:
            return "broken"
        body = (await read_at_most(answer, BODY_BYTES_MAX)).lower()
        return "not_yet" if any(mark in body for mark in PROXY_ERRORS) else "healthy"
