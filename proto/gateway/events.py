"""Facts of the gateway: one aggregate per API key (`api_key`), per account (`account`) and per UTC day (`usage`).
Private: nobody else needs to hear them; the account reads its own at /audit.

`actor` is the key that asked (`key_…`), or `operator` for the command line of whoever runs the installation.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from proto.base import Event
from proto.gateway.words import Plan, Scope


class KeyIssued(Event, tag="key.issued", kw_only=True, frozen=True):
    """A key may be used from now on. `key_hash` is the SHA-256 of the secret, in hex; `replaces` the key it follows."""

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
    replaces: str = ""
    actor: str = ""


class KeyRotated(Event, tag="key.rotated", kw_only=True, frozen=True):
    """Another key follows this one, which works beside it until `valid_until` and not a moment longer."""

    key_id: str
    account_id: str
    successor_id: str
    rotated_at: datetime
    valid_until: datetime
    actor: str = ""


class KeyRevoked(Event, tag="key.revoked", kw_only=True, frozen=True):
    """The key is refused from now on, for ever."""

    key_id: str
    account_id: str
    revoked_at: datetime
    reason: str = "user_request"
    actor: str = ""


class AccountOpened(Event, tag="account.opened", kw_only=True, frozen=True):
    """The account exists, on this plan."""

    account_id: str
    name: str
    plan: Plan
    opened_at: datetime
    actor: str = ""


class PlanChanged(Event, tag="account.plan_changed", kw_only=True, frozen=True):
    """The limits of another plan hold from now on."""

    account_id: str
    plan: Plan
    previous: Plan
    changed_at: datetime
    actor: str = ""


class KeyUse(Struct, frozen=True, gc=False):
    """A key was last used about then."""

    key_id: str
    last_used_at: datetime


class AccountUse(Struct, frozen=True, gc=False):
    """As many requests of the account counted against its daily limit so far."""

    account_id: str
    requests: int


class UsageNoted(Event, tag="usage.noted", kw_only=True, frozen=True):
    """What was used since the last note of this UTC day (`YYYYMMDD`): many keys at once, about once a minute."""

    day: str
    keys: tuple[KeyUse, ...] = ()
    accounts: tuple[AccountUse, ...] = ()


KeyEvent = KeyIssued | KeyRotated | KeyRevoked
AccountEvent = AccountOpened | PlanChanged
UsageEvent = UsageNoted
AnyEvent = KeyIssued | KeyRotated | KeyRevoked | AccountOpened | PlanChanged | UsageNoted
