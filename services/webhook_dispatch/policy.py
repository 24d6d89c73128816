"""How a fact becomes a wish of this service: a URL given with an instance is an endpoint that hears of it alone.

Pure. `react` is for own facts and finds nothing to wish. `adopt` is asked by the dispatcher for each public fact before
it looks for hearers, so that the fact that names the URL is the first to be sent there.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from libs.ids import derive_id
from proto.base import Command, Heard
from proto.webhook_dispatch.commands import CreateEndpoint
from proto.webhook_dispatch.words import INSTANCE_EVENT_TYPES

ENDPOINT_PREFIX = "whe"


class Said(Struct, frozen=True):
    """As much of a public fact as names a URL (`instance.created`, `instance.starting`)."""

    account_id: str = ""
    instance_id: str = ""
    webhook_url: str = ""


def react(_heard: Heard) -> Iterator[Command]:
    """Own facts call for no wish: what follows from them is done by effects and the dispatcher."""
    yield from ()


def adopt(said: Said, at: datetime) -> CreateEndpoint | None:
    """The endpoint of the instance; the same id for every fact of it, so that a new URL moves the endpoint."""
    if not (said.webhook_url and said.instance_id and said.account_id):
        return None
    return CreateEndpoint(
        now=at,
        endpoint_id=instance_endpoint_id(said.instance_id),
        account_id=said.account_id,
        name=said.instance_id,
        url=said.webhook_url,
        events=INSTANCE_EVENT_TYPES,
        kind="instance",
        instance_id=said.instance_id,
    )


def instance_endpoint_id(instance_id: str) -> str:
    """Of the one endpoint an instance can have."""
    return derive_id(ENDPOINT_PREFIX, "instance", instance_id)
