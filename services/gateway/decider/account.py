"""The rules of one account: opened once, then on one plan at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

from msgspec import Struct

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Event
from proto.gateway.commands import AccountWish, ChangePlan, OpenAccount
from proto.gateway.events import AccountEvent, AccountOpened, PlanChanged
from proto.gateway.words import Plan


class NoAccount(Struct, frozen=True):
    """Nothing has been said about this id."""


class OpenedAccount(Struct, frozen=True):
    """The account exists."""

    plan: Plan


State: TypeAlias = NoAccount | OpenedAccount


def decide(state: State, command: AccountWish) -> Sequence[Event]:
    """What a wish leads to. Deciding it twice is deciding it once."""
    match command:
        case OpenAccount():
            return _open(state, command)
        case ChangePlan():
            return _change_plan(state, command)
        case _:
            assert_never(command)


def evolve(state: State, event: AccountEvent) -> State:
    del state
    match event:
        case AccountOpened() | PlanChanged():
            return OpenedAccount(event.plan)
        case _:
            assert_never(event)


ACCOUNT = Aggregate("account", NoAccount(), decide, evolve, AccountEvent)


def _open(state: State, command: OpenAccount) -> Sequence[Event]:
    if isinstance(state, OpenedAccount):
        return []
    return [
        AccountOpened(
            account_id=command.account_id,
            name=command.name,
            plan=command.plan,
            opened_at=command.now,
            actor=command.actor,
        )
    ]


def _change_plan(state: State, command: ChangePlan) -> Sequence[Event]:
    if isinstance(state, NoAccount):
        raise Refused("ACCOUNT_NOT_FOUND", account_id=command.account_id)
    if state.plan == command.plan:
        return []
    return [
        PlanChanged(
            account_id=command.account_id,
            plan=command.plan,
            previous=state.plan,
            changed_at=command.now,
            actor=command.actor,
        )
    ]
