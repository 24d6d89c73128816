"""Random transfers of one account's ledger after another, beside a model of a few lines, with all accounts at zero.

`python -m tests.sim.transfers [--transfers 1000000] [--seed 1]` (`just transfers`); a small round is in
`tests/sim/test_ledger.py`. Purchases, bonuses, expiries, corrections by hand and late facts come in any order. After
every commit the accounts sum to zero and so do those of all customers together; what is left of the grants is what the
customer's accounts say; and the balance is what a sum of the facts' own amounts says.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from datetime import datetime
from random import Random

from proto.billing.commands import AddCredits, AdjustLedger, ExpireCredits, NoteEnd, NoteRate, OpenAccount, Tick
from proto.billing.events import (
    AccountEvent,
    CreditsAdded,
    CreditsExpired,
    CreditsGranted,
    LedgerAdjusted,
    MeterChanged,
    UsageCharged,
)
from proto.billing.ledger import Transaction
from proto.billing.words import LINES
from services.billing.decider.account import ACCOUNT, AccountCommand
from services.billing.decider.grants import not_collected
from services.billing.decider.state import Account, added_up, ledger_of
from tests.sim.ledger_oracle import at

METERS = 5
WISHES_EACH = 2_000  # then the next customer
PRICES = (0, 1, 7, 299_999, 400_000, 1_234_567)


class Story:
    """Random wishes of one customer; time goes on by minutes to weeks."""

    def __init__(self, chance: Random, number: int) -> None:
        self.chance = chance
        self.account_id = f"acct_{number}"
        self.now_s = 0.0
        self.number = 0

    def next(self, ledger: Account) -> AccountCommand:
        chance = self.chance
        self.number += 1
        self.now_s += chance.choice((1, 60, 3_600, 40_000)) * chance.random()
        now = at(self.now_s)
        match chance.randrange(10):
            case 0:
                usd_micros = chance.choice((10, 50, 100, 500)) * 1_000_000 + chance.randrange(1_000_000)
                return AddCredits(
                    now=now, account_id=self.account_id, credit_id=f"pay_{self.number}", usd_micros=usd_micros
                )
            case 1:
                usd_micros = chance.choice((-1, 1)) * chance.randrange(200_000_000)
                return AdjustLedger(
                    now=now,
                    account_id=self.account_id,
                    adjustment_id=f"adj_{self.number}",
                    usd_micros=usd_micros,
                    reason="by hand",
                )
            case 2:
                return self._expiry(ledger, now)
            case 3 | 4 | 5 | 6:
                return self._rate(now)
            case 7 if chance.random() < 0.1:
                return NoteEnd(now=now, account_id=self.account_id, instance_id=self._instance(), at=now)
            case _:
                return Tick(now=now, account_id=self.account_id)

    def _expiry(self, ledger: Account, now: datetime) -> AccountCommand:
        expiring = [grant for grant in ledger.grants if grant.expires_at is not None and not grant.expired]
        if not expiring:
            return OpenAccount(now=now, account_id=self.account_id, welcome_usd_micros=7_000_000)
        grant = self.chance.choice(expiring)
        assert grant.expires_at is not None
        return ExpireCredits(now=max(now, grant.expires_at), account_id=self.account_id, grant_id=grant.grant_id)

    def _rate(self, now: datetime) -> NoteRate:
        """Up to two hours late; an instance that has ended is followed by another."""
        instance_id = self._instance()
        return NoteRate(
            now=now,
            account_id=self.account_id,
            meter_id=instance_id,
            instance_id=instance_id,
            line=LINES[int(instance_id[-1]) % len(LINES)],
            at=at(max(0.0, self.now_s - self.chance.choice((0, 0, 10, 7_200)) * self.chance.random())),
            rate_usd_micros_per_hour=self.chance.choice(PRICES),
        )

    def _instance(self) -> str:
        return f"inst_{self.number // 500}_{self.chance.randrange(METERS)}"


def moved(event: AccountEvent) -> int:
    """What a fact does to the balance, by the fact's own amount."""
    match event:
        case CreditsAdded():
            return event.usd_micros + event.bonus_usd_micros
        case CreditsGranted():
            return event.usd_micros
        case CreditsExpired():
            return -event.usd_micros
        case LedgerAdjusted():
            return event.usd_micros
        case MeterChanged():
            return not_collected(event.burns) - event.usd_micros
        case UsageCharged():
            return not_collected(event.burns) - sum(line.usd_micros for line in event.lines)
        case _:
            return 0


def check(ledger: Account, balance: int) -> None:
    totals = ledger.totals
    assert ledger == added_up(ledger_of(ledger))
    assert sum(totals.values()) == 0, totals
    assert ledger.posted_usd_micros == balance, (ledger.posted_usd_micros, balance)
    left = sum(grant.left_usd_micros for grant in ledger.grants)
    assert left == totals.get("credits:paid", 0) + totals.get("credits:bonus", 0), (left, totals)
    assert all(grant.left_usd_micros >= 0 for grant in ledger.grants), ledger.grants
    assert totals.get("owed", 0) <= 0, totals


def simulate_transfers(*, seed: int, transfers: int) -> Counter[str]:
    """How many of each kind there were. Raises AssertionError when a ledger does not balance."""
    chance = Random(seed)
    kinds: Counter[str] = Counter()
    everybody = 0
    customers = 0
    while kinds.total() < transfers:
        customers += 1
        story, ledger, balance = Story(chance, customers), Account(), 0
        for _ in range(WISHES_EACH):
            before = sum(ledger.totals.values())
            for event in ACCOUNT.decide(ledger, story.next(ledger)):
                ledger = ACCOUNT.evolve(ledger, event)
                if isinstance(event, Transaction) and event.totals:
                    kinds[type(event).__name__] += 1
                    balance += moved(event)
            check(ledger, balance)
            everybody += sum(ledger.totals.values()) - before
            assert everybody == 0
    return kinds


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.sim.transfers", description=__doc__)
    options.add_argument("--transfers", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    started_s = time.process_time()
    kinds = simulate_transfers(seed=chosen.seed, transfers=chosen.transfers)
    print(f"{kinds.total()} transfers, all accounts at zero after each: {dict(kinds)}")
    print(f"{time.process_time() - started_s:.0f} s of CPU")


if __name__ == "__main__":
    main()
