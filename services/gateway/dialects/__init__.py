"""Dialects: how one public API spells what all of them mean. A dialect is field maps and texts, never rules.

`Dialect` is what the pipeline needs of one: its language, its names for codes, the shape of its errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import Struct

from proto.codes import Language
from proto.instance import words
from proto.instance.queries import InstanceView
from proto.instance.words import Endpoint, InstanceStatus

Schema = dict[str, Any]
MICROS = 1_000_000
_ON: frozenset[InstanceStatus] = frozenset({"running", "health_checking", "ready", "migrating"})


class Failure(Struct, frozen=True, kw_only=True):
    """Everything a dialect may tell about an error. `facts` never hold secrets: deciders do not see any."""

    code: str
    status: int
    message: str
    facts: dict[str, Any]
    retry: bool
    retry_after_s: int | None
    advice: str
    at: datetime
    request_id: str
    correlation_id: str


@dataclass(frozen=True)
class Dialect:
    """`renames` maps our code to the dialect's; a renamed code that we also know brings its own status.

    `success_schema` wraps the schema of a reply as the wire does, for OpenAPI. `open_on_loopback`: needs no key on a
    loopback bind in dev mode (seeds 001, 002, 004 send none). `limits_addresses`: the classes of seed 001 hold.
    """

    name: str
    language: Language
    renames: Mapping[str, str]
    failure: Callable[[Failure], Any]
    failure_schema: type[Struct]
    success_schema: Callable[[Schema, bool], Schema]
    open_on_loopback: bool
    limits_addresses: bool = False


def reachable(view: InstanceView) -> tuple[Endpoint, ...]:
    """Endpoints while a machine answers there; those of a machine that is off or gone would be somebody else's."""
    return view.endpoints if view.status in _ON else ()


def ssh_command(ssh: Endpoint | None) -> str | None:
    return None if ssh is None else words.ssh_command(ssh.host, ssh.public_port, ssh.identity_file)


def milliseconds(instant: datetime) -> str:
    """RFC 3339 UTC with three digits and Z, as every seed prints it."""
    return instant.isoformat(timespec="milliseconds")[:23] + "Z"


def milliseconds_or_none(instant: datetime | None) -> str | None:
    return None if instant is None else milliseconds(instant)


def usd(micros: int) -> float:
    """Dollars as a JSON number with at most six decimals; inside it is integer micros."""
    return micros / MICROS
