"""For operators and tools: /livez, /readyz, /metrics, /openapi.json. Errors are spelled as in the Dumont dialect."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from libs.telemetry.metrics import CONTENT_TYPE
from services.gateway.auth import ANYONE
from services.gateway.call import Answer, Call
from services.gateway.dialects import Dialect, Schema
from services.gateway.dialects.dumont import DIALECT as DUMONT
from services.gateway.routing import Route
from services.gateway.vitals import VERSION


class Live(Struct, frozen=True):
    status: str
    version: str
    uptime_s: float


class Ready(Struct, frozen=True):
    """`reasons` say for an operator why not."""

    ready: bool
    reasons: list[str]


def _success_schema(data: Schema, has_meta: bool) -> Schema:
    del has_meta
    return data


DIALECT = Dialect(
    name="operations",
    language="en",
    renames={},
    failure=DUMONT.failure,
    failure_schema=DUMONT.failure_schema,
    success_schema=_success_schema,
    open_on_loopback=True,
)


async def livez(call: Call) -> Answer:
    """This process answers; nothing else is said."""
    return Answer(200, Live("ok", VERSION, round(call.gateway.vitals.uptime_s, 3)))


async def readyz(call: Call) -> Answer:
    """Asks now, and says why not (503)."""
    gateway = call.gateway
    probe = await gateway.vitals.probe()
    reasons = gateway.vitals.reasons(probe)
    if not gateway.keys.caught_up:
        reasons.append("gateway: the index of keys is not caught up")
    if not gateway.is_connected():
        reasons.append("gateway: not connected to the bus")
    return Answer(503 if reasons else 200, Ready(not reasons, reasons))


async def metrics(call: Call) -> Answer:
    text = await call.gateway.vitals.metrics_text()
    return Answer(200, text.encode(), {"Content-Type": CONTENT_TYPE})


async def openapi(call: Call) -> Answer:
    """Generated from the table once, when first asked for."""
    return Answer(200, call.gateway.openapi(), {"Content-Type": "application/json; charset=utf-8"})


ROUTES = (
    Route("GET", "/livez", DIALECT, ANYONE, "unlimited", livez, "Is the process alive?", reply=Live),
    Route("GET", "/readyz", DIALECT, ANYONE, "unlimited", readyz, "Can requests be served?", reply=Ready,
          statuses=(200, 503)),
    Route("GET", "/metrics", DIALECT, "metrics:read", "unlimited", metrics, "Prometheus text", reply=str),
    Route("GET", "/openapi.json", DIALECT, ANYONE, "unlimited", openapi, "This document", reply=dict[str, Any]),
)  # fmt: skip
