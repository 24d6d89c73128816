"""Something goes on while the play does: files are being written, events are being heard. Used by `acts`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def beside(
    work: Callable[[asyncio.Event], Awaitable[None]], started: asyncio.Event | None = None
) -> AsyncGenerator[None, None]:
    """Begun before the body (`work` sets the event it is given), ended after it. What it died of is raised at the end.

    A cancel of ours is heard at any moment, also while `work` is being ended.
    """
    ready = started or asyncio.Event()

    async def act() -> None:
        try:
            await work(ready)
        finally:
            ready.set()

    task = asyncio.ensure_future(act())
    try:
        await ready.wait()
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))  # `await task` would not tell its end from a cancel of ours
        if not task.cancelled():
            task.result()
