"""Every victim killed once, each at another phase of a failover (all pairs: `just phases`)."""

from __future__ import annotations

from pathlib import Path

from tests.journey import phases

ROUNDS = (
    ("failover.rung_tried", "failover"),
    ("warmpool.claimed", "warmpool"),
    ("instance.recovering", "instance"),
    ("instance.ready", "agent"),
    ("instance.interrupted", "nats"),
    ("failover.completed", "postgres"),
    ("instance.ready", "failover"),
    ("instance.ready", "warmpool"),
)


def test_a_failover_that_is_killed_at_a_phase_ends_as_an_undisturbed_one(own_data_dir: Path) -> None:
    assert phases.run(own_data_dir, ROUNDS) == []
