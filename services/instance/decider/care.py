"""How an account wants its machines watched and replaced: the newest word counts. Pure; used by the runtime."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from proto.base import Event
from proto.instance.care import CareNoted, NoteCare


class Account(Struct, frozen=True):
    care: CareNoted | None = None  # None: nothing was ever said


UNHEARD = Account()


def decide(state: Account, command: NoteCare) -> Sequence[Event]:
    """A word that is heard again, after a newer one too, changes nothing."""
    if state.care is not None and command.now <= state.care.said_at:
        return []
    noted = CareNoted(
        account_id=command.account_id,
        health_check_s=command.health_check_s,
        heartbeat_misses_max=command.heartbeat_misses_max,
        gpu_names=command.gpu_names,
        said_at=command.now,
    )
    is_news = state.care is None or replace(noted, said_at=state.care.said_at) != state.care
    return [noted] if is_news else []


def evolve(_state: Account, event: CareNoted) -> Account:
    return Account(event)
