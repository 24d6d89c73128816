"""Dumont: /events. What happened to an account's things, by asking again and again or as a stream.

The same events with the same ids and the same bytes as webhooks have, so that a receiver that missed some finds them
here. A place among them is the id of an event, or `next_after` of an earlier answer, which is sealed: it says how many
events of all accounts there are.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from libs.sealing import FORM, NotSealedHere, Sealer
from proto.webhook_dispatch.words import ANY, is_filter
from services.gateway.call import Answer, Call
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok
from services.gateway.feed.stream import Live, Stream
from services.gateway.routing import Route
from services.gateway.validation import refuse

WAIT_S_MAX = 30  # shorter than the usual 60 s of proxies
LIMIT_MAX = 100
TYPES_MAX = 50
START, NOW = "start", "now"
CURSOR_PURPOSE = "event-cursor"
RECONNECT_MS = 1_000  # what EventSource waits before it comes back
# An id is made before its event is stored, on a machine whose clock may be so much ahead.
CLOCK_AHEAD_S = 60
_EVENT_ID = re.compile(r"[a-z]+_([0-9a-f]{12})[0-9a-f]{20}\.[0-9]{1,3}")  # a UUIDv7: its first 48 bits are the time

After = Annotated[str, Meta(max_length=200)]
Types = Annotated[str, Meta(max_length=2_000)]


class ListEventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`after`: an event's id, `next_after` of the last answer, `start` or `now`. `types`: as a webhook has them, with
    commas between. `wait_s`: how long to wait when there is nothing."""

    after: After = START
    types: Types = ""
    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    wait_s: Annotated[int, Meta(ge=0, le=WAIT_S_MAX)] = 0


class StreamEventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """As for the list. The header Last-Event-ID counts more than `after`."""

    after: After = NOW
    types: Types = ""


class EventPage(Struct, frozen=True):
    """Oldest first. Ask again with `next_after`, at once when `has_more`. Each event is what a webhook's body is."""

    events: list[dict[str, Any]]
    next_after: str
    has_more: bool


class _Page(Struct, frozen=True):
    """The same with events as they are."""

    events: list[msgspec.Raw]
    next_after: str
    has_more: bool


async def list_events(call: Call) -> Answer:
    query: ListEventsQuery = call.query
    feed, filters, account_id = call.gateway.feed, _filters(query.types), call.account_id
    after_seq = await _place(call, query.after)
    found, position, has_more = await feed.read(account_id, filters, after_seq, query.limit)
    waited_s = 0.0
    if not found and not has_more and query.wait_s:
        began_s = call.gateway.clock.monotonic_s()
        await feed.wait(account_id, filters, position, query.wait_s)
        waited_s = call.gateway.clock.monotonic_s() - began_s
        found, position, has_more = await feed.read(account_id, filters, position, query.limit)
    answer = ok(_Page([msgspec.Raw(event.body) for event in found], _cursor(call, position), has_more))
    answer.waited_s = waited_s
    return answer


async def stream_events(call: Call) -> Answer:
    query: StreamEventsQuery = call.query
    filters = _filters(query.types)
    call.gateway.feed.admit(call.account_id)
    after_seq = await _place(call, call.last_event_id or query.after)
    live = Live(partial(_follow, call, filters, after_seq))
    return Answer(200, live, {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"})


async def _follow(call: Call, filters: frozenset[str], after_seq: int, stream: Stream) -> None:
    await stream.send(f"retry: {RECONNECT_MS}\nid: {_cursor(call, after_seq)}\n\n".encode())
    is_allowed = partial(call.gateway.keys.is_live, call.credential)
    await call.gateway.feed.serve(stream, call.account_id, filters, after_seq, is_allowed)


def _filters(types: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in types.split(",") if name.strip())
    for name in names:
        if not is_filter(name):
            refuse("types", f"Unknown event {name}; GET /api/v1/webhooks/events/types lists them", name)
    if len(names) > TYPES_MAX:
        refuse("types", f"At most {TYPES_MAX} types; leave it out for all of them")
    return names or frozenset({ANY})


async def _place(call: Call, after: str) -> int:
    """Raises VALIDATION_ERROR for what is no place of this account."""
    feed = call.gateway.feed
    feed.require()
    if after == START:
        return 0
    if after == NOW:
        return feed.ring.head
    found = None
    if after.startswith(FORM):
        found = _opened(call, after)
    elif matched := _EVENT_ID.fullmatch(after):
        made_at = datetime.fromtimestamp(int(matched[1], 16) / 1000, UTC)
        found = await feed.find(call.account_id, after, made_at - timedelta(seconds=CLOCK_AHEAD_S))
    if found is None:
        refuse("after", "No such event in this account; use an event's id, next_after, start or now", after)
    return found


def _cursor(call: Call, seq: int) -> str:
    return _sealer(call).seal(str(seq), owner=call.account_id)


def _opened(call: Call, cursor: str) -> int | None:
    try:
        return int(_sealer(call).open(cursor, owner=call.account_id))
    except NotSealedHere:
        return None


def _sealer(call: Call) -> Sealer:
    return Sealer(call.gateway.settings.secret.reveal(), purpose=CURSOR_PURPOSE)


_AT, _READ = "/api/v1/events", "events:read"
ROUTES = (
    Route("GET", _AT, DIALECT, _READ, "read", list_events, "List events, or wait for the next", query=ListEventsQuery,
          reply=EventPage),
    Route("GET", f"{_AT}/stream", DIALECT, _READ, "read", stream_events, "Follow events (server-sent events)",
          query=StreamEventsQuery, reply=str, media="text/event-stream"),
)  # fmt: skip
