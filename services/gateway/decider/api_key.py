"""The rules of one API key: issued once, followed by at most one other, revoked once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias, assert_never

from msgspec import Struct

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Event
from proto.gateway.commands import IssueKey, KeyWish, RevokeKey, RotateKey
from proto.gateway.events import KeyEvent, KeyIssued, KeyRevoked, KeyRotated

ADVICE_NEW_KEY = "issue a new key"


class NoKey(Struct, frozen=True):
    """Nothing has been said about this id."""


class LiveKey(Struct, frozen=True):
    """The key speaks for its account until it expires. `successor_id` once it has been rotated."""

    issued: KeyIssued
    expires_at: datetime | None
    successor_id: str = ""


class RevokedKey(Struct, frozen=True):
    """The key is dead and stays so."""

    issued: KeyIssued
    revoked_at: datetime


State: TypeAlias = NoKey | LiveKey | RevokedKey


def decide(state: State, command: KeyWish) -> Sequence[Event]:
    """What a wish leads to. Deciding it twice is deciding it once."""
    match command:
        case IssueKey():
            return _issue(state, command)
        case RotateKey():
            return _rotate(state, command)
        case RevokeKey():
            return _revoke(state, command)
        case _:
            assert_never(command)


def evolve(state: State, event: KeyEvent) -> State:
    match event:
        case KeyIssued():
            return LiveKey(event, event.expires_at)
        case KeyRotated():
            assert isinstance(state, LiveKey), "only a live key is rotated"
            return LiveKey(state.issued, event.valid_until, event.successor_id)
        case KeyRevoked():
            assert not isinstance(state, NoKey), "a key is issued before it is revoked"
            return RevokedKey(state.issued, event.revoked_at)
        case _:
            assert_never(event)


API_KEY = Aggregate("api_key", NoKey(), decide, evolve, KeyEvent)


def _issue(state: State, command: IssueKey) -> Sequence[Event]:
    match state:
        case NoKey():
            return _first_issue(command)
        case LiveKey(issued=issued) | RevokedKey(issued=issued):
            wanted = (command.key_hash, command.account_id, command.name, command.scopes)
            if (issued.key_hash, issued.account_id, issued.name, issued.scopes) != wanted:
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
            replaces=command.replaces,
            actor=command.actor,
        )
    ]


def _rotate(state: State, command: RotateKey) -> Sequence[Event]:
    match state:
        case NoKey():
            raise Refused("API_KEY_NOT_FOUND", key_id=command.key_id)
        case LiveKey(issued=issued) | RevokedKey(issued=issued) if issued.account_id != command.account_id:
            raise Refused("API_KEY_NOT_FOUND", key_id=command.key_id)
        case LiveKey(successor_id=successor_id) if successor_id == command.successor_id:
            return []
        case RevokedKey():
            raise Refused("INVALID_STATE", key_id=command.key_id, status="revoked", advice=ADVICE_NEW_KEY)
        case LiveKey(successor_id=successor_id) if successor_id:
            advice = "use or rotate the key that replaced it"
            about = {"key_id": command.key_id, "status": "rotated", "successor_id": successor_id}
            raise Refused("INVALID_STATE", **about, advice=advice)
        case LiveKey(expires_at=expires_at):
            return [_rotated(command, expires_at)]


def _rotated(command: RotateKey, expires_at: datetime | None) -> Event:
    """A rotation never makes a key live longer."""
    if expires_at is not None and expires_at <= command.now:
        raise Refused("INVALID_STATE", key_id=command.key_id, status="expired", advice=ADVICE_NEW_KEY)
    return KeyRotated(
        key_id=command.key_id,
        account_id=command.account_id,
        successor_id=command.successor_id,
        rotated_at=command.now,
        valid_until=command.valid_until if expires_at is None else min(command.valid_until, expires_at),
        actor=command.actor,
    )


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
                    actor=command.actor,
                )
            ]
