"""The market simulation: its weather is what was published, its months repeat, and no strategy makes two primaries."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest

from proto.failover.words import RUNGS_OF, CpuStandbyPatch, GlobalPatch
from tests.sim.market.replay import replay
from tests.sim.market.strategies import Choice, choices
from tests.sim.market.weather import ZONES, Zone, outages

DAYS = 910.0  # twenty times the trace: its own figures are one draw of many
SAMPLE_S = 1_950.0
SMALL_MONTH = {"seed": 3, "days": 4.0, "instances": 6}


def sampled(seed: int) -> dict[str, list[bool]]:
    """Every zone's availability at equal steps."""
    steps = int(DAYS * 86_400 / SAMPLE_S)
    up = {zone.name: [True] * steps for zone in ZONES}
    for outage in outages(seed, DAYS):
        first, last = int(outage.start_s / SAMPLE_S) + 1, min(int(outage.end_s / SAMPLE_S) + 1, steps)
        up[outage.zone][first:last] = [False] * (last - first)
    return up


def correlation(one: list[bool], other: list[bool]) -> float:
    a, b = fmean(one), fmean(other)
    both = fmean(x and y for x, y in zip(one, other, strict=True))
    return (both - a * b) / (a * (1 - a) * b * (1 - b)) ** 0.5


def test_zones_are_available_as_often_as_the_trace_says() -> None:
    up = sampled(1)
    for zone in ZONES:
        assert fmean(up[zone.name]) == pytest.approx(zone.available, abs=0.06), zone.name


def test_zones_of_a_region_fail_together_more_often_than_others() -> None:
    up = sampled(1)
    near, far = list[float](), list[float]()
    for one, other in combinations(ZONES, 2):
        together: list[float] = near if is_near(one, other) else far
        together.append(correlation(up[one.name], up[other.name]))
    assert fmean(near) > 2 * fmean(far) > 0


def is_near(one: Zone, other: Zone) -> bool:
    return one.region == other.region


@pytest.mark.parametrize("choice", choices(), ids=lambda choice: choice.name)
def test_no_strategy_ever_has_two_primaries(choice: Choice) -> None:
    outcome = replay(choice, **SMALL_MONTH)
    assert outcome.double_primary_s == 0
    assert outcome.untrue_windows == 0
    assert sum(ready.count for ready in outcome.ready) == outcome.failovers_completed
    assert {ready.rung for ready in outcome.ready} <= set(RUNGS_OF[choice.strategy])
    assert (outcome.losses > 0) == (choice.billing == "spot")
    assert 0.5 < outcome.availability <= 1
    if choice.billing == "on_demand":
        assert outcome.cost_share == pytest.approx(1, abs=0.01)
    else:
        assert outcome.cost_share < 0.8


def test_a_seed_is_a_month() -> None:
    choice = next(choice for choice in choices() if choice.name == "warm_pool, hot")
    first, again = (replay(choice, **SMALL_MONTH) for _ in range(2))
    assert first == again
    assert first.failovers_completed > 0


def test_the_account_s_settings_hold_on_the_market() -> None:
    choice = next(choice for choice in choices() if choice.name == "cpu_standby")
    usual = replay(choice, **SMALL_MONTH)
    watchful = replay(choice, settings=_cpu(health_check_interval_seconds=1), **SMALL_MONTH)
    assert usual.failovers_completed > 0
    assert watchful.unavailable_p50_s < usual.unavailable_p50_s
    told = replay(choice, settings=_cpu(auto_failover=False), **SMALL_MONTH)
    assert told.failovers_failed > told.failovers_completed == 0


def _cpu(**settings: int) -> GlobalPatch:
    return GlobalPatch(cpu_standby=CpuStandbyPatch(**settings))
