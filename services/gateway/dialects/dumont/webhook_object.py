"""Webhooks, their deliveries and attempts as the Dumont dialect shows them (contract dumont 8). Pure field maps."""

from __future__ import annotations

from msgspec import Struct

from libs.sealed_urls import shown
from proto.webhook_dispatch.queries import AttemptView, DeliveryView, EndpointView, ProbeResult
from services.gateway.dialects import milliseconds, milliseconds_or_none

HIDDEN = "***"


class DumontWebhook(Struct, frozen=True, kw_only=True):
    """`secret` is the secret only in the answer that made it; later `***`, or null when there is none. In the `url`,
    `***` stands for what may be a credential: query values, and parts of the path that are no words."""

    id: str
    name: str
    url: str
    events: list[str]
    enabled: bool
    status: str
    secret: str | None
    rate_limit_per_s: int
    disabled_reason: str | None
    failing_since: str | None
    instance_id: str | None
    created_at: str
    updated_at: str | None
    previous_secret_until: str | None = None


class DumontAttempt(Struct, frozen=True, kw_only=True):
    """One POST; `payload` is what was sent, byte for byte; `response` is cut at a thousand characters."""

    id: str
    webhook_id: str
    delivery_id: str
    event_id: str
    event_type: str
    attempt: int
    trigger: str
    success: bool
    status_code: int | None
    error: str | None
    response: str
    took_ms: int
    payload: str
    delivery_status: str
    next_attempt_at: str | None
    created_at: str


class DumontDelivery(Struct, frozen=True, kw_only=True):
    id: str
    webhook_id: str
    event_id: str
    event_type: str
    status: str
    attempts: int
    next_attempt_at: str | None
    reason: str | None
    created_at: str


class DumontWebhookTest(Struct, frozen=True, kw_only=True):
    """What the receiver said to the test event."""

    status: str
    status_code: int | None
    response: str
    error: str | None
    attempt: int
    took_ms: int
    delivery_id: str
    payload: str


class WebhookDone(Struct, frozen=True):
    """The wish is taken on; `request_id` names it."""

    id: str
    done: str
    request_id: str | None = None


def webhook(view: EndpointView, *, secret: str = "", previous_secret_until: str | None = None) -> DumontWebhook:
    return DumontWebhook(
        id=view.endpoint_id,
        name=view.name,
        url=shown(view.url),
        events=list(view.events),
        enabled=view.status != "disabled",
        status=view.status,
        secret=secret or (HIDDEN if view.has_secret else None),
        rate_limit_per_s=view.rate_limit_per_s,
        disabled_reason=view.disabled_reason,
        failing_since=milliseconds_or_none(view.failing_since),
        instance_id=view.instance_id or None,
        created_at=milliseconds(view.created_at),
        updated_at=milliseconds_or_none(view.changed_at),
        previous_secret_until=previous_secret_until,
    )


def attempt(webhook_id: str, view: AttemptView) -> DumontAttempt:
    return DumontAttempt(
        id=f"{view.delivery_id}-{view.number}",
        webhook_id=webhook_id,
        delivery_id=view.delivery_id,
        event_id=view.event_id,
        event_type=view.event_type,
        attempt=view.number,
        trigger=view.trigger,
        success=view.outcome == "delivered",
        status_code=view.status_code or None,
        error=view.error or None,
        response=view.response,
        took_ms=view.took_ms,
        payload=view.body,
        delivery_status=view.delivery_status,
        next_attempt_at=milliseconds_or_none(view.next_at),
        created_at=milliseconds(view.attempted_at),
    )


def delivery(webhook_id: str, view: DeliveryView) -> DumontDelivery:
    return DumontDelivery(
        id=view.delivery_id,
        webhook_id=webhook_id,
        event_id=view.event_id,
        event_type=view.event_type,
        status=view.status,
        attempts=view.attempts,
        next_attempt_at=milliseconds_or_none(view.next_at),
        reason=view.reason or None,
        created_at=milliseconds(view.event_at),
    )


def test_result(result: ProbeResult) -> DumontWebhookTest:
    return DumontWebhookTest(
        status="success" if result.outcome == "delivered" else "failed",
        status_code=result.status_code or None,
        response=result.response,
        error=result.error or None,
        attempt=1,
        took_ms=result.took_ms,
        delivery_id=result.delivery_id,
        payload=result.body,
    )
