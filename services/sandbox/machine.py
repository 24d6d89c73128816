"""A machine while the daemon lives: what is recorded of it, and the task that moves it. Used by `cloud`."""

from __future__ import annotations

import asyncio

from services.sandbox.records import Record


class Machine:
    """A record and the task that moves it."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.driver: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()  # `wanted` changed: whoever waits should look again
        self.ended = False  # went down by itself
        self.preemption: asyncio.TimerHandle | None = None
