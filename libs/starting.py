"""What every composition root shares: waiting for the servers at start-up, and ending at the first bug.

Used by `libs.hosting` and by the gateway, which is hosted differently because it has no tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.clock import Clock
from libs.refusal import Transient
from libs.telemetry import logger

START_RETRY_S = 0.2  # the servers may come up after us; the supervisor gives up on us long after this

T = TypeVar("T")
_log = logger("start")


class Bug:
    """The first thing that is neither refused nor transient ends the process; the supervisor starts it again."""

    def __init__(self) -> None:
        self._found: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def report(self, error: BaseException) -> None:
        if not self._found.done():
            self._found.set_exception(error)

    async def raised(self) -> None:
        """Wait for it, and raise it."""
        await self._found


async def once_well(act: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Try until the servers are there; a bug in our settings still raises."""
    while True:
        try:
            return await act()
        except Transient as unwell:
            _log.warning("start.waiting", cause=str(unwell))
            await clock.sleep(START_RETRY_S)
