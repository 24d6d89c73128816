"""Usage by day as its rows tell it: with the corrections, they come to what was charged, to the micro-unit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from libs.money import cost_micros
from proto.base import Command, Heard
from proto.billing.commands import NoteEnd, NoteRate
from proto.billing.words import LINES
from services.billing.decider.account import ACCOUNT
from services.billing.decider.state import Account
from services.billing.projection import project
from tests.spec.billing.ledgers import ACCOUNT_ID, GPU_PRICE, at, bought, rate, revenue, tick
from tests.spec.billing.test_charging import FEW, HOUR, facts, seconds

MIDNIGHTS = (14 * HOUR, 38 * HOUR)  # after the specs' first instant
FIRST, SECOND = (at(midnight - 1).date().isoformat() for midnight in MIDNIGHTS)


@dataclass
class Told:
    """The ledger after some wishes, and what its rows say: usage by meter and day, corrections of earlier days."""

    ledger: Account = field(default_factory=Account)
    usage: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    corrections: int = 0

    def after(self, commands: Iterable[Command]) -> Told:
        for command in commands:
            for event in ACCOUNT.decide(self.ledger, command):
                self.ledger = ACCOUNT.evolve(self.ledger, event)
                for row in project(Heard(event, "com_1.0", ACCOUNT_ID, at(0), "EVT_BILLING", 1)):
                    columns = row.columns or {}
                    if row.table == "usage_days":
                        self.usage[row.key["meter_id"], row.key["day"]] = columns["usd_micros"]
                    elif row.table == "entries" and columns["type"] == "adjustment":
                        self.corrections -= columns["usd_micros"]
        return self


@FEW
@given(facts, st.randoms(use_true_random=False), st.lists(seconds, max_size=6))
def test_the_days_and_their_corrections_come_to_what_was_charged(
    heard: list[NoteRate | NoteEnd], chance: Random, ticks: list[int]
):
    """Facts in any order, around a midnight, with ticks anywhere in between; looked at when the next day is closed."""
    wishes: list[Command] = list(heard)
    chance.shuffle(wishes)
    for moment in sorted(ticks):
        wishes.insert(chance.randrange(len(wishes) + 1), tick(moment))
    told = Told().after([bought(1_000), *wishes, tick(20 * HOUR), tick(MIDNIGHTS[1])])
    charged = sum(revenue(told.ledger, line) for line in LINES)
    assert sum(told.usage.values()) + told.corrections == charged


def test_a_stop_heard_before_its_midnight_was_charged_is_told_on_its_day():
    told = Told().after([bought(100), rate(0, GPU_PRICE), tick(13 * HOUR), rate(15 * HOUR, 0), tick(15.5 * HOUR)])
    assert told.usage["inst_a", FIRST] == cost_micros(14 * HOUR, GPU_PRICE)
    assert told.usage["inst_a", SECOND] == cost_micros(HOUR, GPU_PRICE)


def test_a_price_changed_before_its_midnight_was_charged_is_told_by_the_next_tick_not_at_the_days_end():
    """Until then readers would add all of the day at the price of now."""
    told = Told().after([bought(100), rate(0, GPU_PRICE), tick(13 * HOUR), rate(15 * HOUR, 7), tick(16 * HOUR)])
    assert told.usage["inst_a", SECOND] == cost_micros(HOUR, GPU_PRICE) + 7
