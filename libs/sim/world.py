"""The world of a simulated run: one log, one bus, and processes that are started, killed and started again.

Called by `tests/sim`, whose scenarios are async functions of a `World`:

    async def scenario(world: World) -> None:
        world.add(SERVICE, world_of=lambda life: Hands(provider))
        client = world.client("customer")
        await client.wish(Open(...))
        await world.settle(lambda: ...)
        await world.check()

    simulate(seed, scenario)

Owns the lives of all processes and the order of a run: faults and kills until `settle`, then calm, then invariants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from msgspec import Struct

from libs.eventlog.memory import MemoryLog
from libs.runtime.codec import stream_of
from libs.runtime.listening import PUBLIC_STREAM
from libs.runtime.memory_store import MemoryStore
from libs.runtime.run import run
from libs.runtime.service import Service
from libs.runtime.surroundings import Surroundings
from libs.sim import invariants
from libs.sim.bus import SimBus, SimNetwork
from libs.sim.chance import Chance, Faults
from libs.sim.client import Client
from libs.sim.life import Life, SimClock, SimIds, adopt_task
from libs.sim.log import DedupWindow, SimLog
from libs.sim.loop import VirtualLoop, run_virtual
from libs.sim.store import SimStore
from libs.sim.trace import Trace
from libs.telemetry import Metrics, logger

# Nothing was written for this long: longer than any pause between two steps of one piece of work in calm weather.
QUIET_S = 5.0
SETTLE_POLL_S = 0.5
SETTLE_S_MAX = 3_600.0


@dataclass
class Process:
    """One replica of a service: what survives a kill (store, log) and the life it has now, if any."""

    name: str
    service: Service
    store: MemoryStore
    empty_store: Callable[[], MemoryStore]
    world_of: Callable[[Life], Any]
    life: Life | None = None
    lives: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)


class World:
    """Everything of one run."""

    def __init__(self, seed: int, faults: Faults, trace: Trace) -> None:
        self.seed = seed
        self.trace = trace
        self.chance = Chance(seed, faults)
        self.random = self.chance.generator("scenario")
        self.clock = SimClock()
        self.log = MemoryLog()
        self.window = DedupWindow()
        self.network = SimNetwork(self.clock, trace)
        self.processes: list[Process] = []
        self.clients: list[Client] = []
        self.bug: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._monkey: asyncio.Task[None] | None = None

    def add(
        self,
        service: Service,
        *,
        world_of: Callable[[Life], Any] = lambda _: None,
        store: MemoryStore | None = None,
        empty_store: Callable[[], MemoryStore] = MemoryStore,
        replicas: int = 1,
    ) -> MemoryStore:
        """Start a service; its replicas share a store, which is returned. `world_of` makes each life's own world."""
        store = store or empty_store()
        for number in range(replicas):
            process = Process(f"{service.name}-{number}", service, store, empty_store, world_of)
            self.processes.append(process)
            self._start(process)
        if self._monkey is None:
            self._monkey = asyncio.get_running_loop().create_task(self._kill_now_and_then(), name="monkey")
        return store

    def client(self, name: str) -> Client:
        """Somebody outside who asks, waits, and asks again."""
        life = Life(f"client-{name}", len(self.clients), self.chance)
        client = Client(name, SimBus(self.network, life), life, self.clock)
        self.clients.append(client)
        return client

    async def crash(self, process: Process) -> None:
        """Kill it between two steps; nothing it holds in memory survives."""
        life, process.life = process.life, None
        if life is not None:
            self.trace.note("kill", life.name)
            self.network.forget(life)
            await life.kill()

    def restart(self, process: Process) -> None:
        if process.life is None:
            self._start(process)

    async def settle(self, at_rest: Callable[[], bool] = lambda: True, *, within_s: float = SETTLE_S_MAX) -> None:
        """End all faults, start what is down, and wait until nothing is written any more and `at_rest()` holds."""
        self.chance.calm()
        if self._monkey is not None:
            self._monkey.cancel()
            await asyncio.gather(self._monkey, return_exceptions=True)
        for process in self.processes:
            self.restart(process)
        give_up_s = self.clock.monotonic_s() + within_s
        sizes, since_s = await self._sizes(), self.clock.monotonic_s()
        while True:
            await asyncio.sleep(SETTLE_POLL_S)
            now_s = self.clock.monotonic_s()
            if (grown := await self._sizes()) != sizes:
                sizes, since_s = grown, now_s
            elif now_s - since_s >= QUIET_S and at_rest():
                return
            assert now_s < give_up_s, f"not at rest {within_s} virtual seconds after the last fault"

    async def check(self) -> None:
        """The invariants of every service."""
        seen: set[str] = set()
        acknowledged = [wish for client in self.clients for wish in client.acknowledged]
        for process in self.processes:
            service = process.service
            if service.name in seen:
                continue
            seen.add(service.name)
            mine = [wish for wish in acknowledged if wish.command.service == service.name]
            await invariants.versions_have_no_gaps(self.log, service)
            await invariants.acknowledged_wishes_are_stored_once(self.log, service, mine)
            await invariants.rows_are_the_fold_of_the_log(self.log, service, process.store, process.empty_store())
            await invariants.public_facts_are_told_once(self.log, service)

    async def _sizes(self) -> list[int]:
        streams = [PUBLIC_STREAM, *(stream_of(process.service.name) for process in self.processes)]
        return [await self.log.last_seq(stream) for stream in streams]

    def _start(self, process: Process) -> None:
        process.lives += 1
        life = process.life = Life(process.name, process.lives, self.chance)
        process.stop = asyncio.Event()
        self.trace.note("start", life.name)
        around = Surroundings(
            log=SimLog(self.log, self.window, life, self.trace),
            store=SimStore(process.store, life),
            bus=SimBus(self.network, life),
            clock=self.clock,
            ids=SimIds(life.name),
            logger=logger("sim", process=life.name),
            metrics=Metrics(),
            world=process.world_of(life),
        )
        task = life.start(run(process.service, around, process.stop), life.name)
        life.on_bug = partial(self._report, life)
        task.add_done_callback(partial(self._ended, life))

    def _ended(self, life: Life, task: asyncio.Task[Any]) -> None:
        if life.alive and not task.cancelled() and (error := task.exception()) is not None:
            self._report(life, error)

    def _report(self, life: Life, error: BaseException) -> None:
        self.trace.note("bug", life.name, repr(error))
        if not self.bug.done():
            self.bug.set_exception(ProcessDied(life.name, error))

    async def _kill_now_and_then(self) -> None:
        random = self.chance.generator("monkey")
        while (mean_s := self.chance.faults.crash_every_s) > 0:
            await asyncio.sleep(random.expovariate(1 / mean_s))
            process = random.choice(self.processes)
            await self.crash(process)
            await asyncio.sleep(random.uniform(0, self.chance.faults.down_s_max))
            self.restart(process)


