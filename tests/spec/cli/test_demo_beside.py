"""What goes on beside the demo is ended with it, and hides neither a Ctrl-C nor its own failure."""

from __future__ import annotations

import asyncio

import pytest

from services.cli.demo.beside import beside


async def test_a_cancel_that_comes_while_the_work_is_being_ended_is_heard() -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def work(ready: asyncio.Event) -> None:
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async def play() -> str:
        async with beside(work):
            pass
        return "went on as if nobody had said anything"

    playing = asyncio.create_task(play())
    await ending.wait()
    playing.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await playing


async def test_the_work_is_ended_with_the_body() -> None:
    ended: list[str] = []

    async def work(ready: asyncio.Event) -> None:
        ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async with beside(work):
        assert ended == []
    assert ended == ["work"]


async def test_what_the_work_died_of_is_raised() -> None:
    async def work(_ready: asyncio.Event) -> None:
        raise OSError("the connection broke")

    with pytest.raises(OSError, match="the connection broke"):
        async with beside(work):
            pass
