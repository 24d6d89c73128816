"""The files of an empty account: kept unpaid for a stated time, named a week before they go, and saved by credits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from msgspec.structs import replace

from libs.money import cost_micros
from libs.runtime.service import DEADLINES_TABLE
from proto.base import Event, Heard
from proto.billing.commands import SetAlerts, Tick
from proto.billing.events import (
    BalanceRestored,
    BalanceStorageExpired,
    BalanceStorageExpiring,
    BalanceSuspended,
    MeterChanged,
    TickPlanned,
    UsageCharged,
)
from proto.billing.words import AlertSettings, AutoTopUp
from services.billing.decider.account import ACCOUNT, account
from services.billing.decider.ladder import next_tick_at, quiet_until
from services.billing.decider.state import Account
from services.billing.projection import project
from tests.spec.billing.ledgers import ACCOUNT_ID, USD, at, bought, end, rate, revenue, run, tick, welcome

DAY = 86_400
FOR_EVER = account(prepaid=True, storage_kept=None)
# It sleeps from the beginning on, and has credits for ten days of its files.
ASLEEP = [welcome(1), rate(0, USD // 240, meter_id="inst_a.files", line="volume")]
EMPTY_S = 10 * DAY


def said(ledger: Account, seconds: float) -> Sequence[Event]:
    return [event for event in ACCOUNT.decide(ledger, tick(seconds)) if not isinstance(event, UsageCharged)]


def emptied() -> Account:
    """Suspended, by ticks as they come."""
    return run([*ASLEEP, *(tick(EMPTY_S - left_s) for left_s in range(1_200, -60, -60))])


def test_a_suspension_says_until_when_files_are_kept_and_nobody_pays_for_them() -> None:
    ledger = emptied()
    assert ledger.stage == "suspended"
    assert ledger.storage_kept_until is not None
    assert abs(ledger.storage_kept_until - at(EMPTY_S) - timedelta(days=30)) < timedelta(hours=1)
    later = run([tick(EMPTY_S + 20 * DAY)], ledger)
    assert (later.posted_usd_micros, later.storage_kept_until) == (0, ledger.storage_kept_until)
    assert not said(later, EMPTY_S + 21 * DAY)


def test_they_are_named_a_week_before_they_go_and_given_up_at_the_end_until_they_are_gone() -> None:
    ledger = emptied()
    (expiring,) = said(ledger, EMPTY_S + 23 * DAY + 60)
    assert isinstance(expiring, BalanceStorageExpiring)
    assert (expiring.instance_ids, expiring.reason) == (("inst_a",), "insufficient_balance")
    warned = run([tick(EMPTY_S + 23 * DAY + 60)], ledger)
    assert not said(warned, EMPTY_S + 29 * DAY), "told once"
    for seconds in (EMPTY_S + 31 * DAY, EMPTY_S + 32 * DAY):
        (expired,) = said(warned, seconds)
        assert expired == BalanceStorageExpired(
            account_id=ACCOUNT_ID, reason="insufficient_balance", instance_ids=("inst_a",)
        )
        warned = run([tick(seconds)], warned)
    assert not said(run([end(EMPTY_S + 32 * DAY + 1)], warned), EMPTY_S + 33 * DAY)


def ticks(ledger: Account, until_s: float) -> tuple[Account, list[Event]]:
    """Tick as the deadlines say, from the one that this account is at; what was said besides."""
    due = next_tick_at(ledger, ledger.charged_until or at(0), since=ledger.charged_until or at(0))
    told: list[Event] = []
    while due is not None and due <= at(until_s):
        events = ACCOUNT.decide(ledger, Tick(now=due, account_id=ACCOUNT_ID))
        due = None
        for event in events:
            ledger = ACCOUNT.evolve(ledger, event)
            due = event.next_tick_at if isinstance(event, UsageCharged | BalanceSuspended) else due
            told.append(event)
    return ledger, told


def test_an_empty_account_is_charged_once_a_day_and_named_and_given_up_in_time() -> None:
    ledger = run([tick(EMPTY_S + 600)], emptied())
    kept_until = ledger.storage_kept_until
    assert kept_until is not None
    ledger, told = ticks(ledger, EMPTY_S + 30 * DAY)
    charged = [event for event in told if isinstance(event, UsageCharged)]
    assert len([event for event in charged if event.is_day_end]) >= 29
    assert len(charged) <= 35, "one more for the notice and its repetition, one for the end"
    (expiring,) = [event for event in told if isinstance(event, BalanceStorageExpiring)]
    assert (expiring.kept_until, BalanceStorageExpired in map(type, told)) == (kept_until, True)
    assert charged[-1].next_tick_at == charged[-1].until + timedelta(minutes=10), "until whoever keeps them has heard"
    assert revenue(ledger, "volume") == cost_micros(round((charged[-1].until - at(0)).total_seconds()), USD // 240)


def test_what_ends_the_quiet_says_when_the_account_is_charged_next() -> None:
    empty = run([tick(EMPTY_S + 600)], emptied())
    until = quiet_until(empty, at(EMPTY_S + 600))
    assert until is not None
    assert until.hour == until.minute == 0
    came_s = EMPTY_S + 700
    events = ACCOUNT.decide(empty, bought(10, seconds=came_s))
    planned = TickPlanned(account_id=ACCOUNT_ID, next_tick_at=at(came_s + 600))
    assert events[-1] == planned
    (row,) = project(Heard(planned, "cmt_1.0", ACCOUNT_ID, at(came_s), "EVT_BILLING", 1))
    assert (row.table, row.key["name"]) == (DEADLINES_TABLE, "tick")
    assert row.columns is not None
    assert row.columns["due_at"] == planned.next_tick_at
    topping = SetAlerts(
        now=at(came_s),
        account_id=ACCOUNT_ID,
        alerts=AlertSettings(auto_top_up=AutoTopUp(threshold_usd_micros=USD, amount_usd_micros=USD)),
    )
    assert TickPlanned in map(type, ACCOUNT.decide(empty, topping))
    started = ACCOUNT.decide(empty, rate(came_s, USD))[0]
    assert isinstance(started, MeterChanged)
    assert started.next_tick_at == at(came_s), "a minute after the last one, which is past"
    filled = run([bought(10, seconds=came_s)], empty)
    assert TickPlanned not in map(type, ACCOUNT.decide(filled, bought(10, "p2", came_s)))


def test_nothing_goes_without_a_weeks_notice_however_late_that_is_given() -> None:
    """Nobody looked for two months: the notice comes now, and the end a week after it."""
    ledger, late_s = emptied(), EMPTY_S + 60 * DAY
    (expiring,) = said(ledger, late_s)
    assert isinstance(expiring, BalanceStorageExpiring)
    assert expiring.kept_until == at(late_s) + timedelta(days=7)
    warned = run([tick(late_s)], ledger)
    assert not said(warned, late_s + 6 * DAY)
    assert [type(event) for event in said(warned, late_s + 7 * DAY)] == [BalanceStorageExpired]


def test_credits_end_it_and_the_next_time_is_a_new_one() -> None:
    ledger = run([tick(EMPTY_S + 24 * DAY), bought(10, seconds=EMPTY_S + 25 * DAY)], emptied())
    assert (ledger.stage, ledger.storage_kept_until, ledger.is_storage_expiring) == ("ok", None, False)
    assert not [e for e in said(ledger, EMPTY_S + 40 * DAY) if isinstance(e, BalanceStorageExpired)]
    restored = ACCOUNT.decide(emptied(), bought(10, seconds=EMPTY_S + DAY))
    assert BalanceRestored in [type(event) for event in restored]


def test_what_runs_is_never_among_what_is_given_up() -> None:
    """It costs GPU time although the account is suspended: it is to be stopped, and has files that are in use."""
    both = [rate(EMPTY_S + 60, USD), rate(EMPTY_S + 60, 50, instance_id="inst_b", meter_id="vol_b", line="volume")]
    ledger = run([*both, tick(EMPTY_S + 24 * DAY)], emptied())
    named = [e for e in ACCOUNT.decide(ledger, tick(EMPTY_S + 40 * DAY)) if isinstance(e, BalanceStorageExpired)]
    assert [one.instance_ids for one in named] == [("inst_b",)]


def test_only_a_tick_gives_up_files() -> None:
    warned = run([tick(EMPTY_S + 24 * DAY)], emptied())
    other = rate(EMPTY_S + 40 * DAY, 50, instance_id="inst_b", meter_id="vol_b", line="volume")
    assert BalanceStorageExpired not in [type(event) for event in ACCOUNT.decide(warned, other)]


def test_an_installation_may_keep_files_for_ever() -> None:
    ledger = emptied()
    kept = replace(ledger, storage_kept_until=None)
    events = FOR_EVER.decide(kept, tick(EMPTY_S + 400 * DAY))
    assert [type(event) for event in events if not isinstance(event, UsageCharged)] == []


def test_who_was_suspended_before_there_was_such_a_time_is_told_at_the_next_tick() -> None:
    old = replace(emptied(), storage_kept_until=None)
    (told,) = said(old, EMPTY_S + 5 * DAY)
    assert isinstance(told, BalanceSuspended)
    assert (told.instance_ids, told.storage_kept_until) == ((), at(EMPTY_S + 35 * DAY))
