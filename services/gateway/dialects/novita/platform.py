"""Novita: /health, /api/metrics, /api/cache/stats and auto-stop's numbers (seeds 001, 002, 004; contract novita A5).

/health never asks anybody while the caller waits: it tells the last answers, with their age under `checks`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import psutil
from msgspec import Struct

from proto.instance.queries import GetStats, InstanceStats
from services.gateway.auth import ANYONE
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds
from services.gateway.dialects.novita import DIALECT
from services.gateway.dialects.novita.instance_object import ASKED
from services.gateway.dialects.novita.templates import TEMPLATES
from services.gateway.gateway import Gateway
from services.gateway.routing import Route
from services.gateway.vitals import MIB, VERSION

Verdict = Literal["healthy", "unhealthy"]
PERCENT = 100


class NovitaCheck(Struct, frozen=True, rename="camel"):
    """One fact about a service and how old it is."""

    status: str
    reason: str | None
    checked_at: str | None
    age_seconds: float | None


class NovitaPerformance(Struct, frozen=True, rename="camel"):
    requests_per_minute: float
    average_response_time: float
    error_rate: float
    job_processing_rate: float


class NovitaHealth(Struct, frozen=True, kw_only=True, rename="camel"):
    """The superset of seeds 001, 002 and 004; every value of `services` is `up` or `down`."""

    status: Verdict
    timestamp: str
    uptime: float
    version: str
    dependencies: dict[str, str]
    services: dict[str, str]
    performance: NovitaPerformance
    system: dict[str, Any]
    migration_service: dict[str, Any]
    checks: dict[str, NovitaCheck]


class NovitaAutoStop(Struct, frozen=True, kw_only=True, rename="camel"):
    scheduler_running: bool
    check_interval_minutes: int
    default_inactivity_threshold_minutes: int
    last_check_at: str | None
    auto_stopped_total: int


class NovitaMetrics(Struct, frozen=True, rename="camel"):
    """Seed 001, GET /api/metrics."""

    requests: dict[str, float]
    instances: dict[str, int]
    jobs: dict[str, int]
    cache: dict[str, float]
    system: dict[str, Any]


async def health(call: Call) -> Answer:
    gateway, vitals = call.gateway, call.gateway.vitals
    reasons = vitals.reasons(vitals.instance)
    verdict: Verdict = "unhealthy" if reasons else "healthy"
    traffic = vitals.traffic()
    body = NovitaHealth(
        status=verdict,
        timestamp=milliseconds(call.now),
        uptime=round(vitals.uptime_s, 3),
        version=VERSION,
        dependencies={"novitaApi": verdict, "cache": "healthy" if gateway.keys.caught_up else "unhealthy"},
        services=_services(gateway, is_up=not reasons),
        performance=NovitaPerformance(
            requests_per_minute=traffic.requests_per_minute,
            average_response_time=traffic.average_ms,
            error_rate=traffic.error_share,
            job_processing_rate=traffic.work_per_minute,
        ),
        system=_system(gateway),
        migration_service={
            "enabled": False,
            "lastExecution": None,
            "nextExecution": None,
            "status": "disabled",
            "recentErrors": 0,
        },
        checks={"instance": _check(gateway, call.now, reasons)},
    )
    return Answer(503 if reasons else 200, body)


async def metrics(call: Call) -> Answer:
    stats: InstanceStats = await call.ask(GetStats(account_id=call.account_id))
    vitals = call.gateway.vitals
    average_ms = round(vitals.seconds / vitals.total * 1000, 3) if vitals.total else 0
    hits, misses = _cache_hits(call.gateway)
    total_bytes = psutil.virtual_memory().total
    return Answer(
        200,
        NovitaMetrics(
            requests={
                "total": vitals.total,
                "successful": vitals.total - vitals.failed,
                "failed": vitals.failed,
                "averageResponseTime": average_ms,
            },
            instances={
                "total": sum(stats.by_status.values()),
                "creating": stats.by_status.get("creating", 0),
                "running": sum(stats.by_status.get(status, 0) for status in ASKED["running"]),
                "failed": stats.by_status.get("failed", 0),
            },
            jobs={
                "pending": stats.work_pending,
                "processing": stats.work_running,
                "completed": stats.work_completed,
                "failed": stats.work_failed,
            },
            cache={"hits": hits, "misses": misses, "hitRate": _ratio(hits, misses)},
            system={
                "uptime": int(vitals.uptime_s),
                "memoryUsage": {
                    "used": round(vitals.resident_bytes / MIB),
                    "total": round(total_bytes / MIB),
                    "percentage": round(vitals.resident_bytes / total_bytes * PERCENT, 2),
                },
            },
        ),
    )


async def cache_stats(call: Call) -> Answer:
    """What the gateway keeps in memory: the index of keys and where the newest commits stand. Both are told truthfully:
    the first holds everything, so it never evicts. `entries` names none of them: they are of all accounts."""
    keys, positions = call.gateway.keys, call.gateway.positions
    stats = {
        "apiKeys": _cache(
            keys.hits, keys.misses, sets=keys.issued, deletes=keys.revoked, evictions=0, entries=len(keys)
        ),
        "positions": _cache(
            positions.hits,
            positions.misses,
            sets=positions.sets,
            deletes=0,
            evictions=positions.evictions,
            entries=len(positions),
        ),
    }
    hits, misses = _cache_hits(call.gateway)
    entries = len(keys) + len(positions)
    return Answer(
        200,
        {
            "timestamp": milliseconds(call.now),
            "cacheManager": {
                "cacheNames": list(stats),
                "stats": stats,
                "metrics": {name: stat["metrics"] for name, stat in stats.items()},
            },
            "services": {"template": {"size": len(TEMPLATES), "cachedTemplates": sorted(TEMPLATES)}},
            "summary": {
                "totalCaches": len(stats),
                "totalEntries": entries,
                "totalHits": hits,
                "totalMisses": misses,
                "overallHitRatio": _ratio(hits, misses),
            },
        },
    )


async def auto_stop_stats(call: Call) -> Answer:
    vitals = call.gateway.vitals
    stats: InstanceStats = await call.ask(GetStats(account_id=call.account_id))
    last = stats.auto_stop_last_check_at
    return Answer(
        200,
        NovitaAutoStop(
            scheduler_running=not vitals.reasons(vitals.instance),  # it is the owner's deadlines: runs while it does
            check_interval_minutes=stats.auto_stop_check_minutes,
            default_inactivity_threshold_minutes=stats.auto_stop_default_minutes,
            last_check_at=milliseconds(last) if last else None,
            auto_stopped_total=stats.auto_stopped_total,
        ),
    )


def _services(gateway: Gateway, *, is_up: bool) -> dict[str, str]:
    """Names of the seeds; a service this installation does not have is left out rather than called down."""
    upstream = "up" if is_up else "down"
    told = {"novitaApi": upstream, "jobQueue": upstream, "cache": "up" if gateway.keys.caught_up else "down"}
    return told | {name: "up" if probe.is_up else "down" for name, probe in gateway.vitals.behind.items()}


def _system(gateway: Gateway) -> dict[str, Any]:
    memory = psutil.virtual_memory()
    resident = gateway.vitals.resident_bytes
    return {
        "memory": {
            "usedMB": round(resident / MIB, 1),
            "totalMB": round(memory.total / MIB, 1),
            "externalMB": 0,
            "rss": resident,
        },
        "cpu": {"usage": gateway.vitals.cpu_percent, "loadAverage": [round(load, 2) for load in psutil.getloadavg()]},
    }


def _check(gateway: Gateway, now: datetime, reasons: list[str]) -> NovitaCheck:
    probe = gateway.vitals.instance
    if probe is None:
        return NovitaCheck("unknown", "not asked yet", None, None)
    return NovitaCheck(
        "down" if reasons else "up",
        "; ".join(reasons) or None,
        milliseconds(probe.asked_at),
        round((now - probe.asked_at).total_seconds(), 1),
    )


def _cache(hits: int, misses: int, *, sets: int, deletes: int, evictions: int, entries: int) -> dict[str, Any]:
    metrics = {"hits": hits, "misses": misses, "sets": sets, "deletes": deletes, "evictions": evictions}
    told = {**metrics, "totalSize": entries}
    return {"metrics": told, "entries": {}, "size": entries, "hitRatio": _ratio(hits, misses)}


def _cache_hits(gateway: Gateway) -> tuple[int, int]:
    return gateway.keys.hits + gateway.positions.hits, gateway.keys.misses + gateway.positions.misses


def _ratio(hits: int, misses: int) -> float:
    return round(hits / (hits + misses), 4) if hits + misses else 0


READ = "instances:read"
ROUTES = (
    Route("GET", "/health", DIALECT, ANYONE, "unlimited", health, "Health in the words of the seeds",
          reply=NovitaHealth, statuses=(200, 503)),
    Route("GET", "/api/metrics", DIALECT, READ, "read", metrics, "Operational numbers", reply=NovitaMetrics),
    Route("GET", "/api/cache/stats", DIALECT, READ, "read", cache_stats, "What is kept in memory",
          reply=dict[str, Any]),
    Route("GET", "/api/instances/auto-stop/stats", DIALECT, READ, "read", auto_stop_stats, "Auto-stop's numbers",
          reply=NovitaAutoStop),
)  # fmt: skip
