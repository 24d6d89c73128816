"""One row per route of the gateway: what a request needs to be right, and what it is then answered.

Read by `test_auth_matrix.py`, which fails when a route of the table has no row here, and by `existence.py`. A value
`$kind#name` stands for a thing of the account, made when it is first asked for (`access_things.py`): rows that change a
thing name one of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Row:
    """`right` is the status for the owner with just the route's scope. `stranger` is that for a key of another account:
    404 when the request names a thing of ours. `path` fills the parameters."""

    right: int = 200
    path: dict[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    query: str = ""
    stranger: int | None = None

    @property
    def is_private(self) -> bool:
        return self.stranger == 404

    @property
    def stranger_status(self) -> int:
        return self.right if self.stranger is None else self.stranger


def ours(right: int = 200, *, body: Any = None, query: str = "", **path: str) -> Row:
    """A request that names a thing of the account: whoever else asks is told that there is none."""
    return Row(right, path, body, query, 404)


V1 = "/api/v1"
SETTINGS = f"{V1}/failover/settings"
WEBHOOKS = f"{V1}/webhooks"
HISTORY = f"{V1}/machines/history"
THIS_MONTH = f"{datetime.now(UTC):%Y-%m}"
MADE = {"gpu": "RTX 4090"}
HOOK = {"name": "row", "url": "https://example.com/row", "events": ["instance.*"]}
NOVITA = {"name": "row", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
AVOIDED = {"provider": "sandbox", "machine_id": "host-row", "reason": "row"}

ROWS: dict[tuple[str, str], Row] = {
    # instances
    ("GET", f"{V1}/instances"): Row(),
    ("POST", f"{V1}/instances"): Row(201, body=MADE),
    ("GET", f"{V1}/instances/{{id}}"): ours(id="$instance#1"),
    ("DELETE", f"{V1}/instances/{{id}}"): ours(id="$instance#deleted"),
    # What is so already is 200; 202 or 200 depends on how soon it is so.
    ("POST", f"{V1}/instances/{{id}}/start"): ours(id="$instance#started"),
    ("POST", f"{V1}/instances/{{id}}/resume"): ours(id="$instance#resumed"),
    ("POST", f"{V1}/instances/{{id}}/stop"): ours(id="$stopped#stopped"),
    ("POST", f"{V1}/instances/{{id}}/pause"): ours(id="$stopped#paused"),
    ("POST", f"{V1}/instances/{{id}}/wake"): ours(id="$instance#woken"),
    ("POST", f"{V1}/instances/{{id}}/hibernate"): ours(202, id="$instance#hibernated"),
    ("GET", f"{V1}/hibernation/stats"): Row(),
    ("POST", f"{V1}/instances/{{id}}/snapshots"): ours(202, id="$instance#1"),
    ("GET", f"{V1}/instances/{{id}}/snapshots"): ours(id="$instance#1"),
    # the market and its hosts
    ("GET", f"{V1}/offers"): Row(),
    ("GET", f"{V1}/instances/offers"): Row(),
    ("GET", f"{V1}/offers/{{gpu}}"): Row(path={"gpu": "RTX%204090"}),
    ("GET", f"{HISTORY}/blacklist"): Row(),
    ("POST", f"{HISTORY}/blacklist"): Row(201, body=AVOIDED),
    ("GET", f"{HISTORY}/blacklist/check/{{provider}}/{{machine_id}}"): Row(
        path={"provider": "sandbox", "machine_id": "host-row"}
    ),
    ("DELETE", f"{HISTORY}/blacklist/{{provider}}/{{machine_id}}"): ours(provider="sandbox", machine_id="$avoided#1"),
    ("GET", f"{HISTORY}/summary"): Row(),
    # agents
    ("POST", f"{V1}/agent/status"): Row(body={"instance_id": "$instance#1"}, stranger=401),
    ("POST", f"{V1}/agent/storage"): Row(
        body={"instance_id": "$instance#agent", "snapshot_id": "$snapshot#1", "method": "PUT", "manifest": True},
        stranger=401,
    ),
    ("POST", f"{V1}/agent/reports"): Row(
        body={"instance_id": "$instance#agent", "kind": "snapshot_failed", "source": "$snapshot#1", "code": "row"},
        stranger=401,
    ),
    ("GET", f"{V1}/agent/instances"): Row(),
    ("POST", f"{V1}/agent/instances/{{id}}/keep-alive"): ours(id="$instance#1"),
    # keys and account
    ("POST", f"{V1}/api-keys"): Row(201, body={"name": "row", "scopes": ["keys:write"]}),
    ("GET", f"{V1}/api-keys"): Row(),
    ("POST", f"{V1}/api-keys/{{id}}/rotate"): ours(201, id="$key#rotated"),
    ("DELETE", f"{V1}/api-keys/{{id}}"): ours(id="$key#revoked"),
    ("GET", f"{V1}/account"): Row(),
    ("GET", f"{V1}/audit"): Row(),
    # money
    ("GET", f"{V1}/balance"): Row(),
    ("GET", f"{V1}/billing/history"): Row(),
    ("GET", f"{V1}/billing/history.csv"): Row(),
    ("GET", f"{V1}/billing/usage"): Row(),
    ("GET", f"{V1}/billing/usage.csv"): Row(),
    ("GET", f"{V1}/billing/ledger"): Row(),
    ("GET", f"{V1}/billing/invoices"): Row(),
    ("GET", f"{V1}/billing/invoices/{{month}}"): Row(path={"month": THIS_MONTH}),
    ("GET", f"{V1}/billing/invoices/{{month}}/print"): Row(path={"month": THIS_MONTH}),
    ("POST", f"{V1}/billing/add-credits"): Row(201, body={"amount": 10, "reference": "row"}),
    ("PUT", f"{V1}/billing/settings"): Row(body={"low_balance_threshold": 5}),
    # survival
    ("POST", f"{V1}/failover/execute"): ours(202, body={"machine_id": "$instance#failed-over"}),
    ("GET", f"{V1}/failover/readiness/{{machine_id}}"): ours(machine_id="$instance#1"),
    ("GET", f"{V1}/failover/status/{{machine_id}}"): ours(machine_id="$instance#1"),
    ("POST", f"{V1}/failover/test/{{machine_id}}"): ours(machine_id="$instance#1"),
    ("GET", f"{V1}/failover/strategies"): Row(),
    ("GET", f"{V1}/failover/report"): Row(),
    ("GET", f"{V1}/failovers"): Row(),
    ("GET", f"{V1}/failovers/{{id}}"): ours(id="$failover#1"),
    ("GET", f"{SETTINGS}/global"): Row(),
    ("PUT", f"{SETTINGS}/global"): Row(body={}),
    ("GET", f"{SETTINGS}/machines"): Row(),
    ("GET", f"{SETTINGS}/machines/{{id}}"): ours(id="$instance#1"),
    ("PUT", f"{SETTINGS}/machines/{{id}}"): ours(id="$instance#1", body={}),
    ("DELETE", f"{SETTINGS}/machines/{{id}}"): ours(id="$instance#1"),
    ("POST", f"{SETTINGS}/machines/{{id}}/use-global"): ours(id="$instance#1"),
    ("POST", f"{SETTINGS}/machines/{{id}}/enable-warm-pool"): ours(id="$instance#1"),
    ("POST", f"{SETTINGS}/machines/{{id}}/enable-cpu-standby"): ours(id="$instance#1"),
    ("POST", f"{SETTINGS}/machines/{{id}}/enable-both"): ours(id="$instance#1"),
    ("POST", f"{SETTINGS}/machines/{{id}}/disable-failover"): ours(id="$instance#1"),
    ("GET", f"{V1}/warmpool/status/{{machine_id}}"): ours(machine_id="$instance#1"),
    ("GET", f"{V1}/standby/status"): Row(),
    ("GET", f"{V1}/standby/pricing"): Row(),
    ("POST", f"{V1}/standby/configure"): Row(body={"sync_interval": 30}),
    ("GET", f"{V1}/standby/associations"): Row(),
    ("GET", f"{V1}/standby/associations/{{id}}"): ours(id="$synced#1"),
    ("DELETE", f"{V1}/standby/associations/{{id}}"): ours(id="$synced#released"),
    ("POST", f"{V1}/standby/provision/{{id}}"): ours(202, id="$instance#synced"),
    ("POST", f"{V1}/standby/recover/{{id}}"): ours(409, id="$instance#1"),  # it is on a GPU
    ("GET", f"{V1}/warmpool/hosts"): Row(),
    ("POST", f"{V1}/warmpool/provision"): ours(202, body={"machine_id": "$instance#provisioned"}),
    ("POST", f"{V1}/warmpool/enable/{{machine_id}}"): ours(202, machine_id="$instance#pooled"),
    ("POST", f"{V1}/warmpool/disable/{{machine_id}}"): ours(machine_id="$instance#pooled"),
    # webhooks and events
    ("GET", WEBHOOKS): Row(),
    ("POST", WEBHOOKS): Row(201, body=HOOK),
    ("GET", f"{WEBHOOKS}/events/types"): Row(),
    ("GET", f"{WEBHOOKS}/signing-keys"): Row(),
    ("PUT", f"{WEBHOOKS}/default-secret"): Row(body={}),
    ("DELETE", f"{WEBHOOKS}/default-secret"): Row(),
    ("GET", f"{WEBHOOKS}/{{id}}"): ours(id="$webhook#1"),
    ("PUT", f"{WEBHOOKS}/{{id}}"): ours(id="$webhook#1", body={"name": "other"}),
    ("DELETE", f"{WEBHOOKS}/{{id}}"): ours(id="$webhook#deleted"),
    ("POST", f"{WEBHOOKS}/{{id}}/rotate-secret"): ours(id="$webhook#1"),
    ("POST", f"{WEBHOOKS}/{{id}}/pause"): ours(id="$webhook#paused"),
    ("POST", f"{WEBHOOKS}/{{id}}/resume"): ours(id="$webhook#paused"),
    ("POST", f"{WEBHOOKS}/{{id}}/test"): ours(id="$webhook#1"),
    ("GET", f"{WEBHOOKS}/{{id}}/attempts"): ours(id="$webhook#1"),
    ("GET", f"{WEBHOOKS}/{{id}}/logs"): ours(id="$webhook#1"),
    ("GET", f"{WEBHOOKS}/{{id}}/deliveries"): ours(id="$webhook#1"),
    ("POST", f"{WEBHOOKS}/{{id}}/attempts/{{attempt}}/resend"): ours(202, id="$webhook#1", attempt="$attempt#1"),
    ("POST", f"{WEBHOOKS}/{{id}}/recover"): ours(202, id="$webhook#1"),
    ("GET", f"{V1}/events"): Row(),
    ("GET", f"{V1}/events/stream"): Row(),
    # Novita
    ("POST", "/api/instances"): Row(201, body=NOVITA),
    ("GET", "/api/instances"): Row(),
    ("GET", "/api/instances/{instanceId}"): ours(instanceId="$instance#1"),
    ("DELETE", "/api/instances/{instanceId}"): ours(instanceId="$instance#novita-deleted"),
    ("POST", "/api/instances/{instanceId}/start"): ours(202, instanceId="$stopped#novita-started"),
    ("POST", "/api/instances/start"): ours(202, body={"instanceName": "$stopped-name#started-by-name"}),
    ("POST", "/api/instances/{instanceId}/stop"): ours(instanceId="$instance#novita-stopped"),
    ("POST", "/api/instances/stop"): ours(body={"instanceName": "$instance-name#stopped-by-name"}),
    ("PUT", "/api/instances/{instanceId}/last-used"): ours(instanceId="$instance#1"),
    ("GET", "/api/metrics"): Row(),
    ("GET", "/api/cache/stats"): Row(),
    ("GET", "/api/instances/auto-stop/stats"): Row(),
    # for everybody
    ("GET", "/health"): Row(),
    ("GET", "/livez"): Row(),
    ("GET", "/readyz"): Row(),
    ("GET", "/metrics"): Row(),
    ("GET", "/openapi.json"): Row(),
}
