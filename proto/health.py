"""How a service says how it is: asked by the gateway (`/readyz`, `/health`, `/metrics`) and the CLI, answered by the
runtime itself."""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from proto.base import Query


class ServiceHealth(Struct, frozen=True):
    """`ready` is the service's own verdict: bus and database answer, and the projection is at most `lag_events_max`
    behind."""

    service: str
    ready: bool
    reasons: list[str]  # why not ready, in words for an operator
    version: str
    uptime_s: int
    projection_lag_events: int
    relay_lag_events: int
    effects_running: int
    dead_letters: int


class MetricsText(Struct, frozen=True):
    """Prometheus text format of one service."""

    text: str


class GetHealth(Query, tag="health", frozen=True):
    reply: ClassVar[object] = ServiceHealth


class GetMetrics(Query, tag="metrics", frozen=True):
    reply: ClassVar[object] = MetricsText


class GetInstanceHealth(GetHealth, tag="health", frozen=True):
    service: ClassVar[str] = "instance"


class GetInstanceMetrics(GetMetrics, tag="metrics", frozen=True):
    service: ClassVar[str] = "instance"
