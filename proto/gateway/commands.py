"""Wishes the gateway accepts on `cmd.gateway.<tag>`: from its own routes and from the operator's command line."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command
from proto.gateway.events import AccountUse, KeyUse
from proto.gateway.words import Plan, Scope


class KeyCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "gateway"
    aggregate: ClassVar[str] = "api_key"
    key_id: str
    account_id: str
    actor: str = ""

    @property
    def aggregate_id(self) -> str:
        return self.key_id


class IssueKey(KeyCommand, tag="issue_key", frozen=True, kw_only=True):
    """Let a secret speak for an account. A repeat with the same hash changes nothing; another hash is refused.

    The caller makes the secret and keeps it; `key_hash`, `prefix` and `last4` come from `words.fingerprint`.
    """

    name: str
    key_hash: str
    prefix: str
    last4: str
    scopes: tuple[Scope, ...] = ("all",)
    plan: Plan = "free"
    expires_at: datetime | None = None
    replaces: str = ""


class RotateKey(KeyCommand, tag="rotate_key", frozen=True, kw_only=True):
    """Let the key work until `valid_until`, beside the successor that has been issued, or until it expires anyway."""

    successor_id: str
    valid_until: datetime


class RevokeKey(KeyCommand, tag="revoke_key", frozen=True, kw_only=True):
    """Refuse the key from now on. Revoking twice is once; another account's key is refused as API_KEY_NOT_FOUND."""

    reason: str = "user_request"


class AccountCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "gateway"
    aggregate: ClassVar[str] = "account"
    account_id: str
    actor: str = ""

    @property
    def aggregate_id(self) -> str:
        return self.account_id


class OpenAccount(AccountCommand, tag="open_account", frozen=True, kw_only=True):
    """Let there be an account. One that exists keeps its name and plan."""

    name: str
    plan: Plan = "free"


class ChangePlan(AccountCommand, tag="change_plan", frozen=True, kw_only=True):
    """Put an account on another plan. Refused as ACCOUNT_NOT_FOUND when it was never opened."""

    plan: Plan


class NoteUsage(Command, tag="note_usage", frozen=True, kw_only=True):
    """Write down what was used on one UTC day. What is known already, or older than what is known, adds nothing."""

    service: ClassVar[str] = "gateway"
    aggregate: ClassVar[str] = "usage"
    day: str
    keys: tuple[KeyUse, ...] = ()
    accounts: tuple[AccountUse, ...] = ()

    @property
    def aggregate_id(self) -> str:
        return self.day


KeyWish = IssueKey | RotateKey | RevokeKey
AccountWish = OpenAccount | ChangePlan
AnyCommand = IssueKey | RotateKey | RevokeKey | OpenAccount | ChangePlan | NoteUsage
