"""Shared by the specs of the ledger: wishes with short names, a run of them, and what must hold after every fact."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from libs.refusal import Refused
from proto.base import Command
from proto.billing.commands import AddCredits, NoteEnd, NoteRate, OpenAccount, PlaceHold, Tick
from proto.billing.words import Line
from services.billing.decider.account import ACCOUNT
from services.billing.decider.ladder import bounds, standing
from services.billing.decider.state import Account, added_up, ledger_of

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
ACCOUNT_ID = "acct_7"
GPU_PRICE = 400_000
USD = 1_000_000


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def rate(
    seconds: float,
    micros: int,
    *,
    instance_id: str = "inst_a",
    meter_id: str = "",
    line: Line = "gpu",
    machine_id: str = "mach_1",
    now: float | None = None,
) -> NoteRate:
    return NoteRate(
        now=at(seconds if now is None else now),
        account_id=ACCOUNT_ID,
        meter_id=meter_id or instance_id,
        instance_id=instance_id,
        line=line,
        at=at(seconds),
        rate_usd_micros_per_hour=micros,
        machine_id=machine_id if micros else "",
    )


def end(seconds: float, instance_id: str = "inst_a") -> NoteEnd:
    return NoteEnd(now=at(seconds), account_id=ACCOUNT_ID, instance_id=instance_id, at=at(seconds))


def tick(seconds: float) -> Tick:
    return Tick(now=at(seconds), account_id=ACCOUNT_ID)


def bought(usd: int, credit_id: str = "pay_1", seconds: float = 0) -> AddCredits:
    return AddCredits(now=at(seconds), account_id=ACCOUNT_ID, credit_id=credit_id, usd_micros=usd * USD)


def welcome(usd: int, seconds: float = 0) -> OpenAccount:
    return OpenAccount(now=at(seconds), account_id=ACCOUNT_ID, welcome_usd_micros=usd * USD)


def hold(micros: int, instance_id: str = "inst_a", seconds: float = 0) -> PlaceHold:
    return PlaceHold(now=at(seconds), account_id=ACCOUNT_ID, instance_id=instance_id, usd_micros=micros)


def run(commands: Iterable[Command], ledger: Account | None = None) -> Account:
    """Carry out wishes, whatever they are refused, and check the ledger after every fact."""
    state = ledger or Account()
    for command in commands:
        try:
            events = ACCOUNT.decide(state, command)
        except Refused:
            continue
        for event in events:
            state = ACCOUNT.evolve(state, event)
            check(state)
    return state


def check(ledger: Account) -> None:
    """Double entry: totals sum to zero, and the grants are what the customer's accounts say. What was added up step by
    step is what a look at everything finds, and bounds what the account comes to."""
    assert ledger == added_up(ledger_of(ledger))
    for later_s in (0, 1, 59.5, 600, 100_000):
        now = (ledger.charged_until or NOW) + timedelta(seconds=later_s)
        for prepaid in (True, False):
            worst, best = bounds(ledger, now, prepaid=prepaid)
            exact = standing(ledger, now, prepaid=prepaid)
            assert worst.posted_usd_micros <= exact.posted_usd_micros <= best.posted_usd_micros
            assert worst.wanted_usd_micros == exact.wanted_usd_micros == best.wanted_usd_micros
    assert sum(ledger.totals.values()) == 0, ledger.totals
    left = sum(grant.left_usd_micros for grant in ledger.grants)
    credit = ledger.totals.get("credits:paid", 0) + ledger.totals.get("credits:bonus", 0)
    assert left == credit, (left, credit)
    assert all(grant.left_usd_micros >= 0 for grant in ledger.grants)
    assert ledger.totals.get("owed", 0) <= 0


def revenue(ledger: Account, line: Line = "gpu") -> int:
    return ledger.totals.get(f"revenue:{line}", 0)  # type: ignore[call-overload]
