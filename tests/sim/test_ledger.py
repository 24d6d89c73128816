"""A small round of the ledger against its closed form; `just ledger` runs the large one."""

from __future__ import annotations

import pytest

from tests.sim.ledger import simulate_ledgers


@pytest.mark.parametrize("seed", [1, 2])
def test_ledgers_equal_the_closed_form_and_poor_ones_are_stopped_in_time(seed: int) -> None:
    outcome = simulate_ledgers(seed=seed, accounts=10, days=1)
    assert outcome.starts > 50
    assert outcome.corrections > 0
    assert outcome.suspensions > 0
    assert outcome.overdraft_ticks <= 1.0
