"""A short, seeded round of chaos: nothing acknowledged is lost, nothing is done twice, everything is back in time."""

from __future__ import annotations

from pathlib import Path

from tests.journey.chaos import CALM_MARKET, chaos_round
from tests.journey.platform import platform

SEED = 7
COMMANDS = 24


def test_a_round_of_kills_loses_and_doubles_nothing(own_data_dir: Path) -> None:
    with platform(own_data_dir, environment=CALM_MARKET) as up:
        outcome = chaos_round(up, seed=SEED, commands=COMMANDS)
    assert outcome.complaints == []
    assert outcome.kills.total() > 0
