"""Failover, warm pool and instance keep their promises together, whatever the log, the bus, the cloud and kills do.

There are 200 runs of `survival` (warm pools), 60 of `every-rung` and 40 of `volumes` wherever the tests run; more with
`python -m tests.sim 0 --count N --scenario survival`. A failure names its seed and the command that repeats it.
"""

from __future__ import annotations

import pytest

from libs.sim.world import Scenario, SeedFailed, simulate
from tests.sim import survival_scenario
from tests.sim.survival_scenario import WEATHER

SEEDS = 200
SEEDS_OF_EVERY_RUNG = 60
SEEDS_PER_TEST = 40  # a test has two minutes, also on a machine that is busy with others
FAILURES_SHOWN_MAX = 5


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_every_interruption_is_answered_once_and_one_machine_is_primary(first: int) -> None:
    _run(range(first, min(first + SEEDS_PER_TEST, SEEDS)), survival_scenario.scenario, "survival")


def test_cpu_standbys_and_snapshots_keep_the_same_promises() -> None:
    """And within these seeds a CPU standby takes over, and a machine is filled from a snapshot."""
    text = _run(range(SEEDS_OF_EVERY_RUNG), survival_scenario.every_rung, "every-rung")
    for sign in ('"restore":"standby"', '"type":"failover.cloud_storage_success"', '"type":"machine.restored"'):
        assert sign in text, f"no {sign} in {SEEDS_OF_EVERY_RUNG} runs"


def test_volumes_of_a_region_keep_the_same_promises() -> None:
    """A machine is ordered with a volume only when nobody else has it (the cloud refuses), and none is left behind."""
    text = _run(range(SEEDS_PER_TEST), survival_scenario.volumes, "volumes")
    for sign in ('"type":"failover.regional_volume_success"', "no_gpu_in_region", '"type":"volume.attached"'):
        assert sign in text, f"no {sign} in {SEEDS_PER_TEST} runs"


def _run(seeds: range, scenario: Scenario, name: str) -> str:
    """All lines of all runs."""
    failures: list[str] = []
    lines: list[str] = []
    for seed in seeds:
        try:
            simulate(seed, scenario, faults=WEATHER, say=lines.append, repeat=f" --scenario {name}")
        except SeedFailed as failure:
            failures.append(str(failure))
    assert not failures, f"{len(failures)} runs failed:\n" + "\n".join(failures[:FAILURES_SHOWN_MAX])
    return "\n".join(lines)


def test_runs_meet_what_they_are_for() -> None:
    """Takeovers of both modes, declined and failed ones, joined losses and kills all happen within some seeds."""
    text = _run(range(60), survival_scenario.scenario, "survival")
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
