"""An asyncio event loop whose clock jumps to the next timer when nothing is ready: hours pass in milliseconds.

Called by `libs.sim.world` and by tests of time. It has no files, sockets, threads or signals: what would
need one raises.

Order is reproducible: callbacks run first in, first out, timers by time, and tasks hash by serial number, so that sets
of tasks (asyncio's TaskGroup cancels from one) are walked in the same order every time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

# A scenario of minutes takes some ten thousand turns; a loop that turns this often without end is a livelock.
TURNS_MAX = 2_000_000


class Deadlock(Exception):
    """Nothing is ready and no timer is set: everybody waits for somebody else."""


class Livelock(Exception):
    """The loop has turned more often than any scenario needs."""


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its serial number in its loop, not by its address."""

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, name: str | None, context: Context | None
    ) -> None:
        self.serial = loop.next_task_serial()
        super().__init__(coro, loop=loop, name=name or f"task-{self.serial}", context=context)

    def __hash__(self) -> int:
        return self.serial

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` is virtual seconds since the start. `on_task` hears of every task made."""

    def __init__(
        self, on_task: Callable[[SimTask, Context], None] | None = None, *, turns_max: int = TURNS_MAX
    ) -> None:
        super().__init__()
        self._now_s = 0.0
        self._turns = 0
        self._turns_max = turns_max
        self._task_serial = 0
        self._on_task = on_task
        self._clock_resolution = 1e-9
        self._selector = self  # asyncio's base loop asks `_selector.select(timeout)` once per turn
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    def next_task_serial(self) -> int:
        self._task_serial += 1
        return self._task_serial

    def select(self, timeout: float | None) -> list[Any]:
        """Called when a turn begins: nothing ready means that time may jump."""
        self._turns += 1
        if self._turns > self._turns_max:
            raise Livelock(f"{self._turns_max} turns, {self._now_s:.3f} virtual seconds")
        if timeout is None:
            raise Deadlock(f"at {self._now_s:.3f} virtual seconds")
        self._now_s += timeout
        return []

    def _make_task(
        self, _loop: asyncio.AbstractEventLoop, coro: Any, *, context: Context | None = None, name: str | None = None
    ) -> SimTask:
        task = SimTask(coro, loop=self, name=name, context=context)
        if self._on_task is not None:
            self._on_task(task, context or copy_context())
        return task

    def _process_events(self, event_list: list[Any]) -> None:
        del event_list

    def _write_to_self(self) -> None:
        return

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """The finalizer of abandoned async generators calls this, from our only thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, *_args: Any, **_options: Any) -> NoReturn:
        raise RuntimeError("the simulation has no threads")


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], loop: VirtualLoop | None = None) -> T:
    """Run to the end in virtual time; tasks left over are cancelled. Raises what `main` raises."""
    loop = loop or VirtualLoop()
    collecting = gc.isenabled()
    gc.disable()  # when cycles are collected would otherwise depend on what ran before us
    try:
        return loop.run_until_complete(main())
    finally:
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        for task in sorted(left, key=hash):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        if collecting:
            gc.enable()
