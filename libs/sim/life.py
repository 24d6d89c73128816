"""One life of one process: from its start to its end or its killing.

Called by `libs.sim.world`, which starts and kills, and by the ports, which ask before and after every step whether
the process still lives. Owns the list of the life's tasks.

A killed process does nothing more. Its tasks are cancelled, and should one of them swallow that or clean up on the way
out, its ports refuse to act: what a `finally` would have done, a kill -9 does not do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.sim.chance import Chance, Draws
from libs.sim.loop import SimTask

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# A task that will not end after this many cancellations is stuck in a loop that swallows them.
CANCELS_MAX = 100
TASKS_BEFORE_PRUNING = 256

_living: ContextVar[Life | None] = ContextVar("life", default=None)


def _raise(bug: BaseException) -> None:
    raise bug


class Life:
    """One process between start and end. `on_bug` hears what it dies of, should it die by itself."""

    def __init__(self, name: str, number: int, chance: Chance) -> None:
        self.name = f"{name}#{number}"
        self.alive = True
        self.on_bug: Callable[[BaseException], None] = _raise
        self.draws = Draws(chance, self.name)
        self._tasks: list[SimTask] = []
        self._prune_at = TASKS_BEFORE_PRUNING
        self._context = self._make_context()

    def _make_context(self) -> Context:
        context = copy_context()
        context.run(_living.set, self)
        return context

    def start(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something as part of this process; what it starts belongs to the process too."""
        return asyncio.get_running_loop().create_task(coro, name=name, context=self._context.copy())

    async def pause(self, seconds: float) -> None:
        """Let time pass; the process may be killed meanwhile."""
        self.must_live()
        await asyncio.sleep(seconds)
        self.must_live()

    async def step(self) -> None:
        """The usual way to a port: takes a random while, often none."""
        delay_s = self.draws.delay_s()
        if delay_s:
            await self.pause(delay_s)
        else:
            self.must_live()

    def must_live(self) -> None:
        if not self.alive:
            raise asyncio.CancelledError(f"{self.name} was killed")

    async def kill(self) -> None:
        """End it between two steps, as `kill -9` does."""
        self.alive = False
        running: list[SimTask] = []
        for _ in range(CANCELS_MAX):
            running = [task for task in self._tasks if not task.done()]
            if not running:
                return
            for task in running:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"{self.name} does not die: {[task.get_name() for task in running]}")

    def adopt(self, task: SimTask) -> None:
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = max(TASKS_BEFORE_PRUNING, 2 * len(self._tasks))


def adopt_task(task: SimTask, context: Context) -> None:
    """Tell the life in whose context a task was made (for `VirtualLoop.on_task`)."""
    life = context.get(_living)
    if life is not None:
        life.adopt(task)


class SimClock:
    """Virtual time, on a calendar that starts at EPOCH."""

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimIds:
    """Ids that count up, under the name of the life that makes them, so that two processes never make the same."""

    def __init__(self, owner: str) -> None:
        self._owner = "".join(letter if letter.isalnum() else "x" for letter in owner)
        self._count = 0

    def fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._owner}x{self._count:06d}"
