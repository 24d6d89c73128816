"""Which pools a change of an account's settings concerns: those that there are when it is heard. Pure.

Called by the runtime. One change becomes one fact that names the pools; the policy makes a wish for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from proto.base import Event
from proto.warmpool.commands import ChangePools
from proto.warmpool.events import PoolsTold


class Account(Struct, frozen=True):
    """`told_at`: when the newest change was said that the pools have been told of."""

    told_at: datetime | None = None


UNTOLD = Account()


def decide(state: Account, command: ChangePools) -> Sequence[Event]:
    """A change that is heard again, after a newer one too, is not told again."""
    if not command.instance_ids or (state.told_at is not None and command.now <= state.told_at):
        return []
    told = PoolsTold(
        account_id=command.account_id,
        instance_ids=command.instance_ids,
        is_enabled=command.is_enabled,
        mode=command.mode,
        volume_gb=command.volume_gb,
        auto_reprovision=command.auto_reprovision,
        own_choice=command.own_choice,
        said_at=command.now,
    )
    return [told]


def evolve(state: Account, event: PoolsTold) -> Account:
    return replace(state, told_at=event.said_at)
