"""The ledger against a closed form: accounts whose instances start, stop, fail over and change price for days.

`python -m tests.sim.ledger [--accounts 1000] [--days 7] [--seed 1]` (`just ledger`); a small round is in
`tests/sim/test_ledger.py`. Every account is the real decider; time, prices and the delivery of facts are drawn: facts
come late, out of order and twice, ticks come when the ledger asks for them. One account in five is poor, and its
instances are stopped when the ledger says so. Beside it an oracle keeps what really ran, and prices it with fractions.
"""

from __future__ import annotations

import argparse
import heapq
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random

from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Command
from proto.billing.commands import AddCredits, NoteRate, PlaceHold, Tick
from proto.billing.events import BalanceSuspended, MeterChanged, UsageCharged
from proto.billing.ledger import Ledger, Transaction
from services.billing.decider.account import ACCOUNT
from services.billing.decider.ladder import TICK_SOON_S
from services.billing.decider.metering import burn_rate

START = datetime(2026, 11, 20, tzinfo=UTC)
PRICES = (176_885, 299_999, 400_000, 1_234_567, 2_500_001)
INSTANCES_EACH = 10
STOP_S_MAX = 2.0  # between the wish to stop and the fact that it stops
LATE_S_MAX = 1_200.0


@dataclass
class Outcome:
    """What a run came to. `overdraft_ticks`: how far a balance fell below zero, in ticks of its burn."""

    accounts: int = 0
    commands: int = 0
    transactions: int = 0
    ticks: int = 0
    corrections: int = 0
    suspensions: int = 0
    refused: int = 0
    starts: int = 0
    billed_usd_micros: int = 0
    overdraft_ticks: float = 0.0
    overdraft_usd_micros: int = 0


@dataclass
class Running:
    """What really happened to one instance: stretches at one price."""

    name: str
    since: float | None = None
    price: int = 0
    stretches: list[tuple[float, float, int]] = field(default_factory=list[tuple[float, float, int]])

    def begin(self, at: float, price: int) -> None:
        self.end(at)
        self.since, self.price = at, price

    def end(self, at: float) -> None:
        if self.since is not None:
            self.stretches.append((self.since, at, self.price))
            self.since = None

    def cost(self) -> int:
        """Half up, on whole seconds, in exact fractions."""
        total = 0
        for since, until, price in merged(self.stretches):
            seconds = int((at(until) - at(since)) / timedelta(seconds=1))
            total += int(Fraction(seconds * price, 3_600) + Fraction(1, 2))
        return total


