"""What time costs: any partition, any order and any repetition of what is heard gives the same ledger."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.money import cost_micros
from proto.billing.commands import AddCredits, AdjustLedger, NoteEnd, NoteRate
from proto.billing.events import MeterChanged, UsageCharged
from proto.billing.words import LINES
from services.billing.decider.account import ACCOUNT
from services.billing.decider.charging import LINES_PER_COMMIT_MAX
from services.billing.decider.ladder import standing
from services.billing.decider.state import Account
from tests.spec.billing.ledgers import GPU_PRICE, at, bought, end, hold, rate, revenue, run, tick

HOUR = 3_600
FEW = settings(max_examples=200, deadline=None)
seconds = st.integers(0, 20 * HOUR)
prices = st.sampled_from((0, 1, 7, 299_999, GPU_PRICE, 1_234_567))


def test_a_segment_costs_its_seconds_however_it_is_ticked():
    ledger = run([bought(100), rate(0, GPU_PRICE), tick(600), tick(601), tick(1_900.5), rate(1_999.9, 0)])
    assert revenue(ledger) == cost_micros(1_999, GPU_PRICE)


@FEW
@given(st.lists(st.floats(0, 40 * HOUR, allow_nan=False), max_size=30), st.integers(1, 5_000_000), st.floats(1, 9e4))
def test_any_partition_of_a_running_time_gives_the_same_total(cuts: list[float], price: int, lasts: float):
    ledger = run([bought(100_000), rate(0, price), *map(tick, sorted(cuts)), rate(lasts, 0), tick(41 * HOUR)])
    assert revenue(ledger) == cost_micros(int(timedelta(seconds=lasts) / timedelta(seconds=1)), price)


facts = st.lists(
    st.one_of(
        st.builds(
            lambda when, price, one, machine: rate(when, price, instance_id=one, machine_id=machine),
            seconds, prices, st.sampled_from(("inst_a", "inst_b")), st.sampled_from(("mach_1", "mach_2")),
        ),
        st.builds(
            lambda when, price: rate(when, price, meter_id="vol_1", line="volume", machine_id=""), seconds, prices
        ),
        st.builds(end, seconds, st.sampled_from(("inst_a", "inst_b"))),
    ),
    max_size=14,
)  # fmt: skip


def settled(ledger: Account) -> tuple[object, ...]:
    """What the customer is left with, once everything up to a common instant is charged."""
    totals = {account: micros for account, micros in ledger.totals.items() if micros}
    return totals, sorted(ledger.grants, key=lambda grant: grant.grant_id)


@FEW
@given(facts, st.randoms(use_true_random=False), st.lists(seconds, max_size=6), st.sampled_from((1, 1_000)))
def test_any_order_and_repetition_of_facts_gives_the_same_ledger(
    heard: list[NoteRate | NoteEnd], chance: Random, ticks: list[int], usd: int
):
    """Ticks fall anywhere in between: corrections make up for what was heard late."""
    late = replace(rate(20 * HOUR, 5, instance_id="inst_z"), now=at(20 * HOUR))
    last = [late, tick(21 * HOUR)]
    in_order = run([bought(usd), *sorted(heard, key=lambda fact: fact.at), *last])
    shuffled = [*heard, *chance.choices(heard, k=len(heard))] if heard else []
    chance.shuffle(shuffled)
    for moment in sorted(ticks):
        shuffled.insert(chance.randrange(len(shuffled) + 1), tick(moment))
    assert settled(run([bought(usd), *shuffled, *last])) == settled(in_order)


moments = st.one_of(
    facts.map(lambda some: some[:1]),
    st.builds(lambda when: [tick(when)], seconds),
    st.builds(lambda usd, when: [bought(usd, f"pay_{usd}_{when}", when)], st.integers(1, 20), seconds),
    st.builds(lambda micros, when: [hold(micros, "inst_c", when)], st.integers(1, 3 * GPU_PRICE), seconds),
)


@FEW
@given(st.lists(moments, max_size=25), st.lists(seconds, min_size=1, max_size=5))
def test_whatever_happens_usage_never_takes_a_prepaid_balance_below_zero(story: list[list[Any]], looks: list[int]):
    """Late facts and late ticks included, and at any instant between two ticks: available is never negative. What is
    bought is in the balance to the micro-unit, whatever ran before."""
    ledger = Account()
    for wish in (wish for wishes in story for wish in wishes):
        before = standing(ledger, wish.now).posted_usd_micros
        is_new = isinstance(wish, AddCredits) and wish.credit_id not in ledger.credit_ids
        ledger = run([wish], ledger)
        if is_new:
            assert standing(ledger, wish.now).posted_usd_micros == before + wish.usd_micros
        for now in (*looks, 20 * HOUR):
            stands = standing(ledger, at(now))
            assert 0 <= stands.available_usd_micros <= stands.posted_usd_micros
    earned = sum(revenue(ledger, line) for line in LINES)
    bought_usd_micros = -ledger.totals.get("cash", 0)
    assert ledger.posted_usd_micros == bought_usd_micros - earned - ledger.totals.get("uncollected", 0)


def test_a_stop_that_is_heard_after_its_tick_is_corrected_not_edited():
    ledger = run([bought(100), rate(0, GPU_PRICE), tick(1_200)])
    (event, *_) = ACCOUNT.decide(ledger, rate(1_000, 0, now=1_300))
    assert isinstance(event, MeterChanged)
    assert event.usd_micros == cost_micros(1_000, GPU_PRICE) - cost_micros(1_200, GPU_PRICE)
    assert revenue(run([rate(1_000, 0, now=1_300)], ledger)) == cost_micros(1_000, GPU_PRICE)


def test_a_correction_of_a_closed_day_is_told_apart():
    """The meter ran into the next day, then it is heard that it had stopped the day before."""
    ledger = run([bought(100), rate(0, GPU_PRICE), tick(15 * HOUR)])
    (event, *_) = ACCOUNT.decide(ledger, rate(13 * HOUR, 0, now=15 * HOUR))
    assert isinstance(event, MeterChanged)
    yesterday = cost_micros(13 * HOUR, GPU_PRICE) - cost_micros(14 * HOUR, GPU_PRICE)
    assert event.adjustment_usd_micros == yesterday
    assert event.usd_micros == cost_micros(13 * HOUR, GPU_PRICE) - cost_micros(15 * HOUR, GPU_PRICE)
    assert event.day_usd_micros == 0


def test_a_tick_never_crosses_midnight_and_says_what_the_day_came_to():
    ledger = run([bought(100), rate(0, GPU_PRICE), tick(HOUR)])
    first, second, *_ = ACCOUNT.decide(ledger, tick(15 * HOUR))
    assert isinstance(first, UsageCharged)
    assert isinstance(second, UsageCharged)
    assert (first.until, first.is_day_end) == (at(14 * HOUR), True)
    assert first.day_lines[0].usd_micros == cost_micros(14 * HOUR, GPU_PRICE)
    assert (second.since, second.until) == (at(14 * HOUR), at(15 * HOUR))


def test_an_account_that_was_not_looked_at_for_months_catches_up_in_bounded_commits():
    ledger = run([bought(100_000), rate(0, GPU_PRICE)])
    months = 90 * 24 * HOUR
    charged = run([tick(months), tick(months)], ledger)
    assert revenue(charged) == cost_micros(months, GPU_PRICE)
    many = run([rate(0, GPU_PRICE, instance_id=f"inst_{n}") for n in range(400)], ledger)
    events = [event for event in ACCOUNT.decide(many, tick(months)) if isinstance(event, UsageCharged)]
    assert len(events) == LINES_PER_COMMIT_MAX // (2 * 401)
    assert events[-1].next_tick_at == at(months), "the rest is due at once"


def test_what_is_heard_of_a_deleted_instance_later_is_not_charged():
    early = run([bought(100), rate(0, GPU_PRICE), end(100)])
    late = run([bought(100), end(100), rate(0, GPU_PRICE), tick(500)])
    assert revenue(early) == revenue(late) == cost_micros(100, GPU_PRICE)


def test_an_idle_account_is_not_charged_and_not_ticked():
    ledger = run([bought(100), rate(0, GPU_PRICE), rate(60, 0), tick(9_000), rate(90_000, GPU_PRICE), tick(90_060)])
    assert revenue(ledger) == 2 * cost_micros(60, GPU_PRICE)
    assert not ACCOUNT.decide(run([rate(90_061, 0)], ledger), tick(99_000))


def test_lines_are_apart():
    ledger = run([
        bought(100),
        rate(0, GPU_PRICE),
        rate(0, 10_000, meter_id="vol_1", line="volume"),
        rate(0, 50_000, meter_id="mach_9", line="warm_pool"),
        rate(0, 20_000, meter_id="mach_8", line="cpu_standby"),
        tick(HOUR),
    ])  # fmt: skip
    assert [revenue(ledger, line) for line in ("gpu", "volume", "warm_pool", "cpu_standby")] == [
        GPU_PRICE, 10_000, 50_000, 20_000
    ]  # fmt: skip


def test_the_state_of_a_year_stays_small():
    """Instances come and go; what is remembered of them is a day's worth."""
    ledger = run([bought(90_000)])
    for day in range(60):
        start = day * 24 * HOUR
        for one in range(4):
            name = f"inst_{day}_{one}"
            ledger = run([rate(start + one, GPU_PRICE, instance_id=name), end(start + 3_000, name)], ledger)
    assert len(ledger.meters) <= 12
    assert len(ledger.ended) <= 12
    assert revenue(ledger) == sum(cost_micros(3_000 - one, GPU_PRICE) for one in range(4)) * 60


def test_what_is_given_back_beyond_what_any_grant_remembers_is_spent_and_given_back_again():
    """An operator's gift has no grant of its own; corrections must not take it for used money."""
    given = AdjustLedger(now=at(1), account_id="acct_7", adjustment_id="adj_1", usd_micros=5_000_000, reason="a gift")
    twice = replace(given, now=at(2), adjustment_id="adj_2")
    ledger = run([bought(1), given, twice, rate(10, 1_200_000), tick(3_610), rate(2_000, 0, now=3_700)])
    assert revenue(ledger) == cost_micros(1_990, 1_200_000)
    assert ledger.posted_usd_micros == 11_000_000 - revenue(ledger)
