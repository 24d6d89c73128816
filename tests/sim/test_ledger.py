"""Small rounds of the ledger against its closed form and its model; `just ledger`, `just transfers` run the large."""

from __future__ import annotations

import pytest

from tests.sim.ledger import simulate_ledgers
from tests.sim.transfers import simulate_transfers


@pytest.mark.parametrize("seed", [1, 2])
def test_ledgers_equal_the_closed_form_and_poor_ones_are_stopped_in_time(seed: int) -> None:
    outcome = simulate_ledgers(seed=seed, accounts=10, days=1)
    assert outcome.starts > 50
    assert min(outcome.failovers, outcome.hibernations, outcome.price_changes, outcome.deletions) > 5
    assert outcome.corrections > 0
    assert outcome.suspensions > 0
    assert outcome.uncollected_ticks <= 1.0
    assert outcome.uncollected_usd_micros > 0


def test_random_transfers_leave_all_accounts_at_zero() -> None:
    kinds = simulate_transfers(seed=2, transfers=10_000)
    assert min(kinds.values()) > 1
    assert len(kinds) == 6
