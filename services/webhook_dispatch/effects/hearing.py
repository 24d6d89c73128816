"""From a message of the public stream to what endpoints are told: facts, and one parcel per hearer. No I/O.

Used by the dispatcher. Facts are read by name and not by type: what other services say is theirs to shape, and a
receiver is told what they say.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from libs.eventlog import Stored
from libs.eventlog.wire import header
from libs.ids import derive_id
from proto.webhook_dispatch.payload import payload
from proto.webhook_dispatch.words import EVENT_TYPES, Delivery
from services.webhook_dispatch.effects.directory import Directory, Target
from services.webhook_dispatch.effects.lanes import Parcel
from services.webhook_dispatch.policy import Said

DELIVERY_PREFIX = "msg"
NAMES_URL = ("instance.created", "instance.starting")
_TOLD = frozenset(EVENT_TYPES)

_fields = msgspec.json.Decoder(dict[str, Any])
_said = msgspec.json.Decoder(Said)


class Fact(NamedTuple):
    """One public event, as far as webhooks care."""

    event_type: str
    event_id: str
    account_id: str
    instance_id: str
    lane: str
    at: datetime
    seq: int
    fields: dict[str, Any]
    correlation: str
    trace: str


class Named(NamedTuple):
    """A URL given with an instance, and when."""

    url: Said
    at: datetime


def read_fact(stored: Stored) -> Fact | None:
    """None for what no webhook tells, or what its account does not want told (`is_quiet`)."""
    _, account_id, event_type = stored.subject.split(".", 2)
    if event_type not in _TOLD:
        return None
    fields = _fields.decode(stored.data)
    if fields.get("is_quiet"):
        return None
    instance_id = fields.get("instance_id", "")
    return Fact(
        event_type=event_type,
        event_id=header(stored.headers, b"ce-id").decode(),
        account_id=account_id,
        instance_id=instance_id,
        lane=instance_id or header(stored.headers, b"ce-subject").decode(),
        at=_at(stored),
        seq=stored.seq,
        fields=fields,
        correlation=header(stored.headers, b"ce-correlationid").decode(),
        trace=header(stored.headers, b"traceparent").decode(),
    )


def names_url(stored: Stored) -> Named | None:
    """What may bring an endpoint with it; None for all other facts."""
    if stored.subject.split(".", 2)[2] not in NAMES_URL:
        return None
    said = _said.decode(stored.data)
    return Named(said, _at(stored)) if said.webhook_url else None


def deliveries_of(fact: Fact, directory: Directory) -> list[tuple[Target, Parcel]]:
    """One for each endpoint that hears the fact; the bytes are made once."""
    hearers = list(directory.hearers(fact.account_id, fact.event_type, fact.instance_id, fact.at))
    if not hearers:
        return []
    body = payload(fact.event_type, fact.event_id, fact.at, fact.fields, correlation=fact.correlation).decode()
    return [(target, _parcel(fact, target, body)) for target in hearers]


def parcel_for(fact: Fact, target: Target) -> Parcel:
    """For this endpoint alone."""
    body = payload(fact.event_type, fact.event_id, fact.at, fact.fields, correlation=fact.correlation).decode()
    return _parcel(fact, target, body)


def _parcel(fact: Fact, target: Target, body: str) -> Parcel:
    delivery = Delivery(
        delivery_id=derive_id(DELIVERY_PREFIX, target.endpoint_id, fact.event_id),
        event_id=fact.event_id,
        event_type=fact.event_type,
        lane=fact.lane,
        public_seq=fact.seq,
        event_at=fact.at,
        body=body,
        correlation=fact.correlation,
        trace=fact.trace,
    )
    return Parcel(delivery.delivery_id, fact.event_type, fact.lane, fact.seq, delivery)


def _at(stored: Stored) -> datetime:
    return datetime.fromisoformat(header(stored.headers, b"ce-time").decode())
