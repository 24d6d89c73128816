"""Dead letters: jobs that could not be done are kept where an operator finds them, with their cause.

Used by `hands`. Owns the stream DEAD (`dead.<service>.<role>`) and the count of lives in which a job met a bug.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import Struct

from libs.clock import Clock
from libs.eventlog import EventLog
from libs.runtime.store import Store
from proto.base import Event, Heard

DEAD_STREAM = "DEAD"


class DeadLetter(Struct, frozen=True):
    """One job that was given up. `stream` and `seq` say where its event stands."""

    service: str
    role: str
    event_id: str
    aggregate_id: str
    stream: str
    seq: int
    cause: str
    parked_at: datetime
    event: Event


class DeadLetters:
    def __init__(self, service: str, log: EventLog, store: Store, clock: Clock) -> None:
        self._service = service
        self._log = log
        self._store = store
        self._clock = clock

    async def park(self, heard: Heard, role: str, cause: str) -> None:
        letter = DeadLetter(
            service=self._service,
            role=role,
            event_id=heard.event_id,
            aggregate_id=heard.aggregate_id,
            stream=heard.stream,
            seq=heard.seq,
            cause=cause,
            parked_at=self._clock.now(),
            event=heard.event,
        )
        await self._log.publish(
            DEAD_STREAM,
            f"dead.{self._service}.{role}",
            msgspec.json.encode(letter),
            message_id=f"{role}.{heard.event_id}",
            headers={},
        )

    async def count_life(self, role: str, event_id: str) -> int:
        """How many lives of the process, this one included, have met a bug in this job."""
        name = f"bug.{role}.{event_id}"
        lives = (await self._store.cursor(name))[0] + 1
        await self._store.save_cursor(name, lives)
        return lives
