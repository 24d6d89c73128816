"""How an account wants its machines watched and replaced: one wish, one fact, aggregate `account`.

Part of `commands.AnyCommand` and `events.AnyEvent`. 0 and None mean: as this installation does.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command, Event


class NoteCare(Command, tag="note_care", frozen=True, kw_only=True):
    """The account has said so at `now`."""

    service: ClassVar[str] = "instance"
    aggregate: ClassVar[str] = "account"
    account_id: str
    health_check_s: int = 0
    heartbeat_misses_max: int = 0
    gpu_names: tuple[str, ...] | None = None

    @property
    def aggregate_id(self) -> str:
        return self.account_id


class CareNoted(Event, tag="account.care_noted", kw_only=True, frozen=True):
    """A machine is looked at every `health_check_s` at the latest, silent after so many missed heartbeats, and replaced
    by one of these models, the first first, when its own is not to be had."""

    account_id: str
    said_at: datetime
    health_check_s: int = 0
    heartbeat_misses_max: int = 0
    gpu_names: tuple[str, ...] | None = None
