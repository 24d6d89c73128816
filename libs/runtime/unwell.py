"""Waiting for a log or a database that is unwell. They come back, and nothing may be lost meanwhile.

Used by `hands` and by tasks of services. Owns how long is waited between tries, and when it is given up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.clock import Clock
from libs.refusal import Transient

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 2.0
AWAY_MAX_S = 3_600.0  # an hour without the log: exit and let the supervisor report it

T = TypeVar("T")


async def until_well(act: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """Repeat `act` while it raises Transient. Raises the last one after AWAY_MAX_S, and anything else at once."""
    pause_s = RETRY_FIRST_S
    give_up_s = clock.monotonic_s() + AWAY_MAX_S
    while True:
        try:
            return await act()
        except Transient:
            if clock.monotonic_s() > give_up_s:
                raise
            await clock.sleep(pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)
