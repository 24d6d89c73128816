"""Closed word sets and shared shapes of webhook dispatch.

Words: an *endpoint* is a URL that wants to hear facts of its account; a *delivery* is one fact on its way to one
endpoint, with its own id and stored bytes; an *attempt* is one POST of it; a *lane* is what keeps order: deliveries of
one instance to one endpoint; a *mailbox* is where outcomes are written down: one endpoint, a stretch of the public
stream.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from msgspec import Struct

EndpointKind = Literal["account", "instance"]
# paused: facts are kept and sent after the pause; disabled: facts are not taken on (`recover` fetches them later).
EndpointStatus = Literal["enabled", "paused", "disabled"]
# waiting: not tried yet; retrying: tried, `next_at` is set; skipped: not taken on because too many were waiting.
DeliveryStatus = Literal["waiting", "retrying", "delivered", "exhausted", "skipped"]
Trigger = Literal["event", "retry", "resend", "recovery"]
AttemptOutcome = Literal["delivered", "failed"]
DisableReason = Literal["user_request", "gone", "failing"]

ANY = "*"
SECRET_PURPOSE = "webhook-secret"  # noqa: S105 - what libs.sealing is told, not a secret
# Seed 000, Eventos Disponiveis.
SEED_EVENT_TYPES = (
    "instance.created",
    "instance.started",
    "instance.stopped",
    "instance.deleted",
    "instance.interrupted",
    "instance.hibernated",
    "failover.started",
    "failover.warm_pool_success",
    "failover.cpu_standby_success",
    "failover.completed",
    "failover.failed",
    "warmpool.provisioned",
    "warmpool.degraded",
    "standby.sync_started",
    "standby.sync_completed",
    "balance.low",
    "agent.heartbeat_lost",
)
# Seeds 001, 002 and 004, what lies between their statuses, what money and snapshots come to, and what an endpoint may
# want to know of its siblings.
EVENT_TYPES = (
    *SEED_EVENT_TYPES,
    "instance.ready",
    "instance.failed",
    "instance.migrated",
    "instance.starting",
    "instance.running",
    "instance.health_checking",
    "instance.stopping",
    "instance.deleting",
    "webhook.failing",
    "webhook.recovered",
    "webhook.disabled",
    "failover.cloud_storage_success",
    "failover.regional_volume_success",
    "snapshot.completed",
    "snapshot.failed",
    "balance.exhausted",
    "balance.suspended",
    "balance.storage_expiring",
    "balance.storage_expired",
    "balance.restored",
)
# What a `webhookUrl` given with an instance hears: every status of it once, so not also seed 000's `instance.started`,
# which says the same as `instance.ready`.
INSTANCE_EVENT_TYPES = tuple(
    name for name in EVENT_TYPES if name.startswith("instance.") and name != "instance.started"
)

RETENTION_DAYS = 30  # deliveries and their attempts can be looked at and sent again this long after their last change
MAILBOX_SEQS = 8_192  # of PUB in one mailbox: it then never holds more deliveries, and folds in milliseconds


class Delivery(Struct, frozen=True, omit_defaults=True, gc=False):
    """One fact for one endpoint. `body` is what is sent, byte for byte, each time. `delivery_id` is `webhook-id`."""

    delivery_id: str
    event_id: str
    event_type: str
    lane: str
    public_seq: int
    event_at: datetime
    body: str
    correlation: str = ""
    trace: str = ""


class Attempt(Struct, frozen=True, omit_defaults=True, gc=False):
    """One POST. `number` counts from 1 over the life of the delivery; `error` is empty when an answer came."""

    number: int
    at: datetime
    trigger: Trigger
    outcome: AttemptOutcome
    took_ms: int
    status_code: int = 0
    error: str = ""
    response: str = ""  # the first characters of the answer's body


def mailbox_of(endpoint_id: str, public_seq: int) -> str:
    """Always the same for one delivery, so that a repeat meets what was written down before."""
    return f"{endpoint_id}_{public_seq // MAILBOX_SEQS}"


def wants(filters: Collection[str], event_type: str) -> bool:
    """Whether an endpoint with these filters (`*`, `instance.*`, `instance.ready`) hears this event."""
    return ANY in filters or event_type in filters or event_type.partition(".")[0] + ".*" in filters


def is_filter(text: str) -> bool:
    """Whether a filter can match anything."""
    return text == ANY or text in EVENT_TYPES or text in {name.partition(".")[0] + ".*" for name in EVENT_TYPES}
