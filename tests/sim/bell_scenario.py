"""The bell in rough weather: customers press, processes die, and in the end every press has rung exactly once.

Used by the simulator's own tests and by `python -m tests.sim --scenario bell`.
"""

from __future__ import annotations

import asyncio

from libs.refusal import Refused
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import DEADLINES_TABLE
from libs.sim.chance import Faults
from libs.sim.invariants import heard, nothing_was_given_up
from libs.sim.world import World
from tests.sim.bell import BELL, Press, Pressed, Rung, Tower

ROUGH = Faults(crash_every_s=6.0)


async def presses(world: World, tower: Tower, *, bells: int = 3, count: int = 4, replicas: int = 2) -> MemoryStore:
    store = world.add(BELL, world_of=lambda life: (tower, life), replicas=replicas)

    async def press_one(bell: int) -> None:
        client = world.client(f"c{bell}")
        for press in range(count):
            await world.clock.sleep(world.random.uniform(0, 3))
            try:
                await client.wish(Press(now=world.clock.now(), bell_id=f"bell_{bell}", press=press))
            except Refused as refused:
                assert refused.code == "BELL_IS_MUTE"

    await asyncio.gather(*(press_one(bell) for bell in range(bells)))
    return store


async def scenario(world: World) -> None:
    tower = Tower()
    store = await presses(world, tower)
    await world.settle(lambda: not store.rows(DEADLINES_TABLE))
    await world.check()
    await nothing_was_given_up(world.log)
    assert all(bell["muted"] for bell in store.rows("bells"))
    said = [event.event for event in await heard(world.log, BELL)]
    pressed = {f"{event.bell_id}/{event.press}" for event in said if isinstance(event, Pressed)}
    rung = [f"{event.bell_id}/{event.press}" for event in said if isinstance(event, Rung)]
    assert len(rung) == len(set(rung))
    assert set(rung) == pressed == set(tower.rings)
