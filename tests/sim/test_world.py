"""The simulator itself: time jumps, runs repeat, kills kill, and broken promises are found."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest

from libs.runtime.service import Aggregate
from libs.sim.chance import CALM
from libs.sim.invariants import heard
from libs.sim.loop import Deadlock, run_virtual
from libs.sim.world import Outcome, SeedFailed, World, simulate
from proto.base import Event
from tests.sim.bell import BELL, Bell, Press, Pressed, Tower, decide, evolve
from tests.sim.bell_scenario import ROUGH, presses, scenario


def test_hours_pass_at_once_and_in_order() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        woke: list[float] = []

        async def sleeper(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woke.append(loop.time())

        async with asyncio.TaskGroup() as group:
            for seconds in (7_200.0, 0.0, 100_000.0, 3.5):
                group.create_task(sleeper(seconds))
        return woke

    assert run_virtual(main) == pytest.approx([0.0, 3.5, 7_200.0, 100_000.0])


def test_waiting_for_nobody_is_a_deadlock_not_a_hang() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(main)


@pytest.mark.parametrize("seed", range(15))
def test_a_service_keeps_every_promise_in_rough_weather(seed: int) -> None:
    simulate(seed, scenario, faults=ROUGH)


def test_a_seed_is_a_run() -> None:
    first = [simulate(seed, scenario, faults=ROUGH) for seed in (1, 2)]
    again = [simulate(seed, scenario, faults=ROUGH) for seed in (1, 2)]
    assert first == again
    assert first[0].digest != first[1].digest
    assert all(outcome.notes > 20 for outcome in first)


def test_faults_and_kills_do_happen() -> None:
    lines: list[str] = []
    for seed in range(5):
        simulate(seed, scenario, faults=ROUGH, say=lines.append)
    assert sum(" kill bell-" in line for line in lines) >= 5


def test_calm_weather_needs_no_luck() -> None:
    outcome = simulate(0, scenario, faults=CALM)
    assert isinstance(outcome, Outcome)


def test_a_decider_that_does_not_know_its_own_work_is_found() -> None:
    """A press that is not recognised when repeated: lost replies and doubled requests must bring it to light."""

    def forgetful(state: Bell, command: object) -> Sequence[Event]:
        if isinstance(command, Press):
            return [Pressed(bell_id=command.bell_id, account_id="a", press=command.press, pressed_at=command.now)]
        return decide(state, command)  # type: ignore[arg-type]

    kind = BELL.aggregates[0]
    service = dataclasses.replace(BELL, aggregates=[Aggregate("bell", Bell(), forgetful, evolve, kind.events)])

    async def story(world: World) -> None:
        tower = Tower()
        world.add(service, world_of=lambda life: (tower, life))
        client = world.client("c")
        for press in range(10):
            await client.wish(Press(now=world.clock.now(), bell_id="bell_1", press=press))
        await world.settle()
        await world.check()

    with pytest.raises(SeedFailed, match=r"made 2 commits(?s:.*)just sim \d+"):
        for seed in range(20):
            simulate(seed, story)


def test_a_bug_in_a_service_fails_the_run_with_its_cause() -> None:
    def buggy(state: Bell, command: object) -> Sequence[Event]:
        raise ZeroDivisionError("oops")

    kind = BELL.aggregates[0]
    service = dataclasses.replace(BELL, aggregates=[Aggregate("bell", Bell(), buggy, evolve, kind.events)])

    async def story(world: World) -> None:
        world.add(service)
        await world.client("c").wish(Press(now=world.clock.now(), bell_id="bell_1", press=1))

    with pytest.raises(SeedFailed, match="oops"):
        simulate(3, story)


def test_a_killed_process_does_nothing_more() -> None:
    async def story(world: World) -> None:
        tower = Tower()
        await presses(world, tower, replicas=1, count=1)
        (process,) = world.processes
        life = process.life
        assert life is not None
        await world.crash(process)
        said = await heard(world.log, BELL)
        await world.clock.sleep(600)
        assert await heard(world.log, BELL) == said
        with pytest.raises(asyncio.CancelledError):
            life.must_live()

    simulate(1, story, faults=CALM)
