"""Credits, holds, alerts and the way down: told as given facts, when wishes, then facts."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from msgspec.structs import replace

from libs.money import cost_micros
from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.billing.commands import (
    AdjustLedger,
    ExpireCredits,
    ExpireHold,
    NoteTopUpDeclined,
    ReleaseHold,
    SetAlerts,
)
from proto.billing.events import (
    AlertRearmed,
    BalanceExhausted,
    BalanceLow,
    BalanceRestored,
    BalanceSuspended,
    CreditsAdded,
    CreditsExpired,
    CreditsGranted,
    HoldPlaced,
    HoldReleased,
    LedgerAdjusted,
    LedgerOpened,
    MeterChanged,
    TopUpFailed,
    TopUpWanted,
    UsageCharged,
)
from proto.billing.words import AlertSettings, AutoTopUp
from services.billing.decider.account import ACCOUNT, account
from services.billing.decider.ladder import HOLD_S, standing
from services.billing.decider.state import Account
from tests.spec.billing.ledgers import (
    ACCOUNT_ID,
    GPU_PRICE,
    NOW,
    USD,
    at,
    bought,
    check,
    end,
    hold,
    rate,
    revenue,
    run,
    tick,
    welcome,
)

ACCOUNT_PAID_AFTERWARDS = account(prepaid=False, storage_kept=None)
HOUR = 3_600
TEN_MINUTES = cost_micros(HOLD_S, GPU_PRICE)


def kinds(events: object) -> list[type]:
    return [type(event) for event in events]  # type: ignore[attr-defined]


def test_every_wish_twice_is_once_and_the_ledger_always_balances():
    seconds = st.integers(-86_400, 86_400)
    names = st.sampled_from(("inst_a", "inst_b"))
    every_command_twice_is_once(
        ACCOUNT,
        st.one_of(
            st.builds(bought, st.sampled_from((1, 60, 600)), st.sampled_from(("pay_1", "pay_2"))),
            st.builds(welcome, st.sampled_from((0, 5))),
            st.builds(hold, st.integers(0, 3_000_000), names),
            st.builds(lambda name: ReleaseHold(now=NOW, account_id=ACCOUNT_ID, instance_id=name), names),
            st.builds(lambda name: ExpireHold(now=NOW, account_id=ACCOUNT_ID, instance_id=name), names),
            st.builds(
                lambda when, price, name: rate(when, price, instance_id=name),
                seconds, st.sampled_from((0, GPU_PRICE, 90_000_000)), names,
            ),
            st.builds(end, seconds, names),
            st.builds(tick, seconds),
            st.builds(
                lambda amount, one: AdjustLedger(
                    now=NOW, account_id=ACCOUNT_ID, adjustment_id=one, usd_micros=amount, reason="goodwill"
                ),
                st.integers(-9_000_000, 9_000_000), st.sampled_from(("adj_1", "adj_2")),
            ),
            st.builds(
                lambda grant: ExpireCredits(now=NOW, account_id=ACCOUNT_ID, grant_id=grant),
                st.sampled_from(("pay_1_bonus", "welcome")),
            ),
            st.builds(
                lambda low, amount: SetAlerts(
                    now=NOW, account_id=ACCOUNT_ID, alerts=AlertSettings(low, AutoTopUp(low, amount))
                ),
                st.integers(0, 20_000_000), st.sampled_from((0, 10_000_000)),
            ),
            st.just(NoteTopUpDeclined(now=NOW, account_id=ACCOUNT_ID, payment_id="pay_9")),
        ),
        invariant=check,
    )  # fmt: skip


def test_a_purchase_brings_its_bonus_and_is_booked_once():
    ledger = run([bought(500), bought(500)])
    assert ledger.totals["credits:paid"] == 500 * USD
    assert ledger.totals["credits:bonus"] == 100 * USD
    assert [run([bought(usd)]).totals.get("credits:bonus", 0) // USD for usd in (10, 50, 100)] == [0, 5, 15]


def test_given_credit_is_burnt_first_and_a_correction_goes_back_to_where_it_came_from():
    ledger = run([bought(50), rate(0, 6 * USD), tick(HOUR)])
    assert (ledger.totals["credits:paid"], ledger.totals["credits:bonus"]) == (49 * USD, 0)
    stopped_earlier = run([rate(HOUR // 2, 0, now=HOUR + 1)], ledger)
    assert (stopped_earlier.totals["credits:paid"], stopped_earlier.totals["credits:bonus"]) == (50 * USD, 2 * USD)


def test_a_bonus_expires_into_breakage_and_money_does_not():
    ledger = run([bought(50)])
    year = timedelta(days=365)
    early = ExpireCredits(now=NOW + year - timedelta(seconds=1), account_id=ACCOUNT_ID, grant_id="pay_1_bonus")
    due = ExpireCredits(now=NOW + year, account_id=ACCOUNT_ID, grant_id="pay_1_bonus")
    assert not ACCOUNT.decide(ledger, early)
    assert kinds(ACCOUNT.decide(ledger, due)) == [CreditsExpired]
    after = run([due, due], ledger)
    assert (after.totals["breakage"], after.totals["credits:bonus"], after.totals["credits:paid"]) == (
        5 * USD, 0, 50 * USD
    )  # fmt: skip
    money = ExpireCredits(now=NOW + 9 * year, account_id=ACCOUNT_ID, grant_id="pay_1")
    assert not ACCOUNT.decide(ledger, money)


def test_welcome_credit_comes_once_with_whatever_comes_first():
    assert kinds(ACCOUNT.decide(Account(), welcome(5))) == [LedgerOpened, CreditsGranted]
    assert not ACCOUNT.decide(run([welcome(5)]), welcome(5))
    late = run([rate(0, GPU_PRICE), welcome(5)])
    assert late.posted_usd_micros == 5 * USD


def test_an_adjustment_is_an_entry_of_its_own():
    ledger = run([bought(10)])
    wish = AdjustLedger(now=NOW, account_id=ACCOUNT_ID, adjustment_id="adj_1", usd_micros=-USD, reason="chargeback")
    assert kinds(ACCOUNT.decide(ledger, wish)) == [LedgerAdjusted, BalanceLow]
    after = run([wish, wish], ledger)
    assert (after.posted_usd_micros, after.totals["adjustments"]) == (9 * USD, USD)


# --- holds --------------------------------------------------------------------------------------------------------


def test_a_hold_needs_money_that_nothing_else_has():
    ledger = run([welcome(1), hold(700_000, "inst_a")])
    spec(ACCOUNT).given(*ACCOUNT.decide(Account(), welcome(1))).when(hold(700_000, "inst_a")).then_kinds(
        HoldPlaced
    ).when(hold(700_000, "inst_b")).refused(
        "INSUFFICIENT_BALANCE", needed_usd_micros=700_000, available_usd_micros=300_000
    )
    assert not ACCOUNT.decide(ledger, hold(700_000, "inst_a")), "the same instance holds once"
    assert kinds(ACCOUNT.decide(ledger, hold(300_000, "inst_b"))) == [HoldPlaced]


def test_a_hold_sees_what_has_run_since_the_last_tick():
    ledger = run([welcome(1), rate(0, GPU_PRICE)])
    spec_ledger = ACCOUNT.decide(run([tick(0)], ledger), hold(0, "inst_b", seconds=HOUR))
    assert kinds(spec_ledger)[0] is HoldPlaced
    free = USD - GPU_PRICE - TEN_MINUTES
    assert kinds(ACCOUNT.decide(ledger, hold(free, "inst_b", seconds=HOUR)))[0] is HoldPlaced
    after = spec(ACCOUNT).given(*ACCOUNT.decide(Account(), welcome(1)))
    after.when(rate(0, GPU_PRICE)).then_kinds(MeterChanged, BalanceLow).when(
        hold(free + 1, "inst_b", seconds=HOUR)
    ).refused("INSUFFICIENT_BALANCE", available_usd_micros=free)


def test_a_hold_becomes_the_running_things_own_and_is_not_counted_twice():
    ledger = run([welcome(10), hold(TEN_MINUTES), rate(60, GPU_PRICE)])
    assert ledger.holds == {}
    assert standing(ledger, at(60)).held_usd_micros == TEN_MINUTES
    assert not ACCOUNT.decide(ledger, hold(TEN_MINUTES, seconds=61)), "what runs needs no hold"
    assert standing(run([rate(120, 0)], ledger), at(120)).held_usd_micros == 0


def test_a_hold_lapses_and_is_released():
    ledger = run([welcome(10), hold(TEN_MINUTES)])
    expire = ExpireHold(now=at(899), account_id=ACCOUNT_ID, instance_id="inst_a")
    assert not ACCOUNT.decide(ledger, expire)
    due = ExpireHold(now=at(900), account_id=ACCOUNT_ID, instance_id="inst_a")
    assert kinds(ACCOUNT.decide(ledger, due)) == [HoldReleased]
    release = ReleaseHold(now=at(1), account_id=ACCOUNT_ID, instance_id="inst_a")
    assert kinds(ACCOUNT.decide(ledger, release)) == [HoldReleased]
    assert not ACCOUNT.decide(run([release], ledger), release)


# --- alerts and the way down --------------------------------------------------------------------------------------


def test_low_by_money_is_said_once_per_crossing():
    ledger = run([bought(11), rate(0, 100_000)])
    crossing = ACCOUNT.decide(ledger, tick(11 * HOUR))
    assert [event.reason for event in crossing if isinstance(event, BalanceLow)] == ["money"]
    below = run([tick(11 * HOUR)], ledger)
    assert not [e for e in ACCOUNT.decide(below, tick(12 * HOUR)) if isinstance(e, BalanceLow)]
    refilled = ACCOUNT.decide(below, bought(10, "pay_2", seconds=12 * HOUR))
    assert kinds(refilled) == [UsageCharged, CreditsAdded, AlertRearmed]


def test_low_by_runway_is_armed_again_only_well_above():
    """23 hours left: warned. Back at 25: not armed yet. At 31: armed."""
    ledger = run([bought(50), rate(0, 2_391_304)])
    assert not ledger.is_runway_armed
    assert not run([bought(5, "pay_2", seconds=1)], ledger).is_runway_armed
    assert run([bought(20, "pay_2", seconds=1)], ledger).is_runway_armed


def test_empty_grace_then_stop_each_with_its_reason():
    """Ten minutes of burn are left when grace begins; they are not used up when it ends."""
    ledger = run([welcome(1), rate(0, USD)])
    nearly = run([tick(2_950)], ledger)
    (charged, exhausted) = ACCOUNT.decide(nearly, tick(3_010))
    assert isinstance(charged, UsageCharged)
    assert isinstance(exhausted, BalanceExhausted)
    assert exhausted.reason == "insufficient_balance"
    assert exhausted.grace_until == at(3_310)
    in_grace = run([tick(3_010)], nearly)
    assert kinds(ACCOUNT.decide(in_grace, tick(3_300))) == [UsageCharged]
    (_, suspended) = ACCOUNT.decide(in_grace, tick(3_310))
    assert isinstance(suspended, BalanceSuspended)
    assert suspended.instance_ids == ("inst_a",)
    assert suspended.balance_usd_micros > 0
    stopped = run([tick(3_310), rate(3_311, 0)], in_grace)
    assert stopped.posted_usd_micros > 0
    back = ACCOUNT.decide(stopped, bought(10, seconds=3_400))
    assert kinds(back) == [CreditsAdded, AlertRearmed, BalanceRestored]


def test_credits_during_grace_end_it():
    ledger = run([welcome(1), rate(0, USD), tick(3_010)])
    assert ledger.stage == "grace"
    assert run([bought(20, seconds=3_020)], ledger).stage == "ok"


def test_less_running_during_grace_ends_it():
    ledger = run([welcome(1), rate(0, USD - 1), rate(0, 1, instance_id="inst_b"), tick(3_010)])
    assert ledger.stage == "grace"
    assert run([rate(3_020, 0)], ledger).stage == "ok"


def test_a_suspension_is_said_again_while_something_runs():
    ledger = run([welcome(1), rate(0, USD), tick(3_010), tick(3_310)])
    assert ledger.stage == "suspended"
    assert kinds(ACCOUNT.decide(ledger, tick(3_370))) == [UsageCharged, BalanceSuspended]


def test_of_a_suspended_account_only_who_starts_is_named_until_the_next_tick():
    """Hundreds of instances stop one after another: each stop must not name all the others again."""
    both = run([welcome(1), rate(0, USD - 1), rate(0, 1, instance_id="inst_b"), tick(3_010), tick(3_310)])
    assert both.stage == "suspended"
    assert BalanceSuspended not in kinds(ACCOUNT.decide(both, rate(3_311, 0, instance_id="inst_b")))
    (*_, named) = ACCOUNT.decide(both, rate(3_311, USD, instance_id="inst_c"))
    assert isinstance(named, BalanceSuspended)
    assert named.instance_ids == ("inst_c",)
    (*_, again) = ACCOUNT.decide(both, tick(3_370))
    assert isinstance(again, BalanceSuspended)
    assert again.instance_ids == ("inst_a", "inst_b")


def test_who_pays_afterwards_is_counted_and_warned_but_never_stopped():
    ledger = run([welcome(1), rate(0, USD)])
    later = ACCOUNT_PAID_AFTERWARDS.decide(ledger, tick(90_000))
    assert {BalanceExhausted, BalanceSuspended}.isdisjoint(kinds(later))
    assert UsageCharged in kinds(later)


def test_what_a_prepaid_balance_does_not_cover_is_earned_but_never_asked_for():
    ledger = run([welcome(1), rate(0, USD), tick(2 * HOUR)])
    assert (ledger.posted_usd_micros, ledger.totals["uncollected"], revenue(ledger)) == (0, -USD, 2 * USD)
    after = run([rate(2 * HOUR, 0), bought(10, seconds=2 * HOUR + 1)], ledger)
    assert (after.posted_usd_micros, after.totals["uncollected"]) == (10 * USD, -USD)


def test_what_was_not_collected_is_corrected_before_the_customers_money_until_money_comes():
    """It had stopped half an hour before: that was never paid for. After a purchase a doubt is the customer's."""
    ledger = run([welcome(1), rate(0, USD), tick(2 * HOUR)])
    stopped = rate(5_400, 0, now=2 * HOUR)
    at_once = run([stopped], ledger)
    assert (at_once.posted_usd_micros, at_once.totals["uncollected"]) == (0, -USD // 2)
    later = run([bought(10, seconds=2 * HOUR), stopped], ledger)
    assert (later.posted_usd_micros, later.totals["uncollected"]) == (10 * USD + USD // 2, -USD)


def test_what_ran_before_money_moved_is_charged_before():
    """An hour nobody ticked: paid from what there was, not from what came, and before an operator takes the rest."""
    ledger = run([welcome(1), rate(0, 2 * USD)])
    refilled = run([bought(10, seconds=HOUR)], ledger)
    assert (refilled.posted_usd_micros, refilled.totals["uncollected"]) == (10 * USD, -USD)
    taken = AdjustLedger(now=at(1_800), account_id=ACCOUNT_ID, adjustment_id="a", usd_micros=-USD, reason="x")
    owing = run([taken], ledger)
    assert (owing.totals["owed"], owing.totals.get("uncollected", 0)) == (-USD, 0)
    assert not ACCOUNT.decide(refilled, bought(10, seconds=2 * HOUR)), "a purchase that is known charges nothing"


def test_who_pays_afterwards_owes_and_debts_are_paid_first():
    ledger = Account()
    wishes = [welcome(1), rate(0, USD), tick(2 * HOUR), rate(2 * HOUR, 0), bought(10, seconds=2 * HOUR + 1)]
    owed: list[int] = []
    for wish in wishes:
        for event in ACCOUNT_PAID_AFTERWARDS.decide(ledger, wish):
            ledger = ACCOUNT_PAID_AFTERWARDS.evolve(ledger, event)
        owed.append(ledger.totals.get("owed", 0))
    assert owed == [0, 0, -USD, -USD, 0]
    assert (ledger.totals["credits:paid"], revenue(ledger)) == (9 * USD, 2 * USD)


def test_auto_top_up_asks_once_and_waits_after_a_refusal():
    alerts = AlertSettings(auto_top_up=AutoTopUp(threshold_usd_micros=5 * USD, amount_usd_micros=20 * USD))
    wish = SetAlerts(now=NOW, account_id=ACCOUNT_ID, alerts=alerts)
    ledger = run([welcome(6), wish, rate(0, USD)])
    events = ACCOUNT.decide(ledger, tick(HOUR + 60))
    (wanted,) = [event for event in events if isinstance(event, TopUpWanted)]
    assert wanted.usd_micros == 20 * USD
    asked = run([tick(HOUR + 60)], ledger)
    assert not [e for e in ACCOUNT.decide(asked, tick(HOUR + 120)) if isinstance(e, TopUpWanted)]
    declined = NoteTopUpDeclined(now=at(HOUR + 61), account_id=ACCOUNT_ID, payment_id=wanted.payment_id)
    assert kinds(ACCOUNT.decide(asked, declined)) == [TopUpFailed]
    refused = run([declined], asked)
    assert not [e for e in ACCOUNT.decide(refused, tick(HOUR + 180)) if isinstance(e, TopUpWanted)]
    assert [e for e in ACCOUNT.decide(refused, tick(2 * HOUR + 62)) if isinstance(e, TopUpWanted)]
    paid = run([bought(20, wanted.payment_id, seconds=HOUR + 62)], asked)
    assert paid.top_up_id == ""


def test_auto_top_up_asks_for_no_more_on_a_day_than_the_customer_allows():
    """Told once; the next day, or when the customer allows more, it goes on."""
    top_up = AutoTopUp(5 * USD, 20 * USD, 45 * USD)
    burning = run([
        welcome(1), rate(0, 100 * USD),
        SetAlerts(now=at(60), account_id=ACCOUNT_ID, alerts=AlertSettings(auto_top_up=top_up)),
    ])  # fmt: skip
    ledger, asked, failed = burning, list[TopUpWanted](), list[TopUpFailed]()
    for minute in range(2, 240):
        for wish in (
            tick(60 * minute),
            *(bought(20, ledger.top_up_id, 60 * minute) for _ in range(bool(ledger.top_up_id))),
        ):
            events = ACCOUNT.decide(ledger, wish)
            asked += [event for event in events if isinstance(event, TopUpWanted)]
            failed += [event for event in events if isinstance(event, TopUpFailed)]
            for event in events:
                ledger = ACCOUNT.evolve(ledger, event)
    assert (len(asked), [event.reason for event in failed]) == (1, ["daily_maximum"])
    more = AlertSettings(auto_top_up=AutoTopUp(5 * USD, 20 * USD, 65 * USD))
    allowed = ACCOUNT.decide(ledger, SetAlerts(now=at(240 * 60), account_id=ACCOUNT_ID, alerts=more))
    assert TopUpWanted in kinds(allowed)
    assert TopUpWanted in kinds(ACCOUNT.decide(ledger, tick(14 * HOUR)))


def test_what_takes_the_money_beside_a_tick_brings_the_next_tick_forward():
    """A bonus that expires, or an operator's correction: grace must not wait for a tick of a balance that lasted."""
    ledger = run([welcome(100), rate(0, USD), tick(60)])
    taken = AdjustLedger(now=at(61), account_id=ACCOUNT_ID, adjustment_id="a", usd_micros=-99_900_000, reason="x")
    (exhausted,) = [e for e in ACCOUNT.decide(ledger, taken) if isinstance(e, BalanceExhausted)]
    assert exhausted.next_tick_at is not None
    assert exhausted.next_tick_at <= min(at(61 + 60), exhausted.grace_until)
    all_taken = replace(taken, usd_micros=-99_983_000)
    (suspended,) = [e for e in ACCOUNT.decide(ledger, all_taken) if isinstance(e, BalanceSuspended)]
    assert suspended.next_tick_at is not None
    assert suspended.next_tick_at <= at(61 + 60)
