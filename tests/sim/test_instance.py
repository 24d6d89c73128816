"""The instance service keeps its promises whatever the log, the bus, the cloud and the kill do to it.

`DUMONT_SIM_SEEDS` says how many seeds (200 by default); a failure names its seed and the command that repeats it.
"""

from __future__ import annotations

import os

import pytest

from libs.sim.chance import CALM
from libs.sim.world import SeedFailed, World, simulate
from tests.sim import instance_scenario
from tests.sim.instance_scenario import HARSH, WEATHER

SEEDS = int(os.environ.get("DUMONT_SIM_SEEDS", "200"))
SEEDS_PER_TEST = 100  # a test has two minutes, also on a machine that is busy with others
FAILURES_SHOWN_MAX = 5


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_promises_hold_in_every_run(first: int) -> None:
    failures: list[str] = []
    for seed in range(first, min(first + SEEDS_PER_TEST, SEEDS)):
        try:
            simulate(seed, instance_scenario.scenario, faults=WEATHER)
        except SeedFailed as failure:
            failures.append(str(failure))
    assert not failures, f"{len(failures)} runs failed:\n" + "\n".join(failures[:FAILURES_SHOWN_MAX])


@pytest.mark.parametrize("seed", range(30))
def test_promises_hold_in_harsh_weather(seed: int) -> None:
    """Seed 24 found a relay that told an event twice: it had saved a position in PUB beyond events ahead of it."""
    simulate(seed, instance_scenario.scenario, faults=HARSH, repeat=" --scenario instance-harsh")


def test_a_seed_is_a_run() -> None:
    first, again = (simulate(7, instance_scenario.scenario, faults=WEATHER) for _ in range(2))
    assert first == again


def test_runs_meet_what_they_are_for() -> None:
    """Kills, preemptions, adopted machines and failed boots all happen within a few seeds."""
    lines: list[str] = []
    for seed in range(30):
        simulate(seed, instance_scenario.scenario, faults=WEATHER, say=lines.append)
    text = "\n".join(lines)
    for sign in (
        " kill instance-",
        " exited",
        '"adopted":true',
        '"type":"machine.failed"',
        '"type":"instance.interrupted"',
    ):
        assert sign in text, f"no {sign} in 30 runs"


def test_a_machine_nobody_wants_is_found_and_given_back() -> None:
    """Not a simulated fault but a stranger's act: a machine with our label appears at the cloud."""

    async def story(world: World) -> None:
        cloud, store = instance_scenario.start(world)
        cloud.calm()
        machine = cloud.appear("mach_stray")
        await world.settle(lambda: machine.status == "gone", within_s=instance_scenario.REST_S_MAX)
        told = lambda: [row["status"] for row in store.rows("orphans")] == ["gone"]  # noqa: E731
        await world.settle(told, within_s=instance_scenario.REST_S_MAX)
        await world.check()

    simulate(1, story, faults=CALM)
