"""Fifty machines taken away at once: everybody gets one answer (the long round is `just storm`)."""

from __future__ import annotations

from pathlib import Path

from tests.journey import storm


def test_when_every_machine_is_taken_at_once_each_instance_is_answered_once(own_data_dir: Path) -> None:
    outcome = storm.run(50, own_data_dir)
    assert not outcome.complaints
    assert (outcome.completed, dict(outcome.failed)) == (45, {"every_rung_failed": 5})
