"""Questions webhook dispatch answers on `qry.webhook_dispatch.<tag>`, and the test it makes on
`sig.webhook_dispatch.test`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from proto.base import Query, Signal
from proto.health import GetHealth, GetMetrics
from proto.webhook_dispatch.words import (
    AttemptOutcome,
    DeliveryStatus,
    DisableReason,
    EndpointKind,
    EndpointStatus,
    Trigger,
)

LIST_LIMIT_MAX = 100
SERVICE = "webhook_dispatch"


class EndpointView(Struct, frozen=True, kw_only=True):
    """An endpoint as its owner may see it: never its secret."""

    endpoint_id: str
    account_id: str
    name: str
    url: str
    events: tuple[str, ...]
    status: EndpointStatus
    kind: EndpointKind
    created_at: datetime
    instance_id: str = ""
    has_secret: bool = False
    rate_limit_per_s: int = 0
    disabled_reason: DisableReason | None = None
    failing_since: datetime | None = None
    changed_at: datetime | None = None


class EndpointList(Struct, frozen=True):
    items: list[EndpointView]
    total: int


class AttemptView(Struct, frozen=True, kw_only=True):
    """One POST with what was sent and what came back. `body` is what was sent, byte for byte."""

    delivery_id: str
    number: int
    event_id: str
    event_type: str
    body: str
    attempted_at: datetime
    trigger: Trigger
    outcome: AttemptOutcome
    status_code: int
    error: str
    response: str
    took_ms: int
    delivery_status: DeliveryStatus
    next_at: datetime | None


class AttemptList(Struct, frozen=True):
    items: list[AttemptView]
    total: int


class DeliveryView(Struct, frozen=True, kw_only=True):
    """Where one delivery stands."""

    delivery_id: str
    event_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int
    event_at: datetime
    next_at: datetime | None
    reason: str


class DeliveryList(Struct, frozen=True):
    items: list[DeliveryView]
    total: int


class ProbeResult(Struct, frozen=True, kw_only=True):
    """What the receiver said to a test event. `error` is empty when an answer came."""

    outcome: AttemptOutcome
    delivery_id: str
    body: str
    took_ms: int
    status_code: int = 0
    error: str = ""
    response: str = ""


class GetEndpoint(Query, tag="endpoint", frozen=True, kw_only=True):
    service: ClassVar[str] = SERVICE
    reply: ClassVar[object] = EndpointView
    endpoint_id: str
    account_id: str


class ListEndpoints(Query, tag="endpoints", frozen=True, kw_only=True):
    """Newest first. Without `kind`, both the account's own and those given with an instance."""

    service: ClassVar[str] = SERVICE
    reply: ClassVar[object] = EndpointList
    account_id: str
    kind: EndpointKind | None = "account"
    enabled_only: bool = False
    limit: int = LIST_LIMIT_MAX
    offset: int = 0


class ListAttempts(Query, tag="attempts", frozen=True, kw_only=True):
    """Newest first."""

    service: ClassVar[str] = SERVICE
    reply: ClassVar[object] = AttemptList
    endpoint_id: str
    account_id: str
    delivery_id: str = ""
    outcome: AttemptOutcome | None = None
    limit: int = LIST_LIMIT_MAX
    offset: int = 0


class ListDeliveries(Query, tag="deliveries", frozen=True, kw_only=True):
    """Newest first."""

    service: ClassVar[str] = SERVICE
    reply: ClassVar[object] = DeliveryList
    endpoint_id: str
    account_id: str
    status: DeliveryStatus | None = None
    limit: int = LIST_LIMIT_MAX
    offset: int = 0


class ProbeEndpoint(Signal, tag="test", frozen=True, kw_only=True):
    """Send a made-up event now and say what came back. Nothing of it is kept."""

    service: ClassVar[str] = SERVICE
    reply: ClassVar[object] = ProbeResult
    endpoint_id: str
    account_id: str
    event_type: str = "instance.ready"


class GetWebhookDispatchHealth(GetHealth, tag="health", frozen=True):
    service: ClassVar[str] = SERVICE


class GetWebhookDispatchMetrics(GetMetrics, tag="metrics", frozen=True):
    service: ClassVar[str] = SERVICE


AnyQuery = (
    GetEndpoint | ListEndpoints | ListAttempts | ListDeliveries | GetWebhookDispatchHealth | GetWebhookDispatchMetrics
)
