"""Every victim killed once, each at another phase, in three of the ways through a loss (all rounds: `just phases`)."""

from __future__ import annotations

from pathlib import Path

from tests.journey import phases
from tests.journey.patient import Boundary
from tests.journey.phases import Round

ROUNDS = (
    Round("warm_pool", Boundary("instance.interrupted"), "nats"),
    Round("warm_pool", Boundary("failover.rung_tried"), "failover"),
    Round("warm_pool", Boundary("warmpool.claimed"), "warmpool"),
    Round("warm_pool", Boundary("instance.ready"), "agent"),
    Round("volume_moved", Boundary("instance.recovering"), "instance"),
    Round("volume_moved", Boundary("instance.ready"), "postgres"),
    Round("cpu_and_back", Boundary("standby.handed_over"), "instance"),
)


def test_a_loss_during_which_somebody_is_killed_ends_as_an_undisturbed_one(own_data_dir: Path) -> None:
    assert phases.run(own_data_dir, ROUNDS) == []
