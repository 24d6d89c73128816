"""Dumont: /api-keys. Issue, list, revoke (contract dumont 8). Only the answer to the POST has the secret."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Annotated

from msgspec import Meta, Struct

from libs.refusal import Refused
from proto.gateway.commands import IssueKey, RevokeKey
from proto.gateway.queries import KeyView
from proto.gateway.words import KEY_PREFIX, KEY_SECRET_BYTES, Plan, Scope, fingerprint
from services.gateway.auth import allows
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds, milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.routing import Route


class IssueBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`scopes` of the new key are at most those of the key that asks."""

    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=20)] = ("all",)
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class DumontKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`key` only when it has just been issued."""

    id: str
    name: str
    key_prefix: str
    last4: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    is_active: bool
    scopes: list[str]
    plan: str
    key: str | None = None


class DumontKeyRevoked(Struct, frozen=True):
    id: str
    revoked: bool


async def issue_key(call: Call) -> Answer:
    body: IssueBody = call.body
    for scope in body.scopes:
        if not allows(call.caller.scopes, scope):
            raise Refused("INSUFFICIENT_SCOPE", scope=scope)
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
    mark = fingerprint(key)
    wish = IssueKey(
        now=call.now,
        key_id=call.gateway.ids.fresh("key"),
        account_id=call.account_id,
        name=body.name,
        key_hash=mark.key_hash,
        prefix=mark.prefix,
        last4=mark.last4,
        scopes=tuple(dict.fromkeys(body.scopes)),
        plan=_plan(call),
        expires_at=call.now + timedelta(days=body.expires_in_days) if body.expires_in_days else None,
    )
    await _execute(call, wish)
    return ok(_key(call, issued_view(wish), key), 201)


async def list_keys(call: Call) -> Answer:
    return ok([_key(call, view) for view in call.gateway.keys.of_account(call.account_id)])


async def revoke_key(call: Call) -> Answer:
    key_id = call.path["id"]
    await _execute(call, RevokeKey(now=call.now, key_id=key_id, account_id=call.account_id))
    return ok(DumontKeyRevoked(key_id, revoked=True))


def issued_view(wish: IssueKey) -> KeyView:
    return KeyView(
        key_id=wish.key_id,
        account_id=wish.account_id,
        name=wish.name,
        prefix=wish.prefix,
        last4=wish.last4,
        scopes=wish.scopes,
        plan=wish.plan,
        issued_at=wish.now,
        expires_at=wish.expires_at,
        revoked_at=None,
    )


async def _execute(call: Call, wish: IssueKey | RevokeKey) -> None:
    call.position = await call.gateway.keys.execute(
        wish, cause=call.request_id, correlation=call.correlation_id, trace=call.trace
    )


def _plan(call: Call) -> Plan:
    """A new key is of the plan of the key that asks for it."""
    views = call.gateway.keys.of_account(call.account_id)
    plans: list[Plan] = [view.plan for view in views if view.key_id == call.caller.actor]
    return plans[0] if plans else "free"


def _key(call: Call, view: KeyView, secret: str | None = None) -> DumontKey:
    is_expired = view.expires_at is not None and view.expires_at <= call.now
    return DumontKey(
        id=view.key_id,
        name=view.name,
        key_prefix=view.prefix,
        last4=view.last4,
        created_at=milliseconds(view.issued_at),
        expires_at=milliseconds_or_none(view.expires_at),
        revoked_at=milliseconds_or_none(view.revoked_at),
        is_active=view.revoked_at is None and not is_expired,
        scopes=list(view.scopes),
        plan=view.plan,
        key=secret,
    )


ROUTES = (
    Route("POST", "/api/v1/api-keys", DIALECT, "keys:write", "write", issue_key, "Issue an API key",
          body=IssueBody, reply=DumontKey, statuses=(201,)),
    Route("GET", "/api/v1/api-keys", DIALECT, "keys:read", "read", list_keys, "List API keys", reply=list[DumontKey]),
    Route("DELETE", "/api/v1/api-keys/{id}", DIALECT, "keys:write", "write", revoke_key, "Revoke an API key",
          reply=DumontKeyRevoked),
)  # fmt: skip
