"""Which rows of `schema.sql` follow from one event. Pure; called by the runtime for every own event, in log order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from libs.runtime.service import Row, deadline, no_deadline, wish
from proto.base import Heard
from proto.webhook_dispatch.commands import DisableIfFailing, ForgetDeliveries
from proto.webhook_dispatch.events import (
    DefaultSecretCleared,
    DefaultSecretSet,
    DeliveriesForgotten,
    DeliveriesRecorded,
    EndpointChanged,
    EndpointCreated,
    EndpointDeleted,
    EndpointDisabled,
    EndpointEnabled,
    EndpointFailing,
    EndpointPaused,
    EndpointRecovered,
    EndpointResumed,
    Recorded,
    SecretRotated,
)
from proto.webhook_dispatch.words import RETENTION_DAYS, Attempt
from services.webhook_dispatch.decider.mailbox import SETTLED

DISABLE = "disable"
FORGET = "forget"


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one event; nothing for requests, which leave no trace of their own."""
    match heard.event:
        case DeliveriesRecorded() as event:
            for recorded in event.records:
                yield from _delivery(heard.aggregate_id, event, recorded)
            if any(recorded.status in SETTLED for recorded in event.records):
                yield _forget_at(heard, event, heard.at + timedelta(days=RETENTION_DAYS))
        case DeliveriesForgotten() as event:
            yield from _forgotten(heard, event)
        case DefaultSecretSet(account_id=account_id, sealed_secret=sealed):
            yield Row("default_secrets", {"account_id": account_id}, {"sealed_secret": sealed})
        case DefaultSecretCleared(account_id=account_id):
            yield Row("default_secrets", {"account_id": account_id}, None)
        case EndpointFailing() as event:
            yield _endpoint(heard, failing_since=event.since)
            disable = wish(DisableIfFailing, endpoint_id=event.endpoint_id, account_id=event.account_id)
            yield deadline(heard.aggregate_id, DISABLE, event.disable_at, disable)
        case EndpointRecovered() | EndpointResumed() | EndpointEnabled() | EndpointDisabled() | EndpointDeleted():
            yield from _well_or_gone(heard)
        case _:
            yield from _settings(heard)


def _forget_at(heard: Heard, event: DeliveriesRecorded | DeliveriesForgotten, due_at: datetime) -> Row:
    about = {"mailbox_id": heard.aggregate_id, "endpoint_id": event.endpoint_id, "account_id": event.account_id}
    return deadline(heard.aggregate_id, FORGET, due_at, wish(ForgetDeliveries, **about))


def _forgotten(heard: Heard, event: DeliveriesForgotten) -> Iterator[Row]:
    for each in event.deliveries:
        yield Row("deliveries", {"delivery_id": each.delivery_id}, None)
        for number in range(1, each.attempts + 1):
            yield Row("attempts", {"delivery_id": each.delivery_id, "number": number}, None)
    yield _forget_at(heard, event, heard.at) if event.has_more else no_deadline(heard.aggregate_id, FORGET)


def _endpoint(heard: Heard, **columns: Any) -> Row:
    return Row("endpoints", {"endpoint_id": heard.aggregate_id}, columns)


def _settings(heard: Heard) -> Iterator[Row]:
    """What its owner says about an endpoint."""
    match heard.event:
        case EndpointCreated() as event:
            yield _endpoint(
                heard,
                account_id=event.account_id,
                name=event.name,
                url=event.url,
                events=event.events,
                kind=event.kind,
                instance_id=event.instance_id,
                status="enabled" if event.is_enabled else "disabled",
                disabled_reason=None if event.is_enabled else "user_request",
                sealed_secret=event.sealed_secret,
                rate_limit_per_s=event.rate_limit_per_s,
                created_at=heard.at,
            )
        case EndpointChanged() as event:
            secret = {"sealed_secret": event.sealed_secret} if event.sealed_secret else {}
            yield _endpoint(
                heard,
                name=event.name,
                url=event.url,
                events=event.events,
                rate_limit_per_s=event.rate_limit_per_s,
                changed_at=heard.at,
                **secret,
            )
        case SecretRotated() as event:
            yield _endpoint(
                heard,
                sealed_secret=event.sealed_secret,
                sealed_old_secret=event.sealed_old_secret,
                old_until=event.old_until,
                changed_at=heard.at,
            )
        case EndpointPaused():
            yield _endpoint(heard, status="paused", changed_at=heard.at)
        case _:
            return


def _well_or_gone(heard: Heard) -> Iterator[Row]:
    """Whatever ends its failing withdraws the deadline."""
    columns: dict[str, Any] = {"failing_since": None}
    match heard.event:
        case EndpointResumed() | EndpointEnabled():
            columns |= {"status": "enabled", "disabled_reason": None, "changed_at": heard.at}
        case EndpointDisabled(reason=reason):
            columns |= {"status": "disabled", "disabled_reason": reason, "changed_at": heard.at}
        case EndpointDeleted():
            columns |= {"deleted_at": heard.at}
        case _:
            pass
    yield _endpoint(heard, **columns)
    yield no_deadline(heard.aggregate_id, DISABLE)


def _delivery(mailbox_id: str, event: DeliveriesRecorded, recorded: Recorded) -> Iterator[Row]:
    columns: dict[str, Any] = {
        "status": recorded.status,
        "reason": recorded.reason,
        "attempts": recorded.attempts,
        "tries": recorded.tries,
        "next_at": recorded.next_at,
    }
    delivery = recorded.delivery
    if delivery is not None:
        columns |= {
            "endpoint_id": event.endpoint_id,
            "account_id": event.account_id,
            "mailbox_id": mailbox_id,
            "event_id": delivery.event_id,
            "event_type": delivery.event_type,
            "lane": delivery.lane,
            "public_seq": delivery.public_seq,
            "event_at": delivery.event_at,
            "body": delivery.body,
            "correlation": delivery.correlation,
            "trace": delivery.trace,
        }
    attempt = recorded.attempt
    if attempt is not None and attempt.number == 1 and attempt.outcome == "delivered":
        columns |= {
            "first_at": attempt.at,
            "first_status_code": attempt.status_code,
            "first_took_ms": attempt.took_ms,
            "first_response": attempt.response,
        }
    elif attempt is not None:
        yield _attempt(event, recorded, attempt)
    yield Row("deliveries", {"delivery_id": recorded.delivery_id}, columns)


def _attempt(event: DeliveriesRecorded, recorded: Recorded, attempt: Attempt) -> Row:
    return Row(
        "attempts",
        {"delivery_id": recorded.delivery_id, "number": attempt.number},
        {
            "endpoint_id": event.endpoint_id,
            "at": attempt.at,
            "triggered_by": attempt.trigger,
            "outcome": attempt.outcome,
            "status_code": attempt.status_code,
            "error": attempt.error,
            "response": attempt.response,
            "took_ms": attempt.took_ms,
        },
    )
