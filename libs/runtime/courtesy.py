"""Who waits for an answer goes first: work that can wait is started slowly while requests are being answered.

Used by `serving` (says when it answers commands) and `hands` (starts patient work). Without it a burst of creates is
acknowledged at the pace at which machines are rented, because both share one process; with it the burst is on the log
at once and its machines follow. Only an optimisation: what waits is safe in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

# While commands keep coming, one patient job starts this often: 50 a second, so a lasting load starves nobody.
PATIENT_PAUSE_S = 0.02
# Answers come in groups, as commits do; the moment between two groups is not yet quiet.
QUIET_AFTER_S = 0.02


class Courtesy:
    def __init__(self) -> None:
        self._answering = 0
        self._answered_at_s = float("-inf")

    @contextmanager
    def answering(self) -> Generator[None]:
        """While a command is being decided and stored."""
        self._answering += 1
        try:
            yield
        finally:
            self._answering -= 1
            self._answered_at_s = asyncio.get_running_loop().time()

    async def make_way(self) -> None:
        """Return at once when nobody has waited for an answer lately, otherwise after a pause."""
        quiet_s = asyncio.get_running_loop().time() - self._answered_at_s
        if self._answering or quiet_s < QUIET_AFTER_S:
            await asyncio.sleep(PATIENT_PAUSE_S)
