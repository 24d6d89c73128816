"""Wishes the gateway accepts on `cmd.gateway.<tag>`: from its own /api-keys routes and from the operator's CLI."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command
from proto.gateway.words import Plan, Scope


class KeyCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "gateway"
    aggregate: ClassVar[str] = "api_key"
    key_id: str
    account_id: str

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


class RevokeKey(KeyCommand, tag="revoke_key", frozen=True, kw_only=True):
    """Refuse the key from now on. Revoking twice is once; another account's key is refused as API_KEY_NOT_FOUND."""

    reason: str = "user_request"


AnyCommand = IssueKey | RevokeKey
