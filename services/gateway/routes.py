"""The table of every route, dialect by dialect. Read by the pipeline, the OpenAPI document and the tests."""

from __future__ import annotations

from services.gateway.dialects import Dialect, dumont, novita, operations
from services.gateway.dialects.dumont import (
    account,
    agents,
    api_keys,
    billing,
    events,
    failover,
    failover_settings,
    hibernation,
    machine_history,
    offers,
    snapshots,
    standby,
    warmpool,
    webhook_deliveries,
    webhooks,
)
from services.gateway.dialects.dumont import instances as dumont_instances
from services.gateway.dialects.novita import instances as novita_instances
from services.gateway.dialects.novita import platform
from services.gateway.routing import Route

ROUTES: tuple[Route, ...] = (
    *dumont_instances.ROUTES,
    *offers.ROUTES,
    *agents.ROUTES,
    *machine_history.ROUTES,
    *api_keys.ROUTES,
    *billing.ROUTES,
    *account.ROUTES,
    *failover.ROUTES,
    *failover_settings.ROUTES,
    *hibernation.ROUTES,
    *warmpool.ROUTES,
    *snapshots.ROUTES,
    *standby.ROUTES,
    *webhooks.ROUTES,
    *webhook_deliveries.ROUTES,
    *events.ROUTES,
    *novita_instances.ROUTES,
    *platform.ROUTES,
    *operations.ROUTES,
)


def dialect_of(path: str) -> Dialect:
    """In whose words an unknown path is refused."""
    if path.startswith("/api/v1/") or path == "/api/v1":
        return dumont.DIALECT
    if path.startswith("/api/") or path == "/health":
        return novita.DIALECT
    return operations.DIALECT


NO_DIALECT = operations.DIALECT
