"""Facts of the gateway: one aggregate per API key (`api_key`). Private: nobody else needs to hear them."""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.gateway.words import Plan, Scope


class KeyIssued(Event, tag="key.issued", kw_only=True, frozen=True):
    """A key may be used from now on. `key_hash` is the SHA-256 of the secret, in hex."""

    key_id: str
    account_id: str
    name: str
    key_hash: str
    prefix: str
    last4: str
    issued_at: datetime
    scopes: tuple[Scope, ...] = ("all",)
    plan: Plan = "free"
    expires_at: datetime | None = None


class KeyRevoked(Event, tag="key.revoked", kw_only=True, frozen=True):
    """The key is refused from now on, for ever."""

    key_id: str
    account_id: str
    revoked_at: datetime
    reason: str = "user_request"


AnyEvent = KeyIssued | KeyRevoked
