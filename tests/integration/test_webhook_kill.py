"""kill -9 of the dispatcher and its servers while receivers fail: nothing lost, order kept, repeats known by id."""

from __future__ import annotations

from pathlib import Path

from tests.journey.deliveries import VICTIMS, deliveries_round

INSTANCES, FACTS_EACH = 20, 12


async def test_kills_lose_nothing_and_keep_the_order(tmp_path: Path) -> None:
    outcome = await deliveries_round(
        tmp_path,
        seed=3,
        instances=INSTANCES,
        facts_each=FACTS_EACH,
        say_pause_s=0.2,
        kills_max=len(VICTIMS),
        pause_s=0.5,
    )
    assert outcome.complaints == []
    assert set(outcome.kills) == set(VICTIMS)
    assert outcome.attempts > outcome.deliveries
