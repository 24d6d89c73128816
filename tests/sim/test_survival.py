"""Failover, warm pool and instance keep their promises together, whatever the log, the bus, the cloud and kills do.

A run takes three times as long as one of the instance alone, so there are 200 of them wherever the tests run; more with
`python -m tests.sim 0 --count N --scenario survival`. A failure names its seed and the command that repeats it.
"""

from __future__ import annotations

import pytest

from libs.sim.world import SeedFailed, simulate
from tests.sim import survival_scenario
from tests.sim.survival_scenario import WEATHER

SEEDS = 200
SEEDS_PER_TEST = 40  # a test has two minutes, also on a machine that is busy with others
FAILURES_SHOWN_MAX = 5


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_every_interruption_is_answered_once_and_one_machine_is_primary(first: int) -> None:
    failures: list[str] = []
    for seed in range(first, min(first + SEEDS_PER_TEST, SEEDS)):
        try:
            simulate(seed, survival_scenario.scenario, faults=WEATHER, repeat=" --scenario survival")
        except SeedFailed as failure:
            failures.append(str(failure))
    assert not failures, f"{len(failures)} runs failed:\n" + "\n".join(failures[:FAILURES_SHOWN_MAX])


def test_runs_meet_what_they_are_for() -> None:
    """Takeovers of both modes, declined and failed ones, joined losses and kills all happen within some seeds."""
    lines: list[str] = []
    for seed in range(60):
        simulate(seed, survival_scenario.scenario, faults=WEATHER, say=lines.append)
    text = "\n".join(lines)
    for sign in (
        " kill failover-",
        " kill warmpool-",
        " kill instance-",
        " gone though running",
        " running though exited",
        " late create of ",
        '"type":"failover.completed"',
        '"type":"failover.failed"',
        '"type":"machine.promotion_planned"',
        '"type":"instance.promotion_failed"',
        '"is_replacement":true',
        '"mode":"hot"',
    ):
        assert sign in text, f"no {sign} in 60 runs"
