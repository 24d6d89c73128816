"""Run one service: serve the bus on every replica, and on the one that holds the lease also project, relay, react and
keep time.

Called by each service's `__main__` and by `libs.sim`. Owns the life of all its tasks: one TaskGroup, so that a bug in
any of them ends the process (the supervisor restarts it) and a stop ends them all.

Cast: `Serving` answers requests; `Projector` turns own events into rows; `Relay` tells the public ones to everybody;
`Hands` reacts and touches the world; `Deadlines` issues what has fallen due; the service's own `tasks` watch the
outside. The lease is not needed for correctness (cursors are fenced, effects idempotent): it keeps replicas from doing
work twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from libs.refusal import Transient
from libs.runtime.aggregates import Aggregates
from libs.runtime.codec import stream_of
from libs.runtime.courtesy import Courtesy
from libs.runtime.deadlines import Deadlines
from libs.runtime.hands import Counts, Hands
from libs.runtime.instruments import Instruments
from libs.runtime.listening import OwnStream
from libs.runtime.projecting import Progress, Projector
from libs.runtime.relaying import Relay
from libs.runtime.service import Service
from libs.runtime.serving import Serving
from libs.runtime.store import PROJECT_CURSOR
from libs.runtime.surroundings import Surroundings
from proto.health import ServiceHealth

LEASE_RETRY_S = 0.2
LAG_EVENTS_READY_MAX = 5_000  # above this a reader would wait longer than its read-your-writes limit
HEAD_CHECK_MAX_S = 1.0
VERSION = "1.0.0"


async def run(service: Service, around: Surroundings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Returns after everything has been cancelled; raises on a bug."""
    progress = Progress(around.recent)
    instruments, courtesy = Instruments(around.metrics, progress), Courtesy()
    aggregates = Aggregates(service, around.log, around.clock, around.ids, instruments.appends)
    own = OwnStream(service, around.log, courtesy)
    relay = Relay(service.name, own, around.log, around.store, around.clock)
    hands = Hands(service, around, aggregates, own, instruments, courtesy=courtesy)
    health = _Health(service.name, around, progress, relay, hands.counts)
    serving = Serving(
        service, around, aggregates, progress, health=health.tell, seconds=instruments.requests, courtesy=courtesy
    )
    projector = Projector(own, around.store, service.project, progress, around.clock)
    deadlines = Deadlines(service, around, aggregates, progress)

    async def lead() -> None:
        async with around.store.lease(service.name):
            around.logger.info("lease.held", service=service.name)
            last_seq = await around.log.last_seq(own.stream)
            async with asyncio.TaskGroup() as group:
                group.create_task(own.read(last_seq))  # first, so that who stands at the end reads along
                group.create_task(projector.run())
                group.create_task(relay.run())
                group.create_task(hands.run(last_seq))
                group.create_task(deadlines.run())
                for task in service.tasks:
                    group.create_task(task(around.world, aggregates))

    async with asyncio.TaskGroup() as group:
        await around.bus.serve(service.name, serving.answer)
        leading = group.create_task(_again_after_unwell(lead, around))
        around.ready()
        await stop.wait()
        leading.cancel()


async def _again_after_unwell(lead: Callable[[], Any], around: Surroundings) -> None:
    """Hold the lease again and again: losing the database connection is not a bug."""
    while True:
        try:
            await lead()
        except* Transient as unwell:
            around.logger.info("lease.lost", cause=repr(unwell.exceptions[0]))
        await around.clock.sleep(LEASE_RETRY_S)


class _Health:
    """The service's verdict on itself, for `/readyz` and `/health`."""

    def __init__(self, name: str, around: Surroundings, progress: Progress, relay: Relay, counts: Counts) -> None:
        self._name = name
        self._around = around
        self._progress = progress
        self._relay = relay
        self._counts = counts
        self._started_s = around.clock.monotonic_s()

    async def tell(self) -> ServiceHealth:
        reasons: list[str] = []
        head = projected = 0
        try:
            async with asyncio.timeout(HEAD_CHECK_MAX_S):
                head = await self._around.log.last_seq(stream_of(self._name))
        except (Transient, TimeoutError):
            reasons.append("the event log does not answer")
        try:
            async with asyncio.timeout(HEAD_CHECK_MAX_S):
                projected, _ = await self._around.store.cursor(PROJECT_CURSOR)
        except (Transient, TimeoutError):
            reasons.append("the database does not answer")
        lag = max(0, head - projected)
        if not reasons and lag > LAG_EVENTS_READY_MAX:
            reasons.append(f"the projection is {lag} commits behind, {LAG_EVENTS_READY_MAX} are allowed")
        return ServiceHealth(
            service=self._name,
            ready=not reasons,
            reasons=reasons,
            version=VERSION,
            uptime_s=int(self._around.clock.monotonic_s() - self._started_s),
            projection_lag_events=lag,
            relay_lag_events=max(0, head - self._relay.seq) if self._progress.active else 0,
            effects_running=self._counts.running,
            dead_letters=self._counts.dead,
        )
