"""Dumont: what goes to a webhook: deliveries, attempts, and sending again by hand (contract dumont 8)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from libs.refusal import Refused
from proto.webhook_dispatch.commands import RequestRecovery, RequestResend
from proto.webhook_dispatch.queries import (
    LIST_LIMIT_MAX,
    AttemptList,
    DeliveryList,
    EndpointView,
    GetEndpoint,
    ListAttempts,
    ListDeliveries,
    ProbeEndpoint,
)
from services.gateway.call import Answer, Call
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok, page
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.dialects.dumont.webhook_object import (
    DumontAttempt,
    DumontDelivery,
    DumontWebhookTest,
    WebhookDone,
    attempt,
    delivery,
    test_result,
)
from services.gateway.routing import Route
from services.gateway.validation import refuse


class AttemptsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    outcome: Literal["delivered", "failed"] | None = None
    delivery_id: Annotated[str, Meta(max_length=128)] = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class DeliveriesQuery(Struct, frozen=True, forbid_unknown_fields=True):
    status: Literal["waiting", "retrying", "delivered", "exhausted", "skipped"] | None = None
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class RecoverQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Without `since`, the last day."""

    since: datetime | None = None


async def test_webhook(call: Call) -> Answer:
    view: EndpointView = await call.ask(
        GetEndpoint(endpoint_id=call.path["id"], account_id=call.account_id)
    )  # and by then every replica's rows show it
    result = await call.ask(ProbeEndpoint(endpoint_id=view.endpoint_id, account_id=call.account_id))
    return ok(test_result(result))


async def list_attempts(call: Call) -> Answer:
    query: AttemptsQuery = call.query
    webhook_id = call.path["id"]
    found: AttemptList = await call.ask(
        ListAttempts(
            endpoint_id=webhook_id,
            account_id=call.account_id,
            delivery_id=query.delivery_id,
            outcome=query.outcome,
            limit=query.limit,
            offset=query.offset,
        )
    )
    items = [attempt(webhook_id, view) for view in found.items]
    return page(items, total=found.total, limit=query.limit, offset=query.offset)


async def list_deliveries(call: Call) -> Answer:
    query: DeliveriesQuery = call.query
    webhook_id = call.path["id"]
    asked = ListDeliveries(
        endpoint_id=webhook_id, account_id=call.account_id, status=query.status, limit=query.limit, offset=query.offset
    )
    found: DeliveryList = await call.ask(asked)
    items = [delivery(webhook_id, view) for view in found.items]
    return page(items, total=found.total, limit=query.limit, offset=query.offset)


async def resend_attempt(call: Call) -> Answer:
    """By the id of an attempt, or of its delivery."""
    webhook_id, delivery_id = call.path["id"], call.path["attempt"].partition("-")[0]
    found: AttemptList = await call.ask(
        ListAttempts(endpoint_id=webhook_id, account_id=call.account_id, delivery_id=delivery_id, limit=1)
    )
    if not found.items:
        raise Refused("DELIVERY_NOT_FOUND", delivery_id=delivery_id)
    request_id = call.derived_id("resend")
    await call.command(
        RequestResend(
            now=call.now,
            endpoint_id=webhook_id,
            account_id=call.account_id,
            delivery_id=delivery_id,
            request_id=request_id,
        )
    )
    return ok(WebhookDone(webhook_id, "resending", request_id), 202)


async def recover_webhook(call: Call) -> Answer:
    query: RecoverQuery = call.query
    since = query.since or call.now - timedelta(days=1)
    if since.tzinfo is None:
        refuse("since", "since must say its time zone, for example 2026-01-31T12:00:00Z")
    webhook_id, request_id = call.path["id"], call.derived_id("recovery")
    await call.command(
        RequestRecovery(
            now=call.now, endpoint_id=webhook_id, account_id=call.account_id, since=since, request_id=request_id
        )
    )
    return ok(WebhookDone(webhook_id, "recovering", request_id), 202)


_AT = "/api/v1/webhooks"
_READ, _WRITE = "webhooks:read", "webhooks:write"
ROUTES = (
    Route("POST", f"{_AT}/{{id}}/test", DIALECT, _WRITE, "write", test_webhook, "Send a test event", body=NoBody,
          reply=DumontWebhookTest),
    *(
        Route("GET", f"{_AT}/{{id}}/{name}", DIALECT, _READ, "read", list_attempts, summary, query=AttemptsQuery,
              reply=list[DumontAttempt], has_meta=True)
        for name, summary in (("attempts", "List attempts"), ("logs", "List attempts (alias)"))
    ),
    Route("GET", f"{_AT}/{{id}}/deliveries", DIALECT, _READ, "read", list_deliveries, "List deliveries",
          query=DeliveriesQuery, reply=list[DumontDelivery], has_meta=True),
    Route("POST", f"{_AT}/{{id}}/attempts/{{attempt}}/resend", DIALECT, _WRITE, "write", resend_attempt,
          "Send one delivery again", body=NoBody, reply=WebhookDone, statuses=(202,)),
    Route("POST", f"{_AT}/{{id}}/recover", DIALECT, _WRITE, "write", recover_webhook,
          "Send again what did not arrive", body=NoBody, query=RecoverQuery, reply=WebhookDone, statuses=(202,)),
)  # fmt: skip
