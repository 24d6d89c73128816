"""Dumont: /webhooks. Endpoints, their secrets, deliveries and what can be done by hand (contract dumont 8).

Secrets are made and sealed here, so that no message and no event carries one in the clear; only the answer to the
request that made one has it.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Annotated, Literal

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Meta, Struct

from libs.sealed_urls import HIDDEN, shown
from libs.sealing import Sealer, made_secret, signing_key
from libs.signing import SECRET_PREFIX
from proto.webhook_dispatch.commands import (
    ChangeEndpoint,
    ClearDefaultSecret,
    CreateEndpoint,
    DeleteEndpoint,
    EndpointCommand,
    PauseEndpoint,
    ResumeEndpoint,
    RotateSecret,
    SetDefaultSecret,
)
from proto.webhook_dispatch.queries import (
    LIST_LIMIT_MAX,
    EndpointList,
    EndpointView,
    GetEndpoint,
    ListEndpoints,
)
from proto.webhook_dispatch.words import (
    EVENT_TYPES,
    SECRET_PURPOSE,
    SEED_EVENT_TYPES,
    is_filter,
)
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok, page
from services.gateway.dialects.dumont.instances import NoBody
from services.gateway.dialects.dumont.webhook_object import (
    DumontWebhook,
    WebhookDone,
    webhook,
)
from services.gateway.dialects.receivers import receiver_url
from services.gateway.routing import Route
from services.gateway.validation import refuse

OVERLAP_HOURS_DEFAULT = 24
OVERLAP_HOURS_MAX = 168
PUBLIC_KEY_PREFIX = "whpk_"

Label = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Url = Annotated[str, Meta(max_length=500, pattern=r"^https?://[^\s/?#]+[^\s]*$")]
Events = Annotated[tuple[Annotated[str, Meta(max_length=60)], ...], Meta(min_length=1, max_length=50)]
SecretText = Annotated[str, Meta(min_length=8, max_length=100, pattern=r"^[\x21-\x7e]+$")]
Rate = Annotated[int, Meta(ge=0, le=1000)]


class CreateWebhookBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`events`: wire names, `instance.*`, or `*`. Without `secret` one is made and shown once."""

    name: Label
    url: Url
    events: Events
    secret: SecretText | None = None
    enabled: bool = True
    rate_limit_per_s: Rate = 0


class ChangeWebhookBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is left out stays as it is."""

    name: Label | None = None
    url: Url | None = None
    events: Events | None = None
    secret: SecretText | None = None
    enabled: bool | None = None
    rate_limit_per_s: Rate | None = None


class RotateBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """For `overlap_hours` the old secret signs beside the new one. Without `secret` one is made."""

    overlap_hours: Annotated[int, Meta(ge=0, le=OVERLAP_HOURS_MAX)] = OVERLAP_HOURS_DEFAULT
    secret: SecretText | None = None


class DefaultSecretBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Without `secret` one is made."""

    secret: SecretText | None = None


class ListWebhooksQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`kind=instance`: those given with an instance."""

    enabled_only: bool = False
    kind: Literal["account", "instance"] = "account"
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class EventType(Struct, frozen=True):
    """`seed`: one of the seventeen every installation has."""

    name: str
    group: str
    seed: bool


class DefaultSecret(Struct, frozen=True):
    """`secret` only in the answer that made it."""

    is_set: bool
    secret: str | None = None


class SigningKey(Struct, frozen=True):
    """For `v1a` signatures: ed25519 over `webhook-id.webhook-timestamp.body`."""

    id: str
    algorithm: str
    public_key: str


async def create_webhook(call: Call) -> Answer:
    body: CreateWebhookBody = call.body
    _check_events(body.events)
    webhook_id = call.derived_id("whe")
    made = made_secret(_platform_secret(call), purpose=SECRET_PURPOSE, owner=webhook_id)
    secret = body.secret or _shown(made)
    await call.command(
        CreateEndpoint(
            now=call.now,
            endpoint_id=webhook_id,
            account_id=call.account_id,
            name=body.name,
            url=receiver_url(call, "url", body.url),
            events=body.events,
            sealed_secret=_seal(call, secret, webhook_id),
            rate_limit_per_s=body.rate_limit_per_s,
            is_enabled=body.enabled,
            request_hash=call.request_hash(),
        )
    )
    view = await _view(call, webhook_id)
    call.replayed = view.created_at < call.now
    answer = ok(webhook(view, secret=secret), 201)
    answer.headers["Location"] = f"/api/v1/webhooks/{webhook_id}"
    return answer


async def list_webhooks(call: Call) -> Answer:
    query: ListWebhooksQuery = call.query
    found: EndpointList = await call.ask(
        ListEndpoints(
            account_id=call.account_id,
            kind=query.kind,
            enabled_only=query.enabled_only,
            limit=query.limit,
            offset=query.offset,
        )
    )
    return page([webhook(view) for view in found.items], total=found.total, limit=query.limit, offset=query.offset)


async def get_webhook(call: Call) -> Answer:
    return ok(webhook(await _view(call, call.path["id"])))


async def change_webhook(call: Call) -> Answer:
    body: ChangeWebhookBody = call.body
    if body.events is not None:
        _check_events(body.events)
    webhook_id = call.path["id"]
    wish = ChangeEndpoint(
        now=call.now,
        request_id=call.wish_id("change_webhook"),
        endpoint_id=webhook_id,
        account_id=call.account_id,
        name=body.name,
        url=await _changed_url(call, webhook_id, body.url),
        events=body.events,
        sealed_secret=None if body.secret is None else _seal(call, body.secret, webhook_id),
        rate_limit_per_s=body.rate_limit_per_s,
        is_enabled=body.enabled,
    )
    await call.command(wish)
    return await get_webhook(call)


async def _changed_url(call: Call, webhook_id: str, url: str | None) -> str | None:
    """None for none, and for the URL as it is shown: whoever sends back what was read changes nothing."""
    if url is None or (HIDDEN in url and url == shown((await _view(call, webhook_id)).url)):
        return None
    return receiver_url(call, "url", url)


async def delete_webhook(call: Call) -> Answer:
    await _wish(call, DeleteEndpoint)
    return ok(WebhookDone(call.path["id"], "deleted"))


async def pause_webhook(call: Call) -> Answer:
    await _wish(call, PauseEndpoint)
    return await get_webhook(call)


async def resume_webhook(call: Call) -> Answer:
    await _wish(call, ResumeEndpoint)
    return await get_webhook(call)


async def rotate_secret(call: Call) -> Answer:
    body: RotateBody = call.body
    webhook_id, wish_id = call.path["id"], call.wish_id("rotate_secret")
    secret = body.secret or _new_secret(call, webhook_id, wish_id)
    until = call.now + timedelta(hours=body.overlap_hours)
    await call.command(
        RotateSecret(
            now=call.now,
            request_id=wish_id,
            endpoint_id=webhook_id,
            account_id=call.account_id,
            sealed_secret=_seal(call, secret, webhook_id),
            old_until=until,
        )
    )
    view = await _view(call, webhook_id)
    return ok(webhook(view, secret=secret, previous_secret_until=milliseconds(until)))


async def event_types(_call: Call) -> Answer:
    return ok([EventType(name, name.partition(".")[0], name in SEED_EVENT_TYPES) for name in EVENT_TYPES])


async def signing_keys(call: Call) -> Answer:
    key = signing_key(_platform_secret(call), purpose=SECRET_PURPOSE).public_key()
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return ok([SigningKey("1", "ed25519", PUBLIC_KEY_PREFIX + base64.b64encode(raw).decode())])


async def set_default_secret(call: Call) -> Answer:
    body: DefaultSecretBody = call.body
    wish_id = call.wish_id("default_secret")
    secret = body.secret or _new_secret(call, call.account_id, wish_id)
    sealed = _seal(call, secret, call.account_id)
    await call.command(
        SetDefaultSecret(now=call.now, request_id=wish_id, account_id=call.account_id, sealed_secret=sealed)
    )
    return ok(DefaultSecret(is_set=True, secret=secret))


async def clear_default_secret(call: Call) -> Answer:
    wish_id = call.wish_id("clear_default_secret")
    await call.command(ClearDefaultSecret(now=call.now, request_id=wish_id, account_id=call.account_id))
    return ok(DefaultSecret(is_set=False))


async def _view(call: Call, webhook_id: str) -> EndpointView:
    return await call.ask(GetEndpoint(endpoint_id=webhook_id, account_id=call.account_id))


async def _wish(call: Call, kind: type[EndpointCommand]) -> None:
    wish_id = call.wish_id(kind.__name__)
    await call.command(kind(now=call.now, request_id=wish_id, endpoint_id=call.path["id"], account_id=call.account_id))


def _check_events(events: tuple[str, ...]) -> None:
    for name in events:
        if not is_filter(name):
            refuse("events", f"Unknown event {name}; GET /api/v1/webhooks/events/types lists them", name)


def _platform_secret(call: Call) -> str:
    return call.gateway.settings.secret.reveal()


def _new_secret(call: Call, owner: str, wish_id: str) -> str:
    """Another for every wish, and the same for its repeat: the answer to that shows what the first has set."""
    return _shown(made_secret(_platform_secret(call), purpose=SECRET_PURPOSE, owner=f"{owner}:{wish_id}"))


def _seal(call: Call, secret: str, owner: str) -> str:
    return Sealer(_platform_secret(call), purpose=SECRET_PURPOSE).seal(secret, owner=owner)


def _shown(raw: bytes) -> str:
    return SECRET_PREFIX + base64.b64encode(raw).decode()


_AT = "/api/v1/webhooks"
_READ, _WRITE = "webhooks:read", "webhooks:write"
ROUTES = (
    Route("GET", _AT, DIALECT, _READ, "read", list_webhooks, "List webhooks", query=ListWebhooksQuery,
          reply=list[DumontWebhook], has_meta=True),
    Route("POST", _AT, DIALECT, _WRITE, "write", create_webhook, "Create a webhook", body=CreateWebhookBody,
          reply=DumontWebhook, statuses=(201,),
          example={"name": "production", "url": "https://your-app.com/webhook", "events": ["instance.*"]}),
    Route("GET", f"{_AT}/events/types", DIALECT, _READ, "read", event_types, "List event types",
          reply=list[EventType]),
    Route("GET", f"{_AT}/signing-keys", DIALECT, _READ, "read", signing_keys, "Public keys of v1a signatures",
          reply=list[SigningKey]),
    Route("PUT", f"{_AT}/default-secret", DIALECT, _WRITE, "write", set_default_secret,
          "Sign webhooks of instances", body=DefaultSecretBody, reply=DefaultSecret),
    Route("DELETE", f"{_AT}/default-secret", DIALECT, _WRITE, "write", clear_default_secret,
          "Stop signing webhooks of instances", body=NoBody, reply=DefaultSecret),
    Route("GET", f"{_AT}/{{id}}", DIALECT, _READ, "read", get_webhook, "Read a webhook", reply=DumontWebhook),
    Route("PUT", f"{_AT}/{{id}}", DIALECT, _WRITE, "write", change_webhook, "Change a webhook",
          body=ChangeWebhookBody, reply=DumontWebhook),
    Route("DELETE", f"{_AT}/{{id}}", DIALECT, _WRITE, "write", delete_webhook, "Delete a webhook", body=NoBody,
          reply=WebhookDone),
    Route("POST", f"{_AT}/{{id}}/rotate-secret", DIALECT, _WRITE, "write", rotate_secret, "Rotate the secret",
          body=RotateBody, reply=DumontWebhook),
    Route("POST", f"{_AT}/{{id}}/pause", DIALECT, _WRITE, "write", pause_webhook, "Pause a webhook", body=NoBody,
          reply=DumontWebhook),
    Route("POST", f"{_AT}/{{id}}/resume", DIALECT, _WRITE, "write", resume_webhook, "Resume a webhook", body=NoBody,
          reply=DumontWebhook),
)  # fmt: skip
