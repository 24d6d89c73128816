"""The rules of one UTC day of use: only news is written down.

Replicas of the gateway note the same day side by side. Instants and counts only grow, so what one of them has noted
already, or noted higher, is left out of the other's note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from libs.runtime.service import Aggregate
from proto.base import Event
from proto.gateway.commands import NoteUsage
from proto.gateway.events import UsageEvent, UsageNoted


class Day(Struct, frozen=True):
    """What has been noted so far."""

    last_used_at: Mapping[str, datetime] = {}
    requests: Mapping[str, int] = {}


def decide(state: Day, command: NoteUsage) -> Sequence[Event]:
    used = {use.key_id: use for use in command.keys}
    counted = {use.account_id: use for use in command.accounts}
    keys = tuple(use for use in used.values() if use.last_used_at > state.last_used_at.get(use.key_id, _NEVER))
    accounts = tuple(use for use in counted.values() if use.requests > state.requests.get(use.account_id, 0))
    return [UsageNoted(day=command.day, keys=keys, accounts=accounts)] if keys or accounts else []


def evolve(state: Day, event: UsageEvent) -> Day:
    return Day(
        {**state.last_used_at, **{use.key_id: use.last_used_at for use in event.keys}},
        {**state.requests, **{use.account_id: use.requests for use in event.accounts}},
    )


_NEVER = datetime.fromisoformat("0001-01-01T00:00:00+00:00")

USAGE = Aggregate("usage", Day(), decide, evolve, UsageEvent)
