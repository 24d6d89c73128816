"""Streams as values, and the one call that makes the server agree with them.

Used by composition roots and `libs.embedded`. Owns the stream settings of design 3: nothing in a log is ever deleted.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from libs.eventlog.connection import Connection
from libs.refusal import Transient
from proto.base import COMMIT_BYTES_MAX

API_TIMEOUT_S = 5.0
HEADER_BYTES_MAX = 4 * 1024  # room beside a commit of COMMIT_BYTES_MAX for the headers of the log and of CloudEvents
STREAM_IN_USE = 10058  # the stream exists with other settings
SECOND_NS = 1_000_000_000
# The server keeps ids of this window in memory (280 B each); longer than any relay takes to notice a lost answer.
DUPLICATE_WINDOW_S = 120


class StreamSpec(Struct, frozen=True):
    """One stream: its name, what it hears, on how many servers it is kept."""

    name: str
    subjects: tuple[str, ...]
    replicas: int = 1


def private_stream(service: str, *, replicas: int = 1) -> StreamSpec:
    """The log of one service: `EVT_<SERVICE>` hears `evt.<service>.<kind>.<id>`."""
    return StreamSpec(f"EVT_{service.upper()}", (f"evt.{service}.>",), replicas)


def public_stream(*, replicas: int = 1) -> StreamSpec:
    """What everybody may hear: `pub.<account>.<domain>.<event>`, deduplicated by event id."""
    return StreamSpec("PUB", ("pub.>",), replicas)


def dead_letters(*, replicas: int = 1) -> StreamSpec:
    """Work that was given up, with its cause: `dead.<service>.<role>`."""
    return StreamSpec("DEAD", ("dead.>",), replicas)


class ApiError(Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class StreamState(Struct, frozen=True):
    last_seq: int = 0


class StreamAnswer(Struct, frozen=True):
    """What the stream API answers, as far as we look."""

    config: dict[str, Any] = {}
    state: StreamState = StreamState()
    error: ApiError | None = None


class ApiFailed(Transient):
    """The JetStream API said no, or said nothing that we understand."""

    def __init__(self, subject: str, error: ApiError) -> None:
        super().__init__(f"{subject}: {error.description} ({error.err_code or error.code})")
        self.err_code = error.err_code


async def call_api(connection: Connection, subject: str, request: Any = None) -> StreamAnswer:
    """One request to the JetStream API. Raises Transient."""
    body = b"" if request is None else msgspec.json.encode(request)
    data, _ = await connection.call(f"$JS.API.{subject}", body, timeout_s=API_TIMEOUT_S)
    answer = msgspec.json.decode(data, type=StreamAnswer)
    if answer.error is not None:
        raise ApiFailed(subject, answer.error)
    return answer


async def ensure_stream(connection: Connection, spec: StreamSpec) -> None:
    """Create the stream, or change it to what `spec` says; a repeat changes nothing. Raises Transient."""
    wanted: dict[str, Any] = {
        "name": spec.name,
        "subjects": list(spec.subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
        "allow_atomic": True,
        "compression": "s2",
        "max_msg_size": COMMIT_BYTES_MAX + HEADER_BYTES_MAX,
        "max_bytes": -1,  # should its disk be full, it refuses writes (`discard: new`) and never forgets
        "num_replicas": spec.replicas,
        "duplicate_window": DUPLICATE_WINDOW_S * SECOND_NS,
    }
    try:
        await call_api(connection, f"STREAM.CREATE.{spec.name}", wanted)
    except ApiFailed as failed:
        if failed.err_code != STREAM_IN_USE:
            raise
        stored = await call_api(connection, f"STREAM.INFO.{spec.name}")
        await call_api(connection, f"STREAM.UPDATE.{spec.name}", stored.config | wanted)