class ProcessDied(Exception):
    """A service ended by itself: a bug."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(f"{name} died: {error!r}")
        self.__cause__ = error


class SeedFailed(AssertionError):
    """A run broke a promise; the text says how to see it again."""


class Outcome(Struct, frozen=True):
    """A run that kept every promise. Equal seeds give equal outcomes."""

    seed: int
    digest: str
    notes: int
    virtual_s: float


Scenario = Callable[[World], Awaitable[None]]


def simulate(
    seed: int,
    scenario: Scenario,
    *,
    faults: Faults | None = None,
    say: Callable[[str], None] | None = None,
    repeat: str = "",
) -> Outcome:
    """Run one seed. Raises SeedFailed, whose text ends with the command that repeats it (`repeat` is added to it)."""
    loop = VirtualLoop(adopt_task)
    trace = Trace(say)

    async def main() -> float:
        world = World(seed, faults or Faults(), trace)
        running = asyncio.ensure_future(scenario(world))
        await asyncio.wait({running, world.bug}, return_when=asyncio.FIRST_COMPLETED)
        if world.bug.done():
            running.cancel()
            await world.bug
        world.bug.cancel()
        await running
        return world.clock.monotonic_s()

    try:
        virtual_s = run_virtual(main, loop)
    except Exception as error:
        raise SeedFailed(
            f"seed {seed}: {str(error) or repr(error)}\nto see it again: just sim {seed}{repeat}"
        ) from error
    return Outcome(seed, trace.digest(), trace.notes, virtual_s)
