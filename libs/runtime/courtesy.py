"""Who waits for an answer goes first: while many commands are being answered, what follows from them is done in larger
pieces and started slowly.

Used by `serving` (says when it answers commands), `listening` (lets commits gather before it hands them on) and `hands`
(starts patient work). Without it a burst of creates is acknowledged at the pace at which machines are rented, because
both share one process; with it the burst is on the log at once and its machines follow. Only an optimisation: what
waits is safe in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

# Commands in hand at once that make a burst. One caller after another never does, and never waits for anything here.
BURST_COMMANDS = 4
# Answers come in groups, as commits do; the moment between two groups is not yet quiet. With a hold before each create
# a group goes through another service before the next one comes: tens of milliseconds on a busy machine.
QUIET_AFTER_S = 0.1
# While a burst lasts, one patient job starts this often: 10 a second, so a lasting load starves nobody.
PATIENT_PAUSE_S = 0.1
# While a burst lasts, followers look this often. Rows for twenty commits cost one statement, as rows for one do; a
# reader who waits for his own write waits this much longer.
GATHER_S = 0.025


class Courtesy:
    def __init__(self) -> None:
        self._answering = 0
        self._burst_seen_at_s = float("-inf")

    @contextmanager
    def answering(self) -> Generator[None]:
        """While a command is being decided and stored."""
        self._answering += 1
        try:
            yield
        finally:
            if self._answering >= BURST_COMMANDS:
                self._burst_seen_at_s = asyncio.get_running_loop().time()
            self._answering -= 1

    def _is_burst(self) -> bool:
        quiet_s = asyncio.get_running_loop().time() - self._burst_seen_at_s
        return self._answering >= BURST_COMMANDS or quiet_s < QUIET_AFTER_S

    async def make_way(self) -> None:
        """Before patient work: return at once, or after a pause during a burst."""
        if self._is_burst():
            await asyncio.sleep(PATIENT_PAUSE_S)

    async def let_gather(self) -> None:
        """Before looking at what a stream has brought: return at once, or after a pause during a burst."""
        if self._is_burst():
            await asyncio.sleep(GATHER_S)