def merged(stretches: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Stretches that meet at one price are one: a repeated `ready` is no new beginning."""
    joined: list[tuple[float, float, int]] = []
    for since, until, price in stretches:
        if since == until:
            continue
        meets = bool(joined) and joined[-1][1] == since and joined[-1][2] == price
        joined.append((joined.pop()[0] if meets else since, until, price))
    return joined


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Customer:
    """One account, its instances, and everything on its way to the ledger."""

    def __init__(self, seed: int, number: int, outcome: Outcome) -> None:
        self.chance = Random(seed * 1_000_003 + number)
        self.account_id = f"acct_{number}"
        self.ledger = Ledger()
        self.outcome = outcome
        self.is_poor = number % 5 == 0
        self.instances = {f"inst_{number}_{n}": Running(f"inst_{number}_{n}") for n in range(INSTANCES_EACH)}
        self.queue: list[tuple[float, int, str, object]] = []
        self.number = 0
        self.tick_at: float | None = None

    def later(self, when: float, kind: str, what: object) -> None:
        self.number += 1
        heapq.heappush(self.queue, (when, self.number, kind, what))

    def live(self, until: float) -> None:
        """Run to the end, stop everything, and let what is late arrive."""
        self.wish(0.0, self.credits(0.0))
        for name in self.instances:
            self.later(self.chance.expovariate(1 / 3_600), "customer", name)
        if self.is_poor:
            self.later(self.chance.expovariate(1 / 86_400), "credits", None)
        is_open = True
        while self.queue or self.tick_at is not None:
            now = min(self.queue[0][0] if self.queue else self.tick_at or 0.0, self.tick_at or float("inf"))
            if is_open and now >= until:
                is_open = False
                self.queue = [one for one in self.queue if one[2] == "fact"]
                heapq.heapify(self.queue)
                for instance in self.instances.values():
                    if instance.since is not None:
                        self.turn(instance, until, 0)
                continue
            if self.tick_at is not None and now == self.tick_at:
                self.tick_at = None
                self.wish(now, Tick(now=at(now), account_id=self.account_id))
                continue
            _, _, kind, what = heapq.heappop(self.queue)
            self.step(now, kind, what)

    def step(self, now: float, kind: str, what: object) -> None:
        if kind == "fact":
            assert isinstance(what, NoteRate)
            self.wish(now, replace(what, now=at(now)))
        elif kind == "credits":
            self.wish(now, self.credits(now))
            self.later(now + self.chance.expovariate(1 / 86_400), "credits", None)
        elif kind == "stop":
            instance = self.instances[str(what)]
            if instance.since is not None:
                self.turn(instance, now, 0)
        else:
            self.customer(now, self.instances[str(what)])

    def credits(self, now: float) -> AddCredits:
        usd = self.chance.choice((10, 20, 30)) if self.is_poor else 50_000
        self.number += 1
        credit_id = f"pay_{self.number}"
        return AddCredits(now=at(now), account_id=self.account_id, credit_id=credit_id, usd_micros=usd * 1_000_000)

    def customer(self, now: float, instance: Running) -> None:
        """The next thing that happens to an instance: a start, a stop, a failover, a hibernation, another price."""
        chance = self.chance
        if instance.since is None:
            price = chance.choice(PRICES)
            hold = PlaceHold(now=at(now), account_id=self.account_id, instance_id=instance.name, usd_micros=price // 6)
            if self.wish(now, hold):
                self.outcome.starts += 1
                self.turn(instance, now + chance.uniform(5, 120), price)
            self.later(now + chance.expovariate(1 / 9_000) + 130, "customer", instance.name)
            return
        kind = chance.choices(("stop", "failover", "price"), (5, 3, 2))[0]
        if kind == "price":
            self.turn(instance, now, chance.choice(PRICES))
        else:
            self.turn(instance, now, 0)
        if kind == "failover":
            self.turn(instance, now + chance.uniform(0.1, 90), chance.choice(PRICES))
        self.later(now + chance.expovariate(1 / 9_000) + 130, "customer", instance.name)

    def turn(self, instance: Running, when: float, price: int) -> None:
        """It really runs at this price from then on (0: not at all); the ledger hears of it some time, maybe twice."""
        when = round(when, 3)
        if price:
            instance.begin(when, price)
        else:
            instance.end(when)
        fact = NoteRate(
            now=at(when),
            account_id=self.account_id,
            meter_id=instance.name,
            instance_id=instance.name,
            line="gpu",
            at=at(when),
            rate_usd_micros_per_hour=price,
        )
        chance = self.chance
        late_s = (
            chance.uniform(0, LATE_S_MAX) if chance.random() < 0.02 and not self.is_poor else chance.uniform(0, 0.5)
        )
        self.later(when + late_s, "fact", fact)
        if chance.random() < 0.1:
            self.later(when + late_s + chance.uniform(0, LATE_S_MAX), "fact", fact)

    def wish(self, now: float, command: Command) -> bool:
        """Decide and fold; what follows from it is put into the queue. False: refused."""
        self.outcome.commands += 1
        try:
            events = ACCOUNT.decide(self.ledger, command)  # type: ignore[arg-type]
        except Refused:
            self.outcome.refused += 1
            return False
        burn = burn_rate(self.ledger.meters.values())
        for event in events:
            self.ledger = ACCOUNT.evolve(self.ledger, event)
            assert sum(self.ledger.totals.values()) == 0
            self.outcome.transactions += isinstance(event, Transaction) and bool(event.totals)
            if isinstance(event, UsageCharged | MeterChanged):
                due = event.next_tick_at
                self.tick_at = None if due is None else max((due - START) / timedelta(seconds=1), now)
                self.outcome.ticks += isinstance(event, UsageCharged)
                self.outcome.corrections += isinstance(event, MeterChanged) and event.usd_micros < 0
            if isinstance(event, BalanceSuspended):
                self.outcome.suspensions += 1
                for name in event.instance_ids:
                    self.later(now + self.chance.uniform(0, STOP_S_MAX), "stop", name)
        self.look(max(burn, burn_rate(self.ledger.meters.values())))
        return True

    def look(self, burn: int) -> None:
        """How far below zero the balance is."""
        below = -self.ledger.posted_usd_micros
        if below > 0:
            one_tick = max(1, burn * TICK_SOON_S // 3_600)
            self.outcome.overdraft_ticks = max(self.outcome.overdraft_ticks, below / one_tick)
            self.outcome.overdraft_usd_micros = max(self.outcome.overdraft_usd_micros, below)


def simulate_ledgers(*, seed: int, accounts: int, days: float) -> Outcome:
    """Raises AssertionError when an account is not what the closed form says."""
    outcome = Outcome(accounts=accounts)
    for number in range(accounts):
        customer = Customer(seed, number, outcome)
        customer.live(days * 86_400)
        expected = sum(instance.cost() for instance in customer.instances.values())
        billed = customer.ledger.totals.get("revenue:gpu", 0)
        assert billed == expected, f"seed {seed}, {customer.account_id}: billed {billed}, closed form {expected}"
        outcome.billed_usd_micros += billed
    return outcome


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tests.sim.ledger", description=__doc__)
    options.add_argument("--accounts", type=int, default=1_000)
    options.add_argument("--days", type=float, default=7)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    started_s = time.perf_counter()
    outcome = simulate_ledgers(seed=chosen.seed, accounts=chosen.accounts, days=chosen.days)
    print(f"{outcome}\nequal to the closed form, to the micro-unit; {time.perf_counter() - started_s:.0f} s")


if __name__ == "__main__":
    main()
