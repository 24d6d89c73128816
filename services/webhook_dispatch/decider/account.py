"""The secret that signs what goes to URLs given with an instance: one per account, or none."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from proto.base import Event
from proto.webhook_dispatch.commands import ClearDefaultSecret, SetDefaultSecret
from proto.webhook_dispatch.events import AccountEvent, DefaultSecretCleared, DefaultSecretSet


class Account(Struct, frozen=True):
    sealed_secret: str = ""


NO_SECRET = Account()


def decide(state: Account, command: SetDefaultSecret | ClearDefaultSecret) -> Sequence[Event]:
    match command:
        case SetDefaultSecret(account_id=account_id, sealed_secret=sealed):
            return (
                [] if state.sealed_secret == sealed else [DefaultSecretSet(account_id=account_id, sealed_secret=sealed)]
            )
        case ClearDefaultSecret(account_id=account_id):
            return [DefaultSecretCleared(account_id=account_id)] if state.sealed_secret else []


def evolve(state: Account, event: AccountEvent) -> Account:
    del state
    match event:
        case DefaultSecretSet(sealed_secret=sealed):
            return Account(sealed)
        case DefaultSecretCleared():
            return NO_SECRET
