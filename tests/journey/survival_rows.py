"""One row per documented request of /failover, /failover/settings, /warmpool, /standby, /hibernation and /agent.

Read by `test_survival_surface.py`, in this order: a row may need what those before it have done. `$ready`, `$other` and
`$stopped` stand for instances (see there); `$host` for the host of `$ready`. Shapes are contract dumont's, 3 to 6: a
type, a tuple of types that may be, a list of one shape, or an object's documented fields. Fields beyond are welcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)
TEXT = (str, type(None))
WHOLE = (int, type(None))


@dataclass(frozen=True)
class Row:
    """`shows`: the shape of `data`, or the refusal's code. `holds`: values documented for this request."""

    method: str
    path: str
    status: int
    shows: Any
    body: Any = None
    holds: tuple[tuple[str, Any], ...] = ()
    key: str = "account"


def refused(method: str, path: str, status: int, code: str, body: Any = None, *, key: str = "account") -> Row:
    return Row(method, path, status, code, body, key=key)


UNKNOWN = "inst_nobodys"
POOL_BRIEF = {"state": str, "standby_gpu_id": TEXT, "standby_state": str, "startable": bool, "checked_at": TEXT}
READINESS = {
    "machine_id": str, "effective_strategy": str, "warm_pool_ready": bool, "cpu_standby_ready": bool,
    "overall_ready": bool, "blockers": list, "plan": [{"step": str, "ready": bool, "eta_s": int}],
}  # fmt: skip
RUN = {
    "success": (bool, type(None)), "failover_id": str, "machine_id": str, "strategy_attempted": TEXT,
    "strategy_succeeded": TEXT, "new_gpu_id": TEXT, "new_ssh_host": TEXT, "new_ssh_port": WHOLE, "new_gpu_name": TEXT,
    "warm_pool_attempt_ms": WHOLE, "cpu_standby_attempt_ms": WHOLE, "total_ms": WHOLE, "error": TEXT,
    "warm_pool_error": TEXT, "cpu_standby_error": TEXT, "attempts": list, "original": {"machine_id": str},
    "data_loss_window_s": WHOLE, "status": str, "phase_history": list, "phase_timings_ms": dict,
}  # fmt: skip
DRY_RUN = {"dry_run": bool, "would_succeed": bool, "readiness": READINESS, "message": str}
STATUS = {
    "machine_id": str, "effective_strategy": str, "recommended_action": TEXT,
    "warm_pool": {"enabled": bool, "active": bool, "standby_gpu_id": TEXT, "volume_id": TEXT},
    "cpu_standby": {"enabled": bool, "active": bool, "instance_name": TEXT},
    "limits": {"failovers_24h": int, "max": int, "remaining": int}, "circuit_breakers": dict,
}  # fmt: skip
STRATEGIES = {
    "strategies": [
        {"id": str, "name": str, "description": str, "recovery_time": str, "cost": str, "requirements": list,
         "available": bool}
    ]
}  # fmt: skip
GLOBAL = {
    "default_strategy": str, "auto_apply_to_new_machines": bool, "notify_on_failover": bool, "notify_channels": [str],
    "warm_pool": {
        "enabled": bool, "min_gpus_per_host": int, "volume_size_gb": int, "auto_provision_standby": bool,
        "fallback_to_cpu_standby": bool, "preferred_gpu_names": [str], "health_check_interval_seconds": int,
        "failover_timeout_seconds": int, "auto_reprovision_standby": bool,
    },
    "cpu_standby": {
        "enabled": bool, "gcp_zone": str, "gcp_machine_type": str, "gcp_disk_size_gb": int, "gcp_spot": bool,
        "sync_interval_seconds": int, "health_check_interval_seconds": int, "failover_threshold": int,
        "auto_failover": bool, "auto_recovery": bool, "snapshot_to_cloud": bool,
    },
    "summary": {"warm_pool_enabled": bool, "cpu_standby_enabled": bool, "description": str}, "warnings": list,
}  # fmt: skip
MACHINE = {
    "machine_id": str, "use_global_settings": bool, "effective_strategy": str, "warm_pool": {"enabled": bool},
    "cpu_standby": {"enabled": bool},
    "stats": {"failover_count": int, "last_failover_at": TEXT, "last_failover_strategy": TEXT},
}  # fmt: skip
POOL = {
    "machine_id": str, "state": str, "host_machine_id": TEXT, "volume_id": TEXT, "primary_gpu_id": TEXT,
    "standby_gpu_id": TEXT, "standby_state": str, "primary_ssh_host": TEXT, "primary_ssh_port": WHOLE,
    "last_health_check": TEXT, "failover_count": int, "last_failover_at": TEXT, "error_message": TEXT,
}  # fmt: skip
HOSTS = {
    "hosts": [
        {"machine_id": str, "total_gpus": int, "available_gpus": int, "gpu_name": str, "avg_price_per_hour": NUMBER,
         "reliability": NUMBER, "verified": bool, "geolocation": str, "can_create_warm_pool": bool, "offers": list}
    ],
    "count": int,
}  # fmt: skip
ASSOCIATION = {
    "gpu_instance_id": str, "cpu_standby": {"name": TEXT, "zone": TEXT, "ip": TEXT}, "sync_enabled": bool,
    "gpu_failed": bool, "state": str, "sync_count": int,
}  # fmt: skip
STANDBY_CONFIG = {
    "gcp_zone": str, "gcp_machine_type": str, "gcp_disk_size": int, "gcp_spot": bool, "sync_interval": int,
    "auto_failover": bool, "auto_recovery": bool,
}  # fmt: skip
CONFIGURED = {
    "success": bool, "message": str,
    "config": {"gcp_zone": str, "gcp_machine_type": str, "estimated_cost_monthly_usd": NUMBER}, "warnings": list,
}  # fmt: skip
PRICING = {
    "machine_type": str, "disk_gb": int, "spot": bool, "estimated_hourly_usd": NUMBER,
    "estimated_monthly_usd": NUMBER, "breakdown": {"vm_monthly": NUMBER, "disk_monthly": NUMBER}, "note": str,
}  # fmt: skip
HEARTBEAT = {
    "received": bool, "instance_id": str, "action": str, "message": str, "success": bool, "commands": list,
    "hibernate_in_seconds": WHOLE, "next_heartbeat_in": int,
}  # fmt: skip
AGENT = {
    "instance_id": str, "status": str, "gpu_utilization": (int, float, type(None)), "last_seen": str,
    "idle_since": TEXT, "will_hibernate_at": TEXT, "hostname": str, "agent_version": str, "idle_seconds": WHOLE,
}  # fmt: skip
KEPT_ALIVE = {
    "success": bool, "instance_id": str, "hibernation_postponed_until": str, "new_hibernate_at": str, "message": str,
}  # fmt: skip
SHELL_AGENT = {
    "agent": "dumont", "version": "1.0", "instance_id": "$ready", "status": "syncing", "message": "",
    "timestamp": "2026-11-22T10:00:00Z", "uptime": 12,
    "gpu_metrics": {"utilization": 55, "gpu_count": 1, "gpu_names": ["RTX 4090"], "gpu_utilizations": [55]},
}  # fmt: skip
DOCUMENTED_AGENT = {
    "instance_id": "$ready", "hostname": "gpu", "timestamp": "2026-11-22T10:00:00Z", "agent_version": "2.0",
    "gpu_metrics": {"utilization_percent": 60.5, "memory_used_mb": 1_000, "memory_total_mb": 24_000},
    "process_count": 9, "active_users": 1, "last_activity": "2026-11-22T09:59:00Z",
}  # fmt: skip

