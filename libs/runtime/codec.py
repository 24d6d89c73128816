"""Commits to bytes and back: the only place that knows how an event lies in a stored message.

Used by `aggregates` (folding), `listening` (hearing) and `libs.sim` (invariants). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from libs.eventlog import Stored
from proto.base import COMMIT_BYTES_MAX, EVENTS_PER_COMMIT_MAX, Commit, Event, Heard

Upcast = Callable[[dict[str, Any]], dict[str, Any]]

_raw_decoder = msgspec.json.Decoder(Commit[msgspec.Raw])
_encoder = msgspec.json.Encoder()


class UnknownEvent(Exception):
    """A stored event that no struct of its aggregate can hold, even after upcasting: never skipped, always a bug."""


def stream_of(service: str) -> str:
    """`EVT_INSTANCE` for `instance`."""
    return f"EVT_{service.upper()}"


def subject_of(service: str, kind: str, aggregate_id: str) -> str:
    """The exact subject that holds all commits of one aggregate."""
    return f"evt.{service}.{kind}.{aggregate_id}"


def encode_commit(
    commit_id: str,
    version: int,
    at: datetime,
    events: Sequence[Event],
    *,
    whole_seq: int = 0,
    is_whole: bool = False,
    heeded: tuple[str, ...] = (),
    **origin: str,
) -> bytes:
    """One message. `origin` is cause, correlation and trace. Raises ValueError over the named limits."""
    if len(events) > EVENTS_PER_COMMIT_MAX:
        raise ValueError(f"{len(events)} events in one commit, the limit is {EVENTS_PER_COMMIT_MAX}")
    raws = [msgspec.Raw(_encoder.encode(event)) for event in events]
    commit = Commit(
        id=commit_id,
        version=version,
        at=at,
        events=raws,
        whole_seq=whole_seq,
        is_whole=is_whole,
        heeded=heeded,
        **origin,
    )
    data = _encoder.encode(commit)
    if len(data) > COMMIT_BYTES_MAX:
        raise ValueError(f"commit of {len(data)} bytes, the limit is {COMMIT_BYTES_MAX}")
    return data


def decode_commit(data: bytes) -> Commit[msgspec.Raw]:
    """Everything but the events."""
    return _raw_decoder.decode(data)


class EventDecoder:
    """Decodes one aggregate's (or one listener's) events, through the upcasters when the present shape does not fit."""

    def __init__(self, events: Any, upcast: Upcast | None = None) -> None:
        self._commit_decoder = msgspec.json.Decoder(Commit[events])
        self._decoder = msgspec.json.Decoder(events)
        self._events = events
        self._upcast = upcast

    def commit(self, data: bytes) -> Commit[Event]:
        """A whole commit; in one pass (a third faster than by event) unless one of its events has an old shape."""
        try:
            return self._commit_decoder.decode(data)
        except msgspec.ValidationError:
            old: Commit[Any] = decode_commit(data)
            return replace(old, events=[self.decode(raw) for raw in old.events])

    def decode(self, raw: msgspec.Raw | bytes) -> Event:
        try:
            return self._decoder.decode(raw)
        except msgspec.ValidationError as misfit:
            if self._upcast is None:
                raise UnknownEvent(str(misfit)) from misfit
            return self._decode_old(raw, misfit)

    def _decode_old(self, raw: msgspec.Raw | bytes, misfit: msgspec.ValidationError) -> Event:
        assert self._upcast is not None
        try:
            return msgspec.convert(self._upcast(msgspec.json.decode(raw)), self._events, strict=False)
        except msgspec.ValidationError as error:
            raise UnknownEvent(f"{misfit}; after upcasting: {error}") from error

    def heard(self, stored: Stored, aggregate_id: str, stream: str) -> list[Heard]:
        """Every event of a commit, with where it stands."""
        commit = self.commit(stored.data)
        return [
            Heard(
                event=event,
                event_id=f"{commit.id}.{index}",
                aggregate_id=aggregate_id,
                at=commit.at,
                stream=stream,
                seq=stored.seq,
                correlation=commit.correlation,
                trace=commit.trace,
            )
            for index, event in enumerate(commit.events)
        ]
