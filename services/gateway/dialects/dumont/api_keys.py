"""Dumont: /api-keys. Issue, list, rotate, revoke (contract dumont 8). Only the answer that made a key has the secret.

With an Idempotency-Key the secret is derived from it and the platform secret, so that a repeat shows the same one;
neither alone is enough to make it again. Without one it is random.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import asdict

from libs.refusal import Refused
from libs.sealing import made_secret
from proto.gateway.commands import IssueKey, KeyCommand, RevokeKey, RotateKey
from proto.gateway.queries import KeyView
from proto.gateway.words import KEY_PREFIX, KEY_SECRET_BYTES, Scope, fingerprint
from services.gateway.auth import allows
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds, milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.keys import Known
from services.gateway.routing import Route

EXPIRES_DAYS_MAX = 3650
OVERLAP_MINUTES_DEFAULT = 24 * 60
OVERLAP_MINUTES_MAX = 30 * 24 * 60  # a key that was leaked is revoked, not rotated for months

Days = Annotated[int, Meta(ge=1, le=EXPIRES_DAYS_MAX)]


class IssueBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`scopes` of the new key are at most those of the key that asks."""

    name: Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=50)] = ("all",)
    expires_in_days: Days | None = None


class RotateKeyBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The old key works for `overlap_minutes` beside the new one. `expires_in_days` is of the new key."""

    overlap_minutes: Annotated[int, Meta(ge=0, le=OVERLAP_MINUTES_MAX)] = OVERLAP_MINUTES_DEFAULT
    expires_in_days: Days | None = None


class DumontKey(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`key` only when it has just been issued. `last_used_at` is true to five minutes, null when never used."""

    id: str
    name: str
    key_prefix: str
    last4: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    is_active: bool
    scopes: list[str]
    plan: str
    successor_id: str | None = None
    replaces: str | None = None
    replaced_valid_until: str | None = None
    key: str | None = None


class DumontKeyRevoked(Struct, frozen=True):
    id: str
    revoked: bool


async def issue_key(call: Call) -> Answer:
    body: IssueBody = call.body
    _require_scopes(call, body.scopes)
    key_id = call.derived_id("key")
    call.replayed = call.gateway.keys.get(call.account_id, key_id) is not None
    key = _secret(call, key_id)
    wish = IssueKey(
        now=call.now,
        key_id=key_id,
        account_id=call.account_id,
        actor=call.caller.actor,
        name=body.name,
        **asdict(fingerprint(key)),
        scopes=tuple(dict.fromkeys(body.scopes)),
        plan=call.caller.plan,
        expires_at=_expiry(call, body.expires_in_days),
    )
    await _execute(call, wish)
    return ok(_made(call, wish, key), 201)


async def list_keys(call: Call) -> Answer:
    return ok([_key(call, view) for view in call.gateway.keys.of_account(call.account_id)])


async def rotate_key(call: Call) -> Answer:
    """The successor first: dying between the two leaves both working, and a repeat finishes."""
    body: RotateKeyBody = call.body
    old = _own(call, call.path["id"])
    _require_scopes(call, old.issued.scopes)
    key_id = call.derived_id("key", old.issued.key_id)
    call.replayed = call.gateway.keys.get(call.account_id, key_id) is not None
    if not call.replayed:
        _require_rotatable(call, old)
    key = _secret(call, key_id)
    wish = IssueKey(
        now=call.now,
        key_id=key_id,
        account_id=call.account_id,
        actor=call.caller.actor,
        name=old.issued.name,
        **asdict(fingerprint(key)),
        scopes=old.issued.scopes,
        plan=call.caller.plan,
        expires_at=_expiry(call, body.expires_in_days),
        replaces=old.issued.key_id,
    )
    await _execute(call, wish)
    ends = RotateKey(
        now=call.now,
        key_id=old.issued.key_id,
        account_id=call.account_id,
        actor=call.caller.actor,
        successor_id=key_id,
        valid_until=call.now + timedelta(minutes=body.overlap_minutes),
    )
    await _execute(call, ends)
    return ok(_made(call, wish, key), 201)


async def revoke_key(call: Call) -> Answer:
    key_id = call.path["id"]
    await _execute(call, RevokeKey(now=call.now, key_id=key_id, account_id=call.account_id, actor=call.caller.actor))
    return ok(DumontKeyRevoked(key_id, revoked=True))


