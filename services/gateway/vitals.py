"""How the gateway and the services behind it are: what /health, /readyz, /metrics and /api/metrics tell.

`Vitals.watch` asks the services in the background, so that /health never probes inline (the original's p50 was 5 s).
Owns the last answers with their age, the RED numbers of the last minute and the process's own size.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import psutil
from msgspec import Struct

from libs.clock import Clock
from libs.ids import Ids
from libs.refusal import Refused, Transient
from libs.runtime.bus import Bus
from libs.telemetry import Metrics, merge_metrics, process_metrics
from proto.base import Meta, Query
from proto.billing.queries import GetBillingHealth, GetBillingMetrics
from proto.failover.queries import GetFailoverHealth, GetFailoverMetrics
from proto.health import GetInstanceHealth, GetInstanceMetrics, MetricsText, ServiceHealth
from proto.instance.queries import GetStats, InstanceStats
from proto.warmpool.queries import GetWarmpoolHealth, GetWarmpoolMetrics
from proto.webhook_dispatch.queries import GetWebhookDispatchHealth, GetWebhookDispatchMetrics

VERSION = "1.0.0"
# Services that work behind the requests: told of in /health and /metrics, but requests are served without them.
BEHIND: dict[str, tuple[Query, Query]] = {
    "failover": (GetFailoverHealth(), GetFailoverMetrics()),
    "warmpool": (GetWarmpoolHealth(), GetWarmpoolMetrics()),
    "billing": (GetBillingHealth(), GetBillingMetrics()),
    "webhook_dispatch": (GetWebhookDispatchHealth(), GetWebhookDispatchMetrics()),
}
WATCH_INTERVAL_S = 5.0
WATCH_DOWN_INTERVAL_S = 0.25  # who is down, or not yet up, is asked often: /health should not say so for long after
PROBE_DEADLINE_S = 1.0
WINDOW_S = 60.0  # "requests per minute"
# Older than this a fact is no longer told as one: three watch rounds and one deadline have failed.
FACT_AGE_S_MAX = 17.0
MIB = 1024 * 1024


class Probe(Struct, frozen=True):
    """The last word of one service. `health` is None when it did not answer."""

    service: str
    health: ServiceHealth | None
    reason: str
    asked_at: datetime

    @property
    def is_up(self) -> bool:
        return self.health is not None and self.health.ready


class Traffic(Struct, frozen=True):
    """Requests of the last minute, or as long as we run."""

    requests_per_minute: float
    average_ms: float
    error_share: float
    work_per_minute: float


class _Sample(NamedTuple):
    at_s: float
    total: int
    failed: int
    seconds: float
    work_completed: int | None  # None: nobody has said yet


class Vitals:
    """Numbers about this process and answers of the others."""

    def __init__(self, bus: Bus, clock: Clock, ids: Ids, metrics: Metrics) -> None:
        self._bus = bus
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._process = psutil.Process()
        self._started_s = clock.monotonic_s()
        self.requests = metrics.counter(
            "dumont_http_requests_total", "Requests answered.", ("dialect", "method", "route", "status")
        )
        self.duration = metrics.histogram(
            "dumont_http_request_seconds",
            "From the request line to the encoded answer.",
            ("dialect", "method", "route"),
        )
        self.in_flight = metrics.gauge("dumont_http_requests_in_flight", "Requests not yet answered.")
        self.total = 0
        self.failed = 0
        self.seconds = 0.0
        self._history: deque[_Sample] = deque([_Sample(self._started_s, 0, 0, 0.0, None)])
        self._work_completed: int | None = None
        self.instance: Probe | None = None
        self.behind: dict[str, Probe] = {}  # only those that have ever answered: not every installation has all
        self.cpu_percent = 0.0
        process_metrics(metrics, clock)

    def count(self, labels: tuple[str, str, str], status: int, seconds: float) -> None:
        """One answered request. `failed` are server errors; a refusal is a success of the refuser."""
        self.requests.add((*labels, str(status)))
        self.duration.observe(seconds, labels)
        self.total += 1
        self.seconds += seconds
        if status >= 500:
            self.failed += 1

    @property
    def uptime_s(self) -> float:
        return self._clock.monotonic_s() - self._started_s

    @property
    def resident_bytes(self) -> int:
        return self._process.memory_info().rss

    async def watch(self) -> None:
        """Ask the others, sample ourselves, for ever."""
        while True:
            self.instance = await self.probe()
            for service in BEHIND:
                probe = await self._probe_behind(service)
                if probe.health is not None or service in self.behind:
                    self.behind[service] = probe
            self.cpu_percent = psutil.cpu_percent()
            await self._sample()
            await self._clock.sleep(WATCH_INTERVAL_S if self.instance.is_up else WATCH_DOWN_INTERVAL_S)

    async def probe(self) -> Probe:
        """Ask the instance service now; never raises."""
        return await self._probe("instance", GetInstanceHealth())

    async def _probe_behind(self, service: str) -> Probe:
        return await self._probe(service, BEHIND[service][0])

    async def _probe(self, service: str, question: Query) -> Probe:
        now = self._clock.now()
        try:
            health = await self._ask(question)
        except Refused as refused:
            return Probe(service, None, refused.code, now)
        except (Transient, TimeoutError) as error:
            return Probe(service, None, f"does not answer: {type(error).__name__}", now)
        return Probe(service, health, "; ".join(health.reasons), now)

    async def metrics_text(self) -> str:
        """Our own numbers and those of every service that answers."""
        questions = [GetInstanceMetrics(), *(BEHIND[service][1] for service in self.behind)]
        others = await asyncio.gather(*(self._metrics_of(question) for question in questions))
        return merge_metrics([self.own_metrics_text(), *(text for text in others if text)])

    async def _metrics_of(self, question: Query) -> str:
        """Empty when it does not answer."""
        try:
            answer: MetricsText = await self._ask(question)
        except (Refused, Transient, TimeoutError):
            return ""
        return answer.text

    def own_metrics_text(self) -> str:
        return self._metrics.render()

    def traffic(self) -> Traffic:
        then, now = self._history[0], self._now()
        count = now.total - then.total
        minutes = max(now.at_s - then.at_s, 1.0) / 60.0
        work = (now.work_completed or 0) - (then.work_completed or 0) if then.work_completed is not None else 0
        return Traffic(
            requests_per_minute=round(count / minutes, 2),
            average_ms=round((now.seconds - then.seconds) / count * 1000, 3) if count else 0.0,
            error_share=round((now.failed - then.failed) / count, 6) if count else 0.0,
            work_per_minute=round(max(work, 0) / minutes, 2),
        )

    def reasons(self, probe: Probe | None) -> list[str]:
        """Why the services behind us cannot be used; empty when they can."""
        if probe is None:
            return ["instance: not asked yet"]
        age_s = (self._clock.now() - probe.asked_at).total_seconds()
        if age_s > FACT_AGE_S_MAX:
            return [f"instance: last asked {age_s:.0f} s ago"]
        return [] if probe.is_up else [f"instance: {probe.reason or 'not ready'}"]

    async def _ask(self, question: Query) -> Any:
        meta = Meta(
            request_id=self._ids.fresh("req"),
            deadline=self._clock.now().timestamp() + PROBE_DEADLINE_S,
            actor="gateway",
        )
        async with asyncio.timeout(PROBE_DEADLINE_S):
            reply = await self._bus.ask(question, meta)
        if reply.body is None:
            raise Refused(reply.refused.code if reply.refused else "INTERNAL_ERROR")
        return msgspec.json.decode(reply.body, type=type(question).reply)

    def _now(self) -> _Sample:
        return _Sample(self._clock.monotonic_s(), self.total, self.failed, self.seconds, self._work_completed)

    async def _sample(self) -> None:
        try:
            stats: InstanceStats = await self._ask(GetStats())
            self._work_completed = stats.work_completed
        except (Refused, Transient, TimeoutError):
            self._work_completed = None
        self._history.append(self._now())
        while len(self._history) > 1 and self._history[1].at_s <= self._history[-1].at_s - WINDOW_S:
            self._history.popleft()
