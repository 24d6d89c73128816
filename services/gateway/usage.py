"""What was used, written down now and then: many keys in one event instead of an event per request.

Run by `server.serve` as one task. A key is noted again when its last use is KEY_NOTE_S newer than what the log says, an
account with a daily limit when its count has grown; a crash forgets at most NOTE_S of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from libs.refusal import Refused, Transient
from libs.telemetry import logger
from proto.gateway.commands import NoteUsage
from proto.gateway.events import AccountUse, KeyUse
from services.gateway.limits.charging import ACCOUNT, day_word

if TYPE_CHECKING:
    from services.gateway.gateway import Gateway

NOTE_S = 30.0
KEY_NOTE_S = 300  # "last used" is told to five minutes
LAST_NOTE_S = 1  # at a stop everything newer than this is noted
USES_MAX = 1_000  # in one event, about 100 kB

_log = logger("usage")


async def note_usage(gateway: Gateway) -> None:
    """For ever. The log being away is not a bug: the next round has the same news."""
    while True:
        await gateway.clock.sleep(NOTE_S)
        await _note(gateway, timedelta(seconds=KEY_NOTE_S))


async def note_last(gateway: Gateway) -> None:
    """At an orderly stop: nothing is forgotten."""
    await _note(gateway, timedelta(seconds=LAST_NOTE_S))


async def _note(gateway: Gateway, newer_by: timedelta) -> None:
    now = gateway.clock.now()
    try:
        for wish in _wishes(gateway, now, newer_by):
            await gateway.keys.execute(wish)
    except (Transient, Refused) as unwell:
        _log.warning("usage.not_noted", cause=repr(unwell))


def _wishes(gateway: Gateway, now: datetime, newer_by: timedelta) -> Iterator[NoteUsage]:
    today = now.strftime("%Y%m%d")
    keys = [
        KeyUse(known.issued.key_id, known.used_at)
        for known in gateway.keys.all()
        if known.used_at is not None and (known.noted_at is None or known.used_at - known.noted_at >= newer_by)
    ]
    accounts = [
        AccountUse(subject.removeprefix(ACCOUNT), requests)
        for subject, day, requests in gateway.limits.limiter.day_counts()
        if day_word(day) == today and requests > gateway.keys.accounts.noted(subject.removeprefix(ACCOUNT), today)
    ]
    for start in range(0, max(len(keys), len(accounts)), USES_MAX):
        part = slice(start, start + USES_MAX)
        yield NoteUsage(now=now, day=today, keys=tuple(keys[part]), accounts=tuple(accounts[part]))