async def _execute(call: Call, wish: KeyCommand) -> None:
    call.position = await call.gateway.keys.execute(
        wish, cause=call.request_id, correlation=call.correlation_id, trace=call.trace
    )


def _own(call: Call, key_id: str) -> Known:
    known = call.gateway.keys.get(call.account_id, key_id)
    if known is None:
        raise Refused("API_KEY_NOT_FOUND", key_id=key_id)
    return known


def _require_scopes(call: Call, scopes: tuple[Scope, ...]) -> None:
    """Whoever gets a secret may do no more with it than before."""
    for scope in scopes:
        if not allows(call.caller.scopes, scope):
            raise Refused("INSUFFICIENT_SCOPE", scope=scope)


def _require_rotatable(call: Call, old: Known) -> None:
    """Before the successor is issued; the decider asks again, against its own state."""
    key_id = old.issued.key_id
    if old.revoked_at is not None:
        raise Refused("INVALID_STATE", key_id=key_id, status="revoked")
    if old.successor_id:
        raise Refused("INVALID_STATE", key_id=key_id, status="rotated", successor_id=old.successor_id)
    if not old.is_live(call.now):
        raise Refused("INVALID_STATE", key_id=key_id, status="expired")


def _secret(call: Call, key_id: str) -> str:
    if not call.idempotency_key:
        return KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
    platform_secret = call.gateway.settings.secret.reveal()
    made = made_secret(platform_secret, purpose="api-key", owner=f"{key_id}:{call.idempotency_key}")
    return KEY_PREFIX + base64.urlsafe_b64encode(made).decode().rstrip("=")


def _expiry(call: Call, days: int | None) -> datetime | None:
    return call.now + timedelta(days=days) if days else None


def _made(call: Call, wish: IssueKey, secret: str) -> DumontKey:
    """From the index: a repeat tells of the first. The index may be late; then what was wished is what there is."""
    known = call.gateway.keys.get(call.account_id, wish.key_id)
    if known is None:
        view = KeyView(
            key_id=wish.key_id,
            account_id=wish.account_id,
            name=wish.name,
            prefix=wish.prefix,
            last4=wish.last4,
            scopes=wish.scopes,
            plan=call.caller.plan,
            issued_at=wish.now,
            expires_at=wish.expires_at,
            revoked_at=None,
        )
    else:
        view = known.view(call.caller.plan)
    old = call.gateway.keys.get(call.account_id, wish.replaces) if wish.replaces else None
    return _key(call, view, secret, old)


def _key(call: Call, view: KeyView, secret: str | None = None, old: Known | None = None) -> DumontKey:
    is_expired = view.expires_at is not None and view.expires_at <= call.now
    return DumontKey(
        id=view.key_id,
        name=view.name,
        key_prefix=view.prefix,
        last4=view.last4,
        created_at=milliseconds(view.issued_at),
        expires_at=milliseconds_or_none(view.expires_at),
        revoked_at=milliseconds_or_none(view.revoked_at),
        last_used_at=milliseconds_or_none(view.last_used_at),
        is_active=view.revoked_at is None and not is_expired,
        scopes=list(view.scopes),
        plan=view.plan,
        successor_id=view.successor_id or None,
        replaces=old.issued.key_id if old is not None else None,
        replaced_valid_until=milliseconds_or_none(old.expires_at) if old is not None else None,
        key=secret,
    )


ROUTES = (
    Route("POST", "/api/v1/api-keys", DIALECT, "keys:write", "write", issue_key, "Issue an API key",
          body=IssueBody, reply=DumontKey, statuses=(201,),
          example={"name": "ci", "scopes": ["instances:read"], "expires_in_days": 90}),
    Route("GET", "/api/v1/api-keys", DIALECT, "keys:read", "read", list_keys, "List API keys", reply=list[DumontKey]),
    Route("POST", "/api/v1/api-keys/{id}/rotate", DIALECT, "keys:write", "write", rotate_key,
          "Replace an API key; the old one works on for a while", body=RotateKeyBody, reply=DumontKey,
          statuses=(201,)),
    Route("DELETE", "/api/v1/api-keys/{id}", DIALECT, "keys:write", "write", revoke_key, "Revoke an API key",
          reply=DumontKeyRevoked),
)  # fmt: skip
