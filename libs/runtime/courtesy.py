"""Who waits for an answer goes first: work that can wait is started slowly while requests are being answered.

Used by `serving` (says when it answers commands) and `hands` (starts patient work). Without it a burst of creates is
acknowledged
at the pace at which machines are rented, because both share one process; with it the burst is on the log at once and
its machines follow. Only an optimisation: what waits is safe in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

# While commands are being answered, one patient job starts this often: 200 a second, so a lasting load starves nobody.
PATIENT_PAUSE_S = 0.005


class Courtesy:
    def __init__(self) -> None:
        self._answering = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def answering(self) -> Generator[None]:
        """While a command is being decided and stored."""
        self._answering += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()

    async def make_way(self) -> None:
        """Return at once when nobody waits for an answer, otherwise after a pause or as soon as nobody does."""
        if self._answering:
            try:
                async with asyncio.timeout(PATIENT_PAUSE_S):
                    await self._idle.wait()
            except TimeoutError:
                return
