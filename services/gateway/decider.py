"""The rules of one API key: issued once, revoked once. Pure; run by `keys.execute` and by the specs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias, assert_never

from msgspec import Struct

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Event
from proto.gateway.commands import AnyCommand, IssueKey, RevokeKey
from proto.gateway.events import AnyEvent, KeyIssued, KeyRevoked


class NoKey(Struct, frozen=True):
    """Nothing has been said about this id."""


class LiveKey(Struct, frozen=True):
    """The key speaks for its account (until it expires)."""

    issued: KeyIssued


class RevokedKey(Struct, frozen=True):
    """The key is dead and stays so."""

    issued: KeyIssued
    revoked_at: datetime


State: TypeAlias = NoKey | LiveKey | RevokedKey
INITIAL: State = NoKey()


def decide(state: State, command: AnyCommand) -> Sequence[Event]:
    """What a wish leads to. Deciding it twice is deciding it once."""
    match command:
        case IssueKey():
            return _issue(state, command)
        case RevokeKey():
            return _revoke(state, command)
        case _:
            assert_never(command)


def evolve(state: State, event: AnyEvent) -> State:
    match event:
        case KeyIssued():
            return LiveKey(event)
        case KeyRevoked():
            assert not isinstance(state, NoKey), "a key is issued before it is revoked"
            return RevokedKey(state.issued, event.revoked_at)
        case _:
            assert_never(event)


API_KEY = Aggregate("api_key", INITIAL, decide, evolve, AnyEvent)


def _issue(state: State, command: IssueKey) -> Sequence[Event]:
    match state:
        case NoKey():
            return _first_issue(command)
        case LiveKey(issued=issued) | RevokedKey(issued=issued):
            if (issued.key_hash, issued.account_id) != (command.key_hash, command.account_id):
                raise Refused("IDEMPOTENCY_CONFLICT", key_id=command.key_id)
            return []


def _first_issue(command: IssueKey) -> Sequence[Event]:
    if command.expires_at is not None and command.expires_at <= command.now:
        raise Refused("VALIDATION_ERROR", field="expires_at", reason="expires_at must be in the future")
    return [
        KeyIssued(
            key_id=command.key_id,
            account_id=command.account_id,
            name=command.name,
            key_hash=command.key_hash,
            prefix=command.prefix,
            last4=command.last4,
            issued_at=command.now,
            scopes=command.scopes,
            plan=command.plan,
            expires_at=command.expires_at,
        )
    ]


def _revoke(state: State, command: RevokeKey) -> Sequence[Event]:
    match state:
        case NoKey():
            raise Refused("API_KEY_NOT_FOUND", key_id=command.key_id)
        case LiveKey(issued=issued) | RevokedKey(issued=issued) if issued.account_id != command.account_id:
            raise Refused("API_KEY_NOT_FOUND", key_id=command.key_id)
        case RevokedKey():
            return []
        case LiveKey(issued=issued):
            return [
                KeyRevoked(
                    key_id=issued.key_id,
                    account_id=issued.account_id,
                    revoked_at=command.now,
                    reason=command.reason,
                )
            ]