SETTINGS = "/failover/settings"
SETTINGS_ROWS = (
    Row("GET", f"{SETTINGS}/global", 200, GLOBAL, holds=(("default_strategy", "both"),)),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL, {"warm_pool": {"min_gpus_per_host": 3}},
        (("warm_pool.min_gpus_per_host", 3), ("warm_pool.volume_size_gb", 100), ("default_strategy", "both"))),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL, {"warm_pool": {"min_gpus_per_host": 2}}, (("warnings", []),)),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL,
        {"warm_pool": {"preferred_gpu_names": ["A100_40GB"], "health_check_interval_seconds": 5},
         "cpu_standby": {"health_check_interval_seconds": 6, "failover_threshold": 4}},
        (("warm_pool.preferred_gpu_names", ["A100_40GB"]), ("warm_pool.health_check_interval_seconds", 5),
         ("cpu_standby.failover_threshold", 4))),
    Row("GET", "/warmpool/hosts?min_gpus=1", 200, HOSTS, holds=(("hosts.0.gpu_name", "A100 40GB"),)),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL,
        {"warm_pool": {"preferred_gpu_names": ["RTX_4090", "RTX_3090", "A100"], "health_check_interval_seconds": 10},
         "cpu_standby": {"health_check_interval_seconds": 10, "failover_threshold": 3}}),
    refused("PUT", f"{SETTINGS}/global", 400, "VALIDATION_ERROR", {"notify_channels": ["email", "slack"]}),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL, {"notify_on_failover": False},
        (("notify_on_failover", False), ("notify_channels", ["webhook"]))),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL, {"notify_on_failover": True}),
    refused("PUT", f"{SETTINGS}/global", 400, "VALIDATION_ERROR", {"default_strategy": "hope"}),
    refused("PUT", f"{SETTINGS}/global", 400, "VALIDATION_ERROR", {"warm_pool": {"enabled": "yes"}}),
    refused("PUT", f"{SETTINGS}/global", 400, "VALIDATION_ERROR", {"warm_pool": {"min_gpus_per_host": 1}}),
    refused("PUT", f"{SETTINGS}/global", 400, "VALIDATION_ERROR", {"cpu_standby": {"sync_interval_seconds": 0}}),
    Row("GET", f"{SETTINGS}/machines/$ready", 200, MACHINE,
        holds=(("use_global_settings", False), ("effective_strategy", "warm_pool"))),
    Row("GET", f"{SETTINGS}/machines/$other", 200, MACHINE, holds=(("use_global_settings", True),)),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL, {"warm_pool": {"fallback_to_cpu_standby": False}},
        (("warm_pool.fallback_to_cpu_standby", False),)),
    Row("GET", "/failover/readiness/$other", 200, READINESS,
        holds=(("blockers", [{"strategy": "warm_pool", "reason": "not_configured"},
                             {"strategy": "cpu_standby", "reason": "fallback_off"}]),)),
    Row("PUT", f"{SETTINGS}/global", 200, GLOBAL, {"warm_pool": {"fallback_to_cpu_standby": True}}),
    refused("GET", f"{SETTINGS}/machines/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    Row("PUT", f"{SETTINGS}/machines/$other", 200, MACHINE, {"use_global_settings": False, "strategy": "disabled"},
        (("effective_strategy", "disabled"),)),
    Row("GET", f"{SETTINGS}/machines", 200, {"machines": dict, "count": int}),
    refused("PUT", f"{SETTINGS}/machines/$other", 400, "VALIDATION_ERROR", {"strategy": "hope"}),
    refused("PUT", f"{SETTINGS}/machines/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND", {"strategy": "both"}),
)  # fmt: skip
FAILOVER_ROWS = (
    Row("GET", "/failover/strategies", 200, STRATEGIES),
    refused("POST", "/failover/execute", 409, "FAILOVER_DISABLED", {"machine_id": "$other"}),
    refused("POST", "/failover/execute", 400, "VALIDATION_ERROR", {}),
    refused("POST", "/failover/execute", 400, "VALIDATION_ERROR", {"machine_id": 7}),
    refused("POST", "/failover/execute", 400, "VALIDATION_ERROR", {"machine_id": "$ready", "force_strategy": "hope"}),
    refused("POST", "/failover/execute", 404, "INSTANCE_NOT_FOUND", {"machine_id": UNKNOWN}),
    refused("POST", "/failover/execute", 409, "INVALID_STATE", {"machine_id": "$stopped"}),
    Row("GET", "/failover/readiness/$other", 200, READINESS, holds=(("overall_ready", False),)),
    refused("GET", f"/failover/readiness/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    Row("POST", "/failover/test/$other", 200, DRY_RUN, holds=(("would_succeed", False),)),
    Row("POST", "/failover/test/$other?gpu_instance_id=7&ssh_host=h&ssh_port=22&strategy=all", 200, DRY_RUN),
    refused("POST", "/failover/test/$other?strategy=hope", 400, "VALIDATION_ERROR"),
    refused("POST", "/failover/test/$other?dry_run=perhaps", 400, "VALIDATION_ERROR"),
    refused("POST", f"/failover/test/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    refused("POST", "/failover/test/$other?dry_run=false", 409, "FAILOVER_DISABLED"),
    Row("GET", "/failover/status/$other", 200, STATUS),
    refused("GET", f"/failover/status/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
)  # fmt: skip
POOL_ROWS = (
    Row("GET", "/warmpool/status/$ready", 200, POOL, holds=(("state", "active"), ("standby_state", "stopped"))),
    Row("GET", "/warmpool/status/$other", 200, POOL, holds=(("state", "disabled"), ("standby_state", "none"))),
    refused("GET", f"/warmpool/status/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    Row("GET", "/warmpool/hosts?gpu_name=RTX_4090&min_gpus=2&max_price=9&verified=true", 200, HOSTS),
    Row("GET", "/warmpool/hosts?gpu_name=Abacus", 200, {"hosts": list, "count": int}, holds=(("count", 0),)),
    refused("GET", "/warmpool/hosts?min_gpus=many", 400, "VALIDATION_ERROR"),
    refused("GET", "/warmpool/hosts?max_price=0", 400, "VALIDATION_ERROR"),
    refused("POST", "/warmpool/provision", 400, "VALIDATION_ERROR", {}),
    refused("POST", "/warmpool/provision", 400, "VALIDATION_ERROR", {"machine_id": "$other", "volume_size": 1}),
    refused("POST", "/warmpool/provision", 404, "INSTANCE_NOT_FOUND", {"machine_id": UNKNOWN}),
    refused("POST", "/warmpool/provision", 404, "HOST_NOT_FOUND",
            {"machine_id": "$other", "host_machine_id": "host-nowhere"}),
    refused("POST", "/warmpool/provision", 409, "WARMPOOL_EXISTS", {"machine_id": "$ready", "volume_size": 200}),
    refused("POST", "/warmpool/provision", 409, "WARMPOOL_EXISTS",
            {"machine_id": "$ready", "host_machine_id": "host-nowhere"}),
    Row("POST", "/warmpool/provision", 202, {"success": bool, "message": str, "status": POOL},
        {"machine_id": "$ready", "host_machine_id": "$host", "gpu_name": "RTX 4090", "image": "pytorch:2.0",
         "disk_size": 50, "volume_size": 100}, (("success", True), ("status.state", "active"))),
    Row("POST", "/warmpool/provision", 202, {"success": bool, "status": POOL}, {"machine_id": "$other"}),
    Row("POST", "/warmpool/disable/$other", 200, {"status": str, "message": str, "fallback": str},
        holds=(("status", "disabled"), ("fallback", "cpu_standby"))),
    refused("POST", f"/warmpool/disable/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    Row("POST", "/warmpool/enable/$other", 202, {"status": str, "message": str}, holds=(("status", "enabled"),)),
    refused("POST", f"/warmpool/enable/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    refused("POST", "/warmpool/enable/$ready?mode=hot", 409, "WARMPOOL_EXISTS"),
    Row("POST", "/warmpool/disable/$other", 200, {"status": str}),
    Row("GET", "/failover/readiness/$ready", 200, READINESS | {"warm_pool_status": POOL_BRIEF},
        holds=(("warm_pool_ready", True), ("overall_ready", True), ("cpu_standby_ready", False))),
    Row("POST", "/failover/test/$ready", 200, DRY_RUN, holds=(("would_succeed", True),)),
)  # fmt: skip
STANDBY_ROWS = (
    Row("GET", "/standby/pricing", 200, PRICING, holds=(("estimated_hourly_usd", 0.01), ("estimated_monthly_usd", 11.2),
        ("breakdown.vm_monthly", 7.2), ("breakdown.disk_monthly", 4.0))),
    Row("GET", "/standby/pricing?machine_type=e2-medium&disk_gb=100&spot=false", 200, PRICING,
        holds=(("estimated_monthly_usd", 28.48),)),
    refused("GET", "/standby/pricing?machine_type=abacus", 400, "VALIDATION_ERROR"),
    refused("GET", "/standby/pricing?disk_gb=0", 400, "VALIDATION_ERROR"),
    Row("POST", "/standby/configure", 200, CONFIGURED,
        {"enabled": False, "gcp_zone": "us-east1-b", "gcp_machine_type": "e2-medium", "gcp_disk_size": 50,
         "gcp_spot": False, "sync_interval": 15, "auto_failover": True, "auto_recovery": True},
        (("config.estimated_cost_monthly_usd", 24.48),)),
    refused("POST", "/standby/provision/$other", 409, "INVALID_STATE"),
    Row("POST", "/standby/configure", 200, CONFIGURED, {}, (("config.estimated_cost_monthly_usd", 7.2),)),
    refused("POST", "/standby/configure", 400, "VALIDATION_ERROR", {"gcp_machine_type": "abacus"}),
    refused("POST", "/standby/configure", 400, "VALIDATION_ERROR", {"sync_interval": 0}),
    refused("GET", "/standby/associations/$other", 404, "ASSOCIATION_NOT_FOUND"),
    refused("POST", f"/standby/provision/{UNKNOWN}", 404, "INSTANCE_NOT_FOUND"),
    Row("POST", "/standby/provision/$other", 202, {"success": bool, "message": str, "association": ASSOCIATION}),
    Row("GET", "/standby/associations/$other", 200, ASSOCIATION),
    Row("GET", "/standby/associations", 200, {"associations": {"$other": ASSOCIATION}, "count": int}),
    Row("GET", "/standby/status", 200,
        {"configured": bool, "auto_standby_enabled": bool, "active_associations": int,
         "associations": {"$other": ASSOCIATION}, "config": STANDBY_CONFIG}),
    Row("DELETE", "/standby/associations/$other", 200, {"success": bool, "message": str}),
)  # fmt: skip
AGENT_ROWS = (
    Row("POST", "/agent/status", 200, HEARTBEAT, SHELL_AGENT, (("action", "none"), ("received", True)), "agent"),
    Row("POST", "/agent/status", 200, HEARTBEAT, DOCUMENTED_AGENT, (("success", True),), "agent"),
    refused("POST", "/agent/status", 400, "VALIDATION_ERROR", {"status": "idle"}, key="agent"),
    refused("POST", "/agent/status", 400, "VALIDATION_ERROR",
            SHELL_AGENT | {"gpu_metrics": {"utilization": 101}}, key="agent"),
    refused("POST", "/agent/status", 401, "UNAUTHENTICATED", SHELL_AGENT | {"instance_id": "$other"}, key="agent"),
    refused("POST", "/agent/status", 401, "UNAUTHENTICATED", SHELL_AGENT),
    Row("GET", "/agent/instances", 200, [AGENT]),
    Row("POST", "/agent/instances/$ready/keep-alive", 200, KEPT_ALIVE, holds=(("instance_id", "$ready"),)),
    Row("POST", "/agent/instances/$ready/keep-alive?minutes=45", 200, KEPT_ALIVE),
    Row("POST", "/agent/instances/$ready/keep-alive", 200, KEPT_ALIVE, {"minutes": 46}),
    refused("POST", "/agent/instances/$ready/keep-alive?minutes=1441", 400, "VALIDATION_ERROR"),
    refused("POST", f"/agent/instances/{UNKNOWN}/keep-alive", 404, "INSTANCE_NOT_FOUND"),
    Row("GET", "/hibernation/stats", 200,
        {"total_hibernations": int, "total_hours_saved": NUMBER, "total_savings": NUMBER, "machines": list}),
)  # fmt: skip
# The last: a real failover, and what may not be while and soon after it is.
RUN_ROWS = (
    Row("POST", "/failover/execute", 202, RUN, {"machine_id": "$ready"}, (("success", None),)),
    refused("POST", "/failover/execute", 409, "FAILOVER_IN_PROGRESS", {"machine_id": "$ready"}),
    refused("POST", "/warmpool/disable/$ready", 409, "FAILOVER_IN_PROGRESS"),
)
LIMIT_ROWS = (
    Row("GET", "/failover/status/$ready", 200, STATUS | {"last_failover": RUN}, holds=(("limits.failovers_24h", 1),)),
    refused("POST", "/failover/execute", 429, "FAILOVER_LIMIT_REACHED", {"machine_id": "$ready"}),
    refused("POST", "/failover/test/$ready?dry_run=false", 429, "FAILOVER_LIMIT_REACHED"),
    Row("GET", f"{SETTINGS}/machines/$ready", 200, MACHINE,
        holds=(("stats.failover_count", 1), ("stats.last_failover_strategy", "warm_pool"))),
    Row("GET", "/warmpool/status/$ready", 200, POOL, holds=(("failover_count", 1),)),
)  # fmt: skip
TEST_RUN = {
    "dry_run": bool, "success": bool, "failover_id": str, "strategy_succeeded": TEXT, "total_ms": int,
    "new_instance": {"gpu_id": str, "ssh_host": str, "ssh_port": int}, "error": TEXT,
}  # fmt: skip
