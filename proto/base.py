"""The words every service shares: Event, Command, Query, Commit and the envelopes that carry them.

Called by every service and by `libs`. Owns the wire form of the event log (`Commit`), of the bus
(`Request`, `Reply`) and of what a listener is handed (`Heard`). Nothing here knows a business word.

Wire rules (docs/adr/0001): JSON, compact UTF-8; instants are RFC 3339 UTC; the tag field is `type`;
defaults are left out, so a new optional field never changes the bytes of an old event.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct

# A commit larger than this is refused before it reaches the bus, and by our streams. nats-server's own default for a
# message with its headers is 1 MiB; the largest commit is a day's end of an account with thousands of running things.
COMMIT_BYTES_MAX = 896 * 1024
EVENTS_PER_COMMIT_MAX = 100

E = TypeVar("E")


class Event(Struct, frozen=True, tag_field="type", omit_defaults=True, gc=False):
    """A fact. Its tag is its wire name (`instance.created`) and never changes once released.

    `gc=False`, here and on what events are made of: frozen trees cannot form cycles, and tracking them made a replay
    three times slower (4.5 to 0.9 us per event decoded).

    `public` facts are relayed to the PUB stream, where other services, internal teams and webhooks hear them; they
    carry `account_id`. All others stay in the private stream of their service.
    """

    public: ClassVar[bool] = False


class Command(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """A wish, addressed to one aggregate of one service. Deciding it twice must equal deciding it once.

    `now` is the instant at which the wish was uttered: deciders have no clock of their own.
    `request_id`: for wishes that mean another thing once something else has happened ("start", "set this to that").
    One that carries it takes effect once, however late it comes again (docs/adr/0021); empty: its own ids see to that.
    Every subclass names its `service` and `aggregate` kind and says which field is the aggregate id.
    """

    service: ClassVar[str]
    aggregate: ClassVar[str]

    now: datetime
    request_id: str = ""

    @property
    def aggregate_id(self) -> str:
        raise TypeError(f"{type(self).__name__} does not say which aggregate it is for")


class Query(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """A question to the owner of some data. Never changes anything. `reply` is the answer's type."""

    service: ClassVar[str]
    reply: ClassVar[Any]


class Signal(Struct, frozen=True, tag_field="type", omit_defaults=True):
    """News worth an answer but no place in the log (a heartbeat): sent as `sig.<service>.<tag>`, lost if nobody
    listens."""

    service: ClassVar[str]
    reply: ClassVar[Any]


class Commit(Struct, Generic[E], frozen=True, omit_defaults=True, gc=False):
    """One stored message of a private stream: events of one aggregate, written at once.

    `E` is the union of events its reader knows, or `msgspec.Raw` for who leaves them undecoded.

    `version` counts the aggregate's events before this commit. `cause` is the id of the event or
    request that led here; `correlation` is shared by everything one outside request set in motion.
    `heeded`: the `request_id` of each wish that is done with this commit. One that needed nothing to happen is
    remembered by a commit without events. A commit that `is_whole` repeats those of the commits before it.
    `whole_seq`: sequence of the aggregate's newest earlier commit that begins with its whole state (0: none), where
    folding may begin; such a commit says `is_whole`.
    """

    id: str
    version: int
    at: datetime
    events: list[E]
    cause: str = ""
    correlation: str = ""
    trace: str = ""
    whole_seq: int = 0
    is_whole: bool = False
    heeded: tuple[str, ...] = ()


class Heard(Struct, frozen=True, gc=False):
    """One event as a listener meets it: the fact and where it stands in the log.

    `event_id` is `<commit id>.<index>` and is the idempotency key of whatever follows from it.
    """

    event: Event
    event_id: str
    aggregate_id: str
    at: datetime
    stream: str
    seq: int
    correlation: str = ""
    trace: str = ""


class Position(Struct, frozen=True):
    """Where a commit stands: pass it to a read to be sure that the read has seen it."""

    stream: str
    seq: int


class Meta(Struct, frozen=True, omit_defaults=True):
    """What travels with every request on the bus, beside the wish or question itself.

    `deadline` is when the caller stops waiting (unix seconds): work not begun by then is dropped.
    `must_be_current`: an answer from rows must have everything that its owner had said when it was asked; one that may
    not have is SERVICE_UNAVAILABLE. For answers that a wish is made of.
    """

    request_id: str
    deadline: float
    correlation: str = ""
    cause: str = ""
    account_id: str = ""
    actor: str = ""
    trace: str = ""
    min_position: Position | None = None
    must_be_current: bool = False


class Request(Struct, frozen=True):
    """A command or query on the bus: `body` is the tagged struct's JSON."""

    meta: Meta
    body: msgspec.Raw


class Refusal(Struct, frozen=True, omit_defaults=True):
    """The domain said no. `code` is a key of `proto.codes.CODES`; `facts` fill its text."""

    code: str
    facts: dict[str, Any] = {}


class Reply(Struct, frozen=True, omit_defaults=True):
    """The answer on the bus: exactly one of `refused` or (`position` and/or `body`)."""

    body: msgspec.Raw | None = None
    position: Position | None = None
    refused: Refusal | None = None
    stale: bool = False
