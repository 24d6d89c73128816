"""The ledger against a closed form: accounts whose instances live through everything that costs money, for days.

`python -m tests.sim.ledger [--accounts 1000] [--days 7] [--seed 1]` (`just ledger`); a small round is in
`tests/sim/test_ledger.py`. Every account is the real policy and the real decider; instances start, stop, fail over to
standbys and CPU standbys, hibernate, wake, change price and are deleted (`ledger_instance`). What is said of them comes
late, out of order and twice; ticks come when the ledger asks for them. One account in five is poor: what it runs is
hibernated or stopped when the ledger says so. Beside it an oracle keeps what really ran (`ledger_oracle`).
"""

from __future__ import annotations

import argparse
import heapq
import time
from dataclasses import dataclass
from datetime import timedelta
from random import Random

from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Command, Event, Heard
from proto.billing.commands import AddCredits, NoteRate, PlaceHold, Tick
from proto.billing.events import BalanceExhausted, BalanceSuspended, MeterChanged, TickPlanned, UsageCharged
from proto.billing.ledger import Transaction
from proto.billing.words import LINES, REVENUE
from services.billing.decider.account import ACCOUNT
from services.billing.decider.ladder import TICK_SOON_S
from services.billing.decider.metering import rate_of
from services.billing.decider.state import Account
from services.billing.policy import react
from tests.sim.ledger_instance import PRICES, PROTECTIONS, STORAGE_PRICE, VOLUME_PRICE, Instance
from tests.sim.ledger_oracle import START, at, closed_form

INSTANCES_EACH = 10
STOP_S_MAX = 2.0  # between the wish to stop and the fact that it stops
COPY_S_MIN, COPY_S_MAX = 20.0, 400.0  # of a hibernation
LATE_S_MAX = 1_200.0
DAY_S = 86_400
# What befalls something that runs, and how often.
HAPPENINGS = {"stop": 5, "fail_over": 3, "reprice": 2, "hibernate": 2, "delete": 1}


@dataclass
class Outcome:
    """What a run came to. No balance is ever below zero. `uncollected_ticks`: the most that machines ran beyond a
    balance, in ticks of their burn; `uncollected_usd_micros`: all that was used and never asked for, storage included.
    """

    accounts: int = 0
    instances: int = 0
    commands: int = 0
    transactions: int = 0
    ticks: int = 0
    corrections: int = 0
    suspensions: int = 0
    refused: int = 0
    starts: int = 0
    stops: int = 0
    failovers: int = 0
    hibernations: int = 0
    price_changes: int = 0
    deletions: int = 0
    billed_usd_micros: int = 0
    uncollected_ticks: float = 0.0
    uncollected_usd_micros: int = 0


class Customer:
    """One account, its instances, and everything on its way to the ledger."""

    def __init__(self, seed: int, number: int, outcome: Outcome) -> None:
        self.chance = Random(seed * 1_000_003 + number)
        self.account_id = f"acct_{number}"
        self.ledger = Account()
        self.outcome = outcome
        self.is_poor = number % 5 == 0
        self.can_hibernate = number % 10 == 0
        self.instances: dict[str, Instance] = {}
        self.queue: list[tuple[float, int, str, object]] = []
        self.number = 0
        self.tick_at: float | None = None
        # What storage had earned, and the burn of machines, when all was collected last.
        self.when_empty = (0, 0)

    def later(self, when: float, kind: str, what: object) -> None:
        self.number += 1
        heapq.heappush(self.queue, (when, self.number, kind, what))

    def rent(self, when: float) -> None:
        """One more instance, for as long as it is not deleted."""
        self.outcome.instances += 1
        number = len(self.instances)
        name = f"{self.account_id}_{number}"
        self.instances[name] = Instance(name, self.account_id, PROTECTIONS[number % 3], self.chance, self.say)
        self.later(when + self.chance.expovariate(1 / 3_600), "customer", name)

    def live(self, until: float) -> None:
        """Run to the end, delete everything, and let what is late arrive."""
        self.wish(0.0, self.credits(0.0))
        for _ in range(INSTANCES_EACH):
            self.rent(0.0)
        if self.is_poor:
            self.later(self.chance.expovariate(1 / DAY_S), "credits", None)
        is_open = True
        while self.queue or self.tick_at is not None:
            now = min(self.queue[0][0] if self.queue else self.tick_at or 0.0, self.tick_at or float("inf"))
            if is_open and now >= until:
                is_open = False
                self.queue = [one for one in self.queue if one[2] == "fact"]
                heapq.heapify(self.queue)
                for instance in self.instances.values():
                    if not instance.is_deleted:
                        instance.delete(until)
                continue
            if self.tick_at is not None and now == self.tick_at:
                self.tick_at = None
                self.wish(now, Tick(now=at(now), account_id=self.account_id))
                continue
            _, _, kind, what = heapq.heappop(self.queue)
            self.step(now, kind, what)

    def step(self, now: float, kind: str, what: object) -> None:
        match kind:
            case "fact":
                assert isinstance(what, Heard)
                for command in react(what):
                    self.wish(now, priced(command))
            case "credits":
                self.wish(now, self.credits(now))
                self.later(now + self.chance.expovariate(1 / DAY_S), "credits", None)
            case "stop":
                self.stop(now, self.instances[str(what)])
            case "copied":
                instance = self.instances[str(what)]
                if instance.is_up(now):
                    self.outcome.hibernations += 1
                    instance.hibernate(now)
            case _:
                self.customer(now, self.instances[str(what)])

    def credits(self, now: float) -> AddCredits:
        usd = self.chance.choice((10, 20, 30)) if self.is_poor else 50_000
        self.number += 1
        credit_id = f"pay_{self.number}"
        return AddCredits(now=at(now), account_id=self.account_id, credit_id=credit_id, usd_micros=usd * 1_000_000)

    def customer(self, now: float, instance: Instance) -> None:
        """The next thing that happens to an instance."""
        now = round(now, 3)
        if instance.is_up(now):
            self.befall(now, instance)
        elif instance.state in ("off", "asleep"):
            price = self.chance.choice(PRICES)
            hold = PlaceHold(now=at(now), account_id=self.account_id, instance_id=instance.name, usd_micros=price // 6)
            if self.wish(now, hold):
                self.outcome.starts += 1
                instance.start(now, price)
        if not instance.is_deleted:
            self.later(now + self.chance.expovariate(1 / 9_000) + 130, "customer", instance.name)

    def befall(self, now: float, instance: Instance) -> None:
        match self.chance.choices(tuple(HAPPENINGS), tuple(HAPPENINGS.values()))[0]:
            case "stop":
                self.stop(now, instance)
            case "fail_over":
                self.outcome.failovers += 1
                instance.fail_over(now, self.chance.choice(PRICES))
            case "reprice":
                self.outcome.price_changes += 1
                instance.reprice(now, self.chance.choice(PRICES))
            case "hibernate":
                self.outcome.hibernations += 1
                instance.hibernate(now)
            case _:
                self.outcome.deletions += 1
                instance.delete(now)
                self.rent(now)

    def stop(self, now: float, instance: Instance) -> None:
        if instance.is_up(now):
            self.outcome.stops += 1
            instance.stop(round(now, 3))

    def say(self, when: float, event: Event) -> None:
        """The ledger hears of it some time, maybe twice."""
        fact = Heard(event, f"cmt_{self.number}.0", self.account_id, at(when), "PUB", 1)
        chance = self.chance
        is_late = chance.random() < 0.02 and not self.is_poor
        late_s = chance.uniform(0, LATE_S_MAX if is_late else 0.5)
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
        for event in events:
            self.ledger = ACCOUNT.evolve(self.ledger, event)
            assert sum(self.ledger.totals.values()) == 0
            self.outcome.transactions += isinstance(event, Transaction) and bool(event.totals)
            if isinstance(event, UsageCharged | MeterChanged):
                due = event.next_tick_at
                self.tick_at = None if due is None else max((due - START) / timedelta(seconds=1), now)
                self.outcome.ticks += isinstance(event, UsageCharged)
                self.outcome.corrections += isinstance(event, MeterChanged) and event.usd_micros < 0
            if isinstance(event, BalanceExhausted | BalanceSuspended | TickPlanned) and event.next_tick_at is not None:
                self.tick_at = max((event.next_tick_at - START) / timedelta(seconds=1), now)
            if isinstance(event, BalanceSuspended):
                self.suspend(now, event)
        self.look()
        return True

    def suspend(self, now: float, event: BalanceSuspended) -> None:
        """As the instance service does: hibernate while there is money for it, else stop."""
        self.outcome.suspensions += 1
        for name in event.instance_ids:
            if self.can_hibernate and event.balance_usd_micros > 0:
                self.later(round(now + self.chance.uniform(COPY_S_MIN, COPY_S_MAX), 3), "copied", name)
            else:
                self.later(now + self.chance.uniform(0, STOP_S_MAX), "stop", name)

    def look(self) -> None:
        """No balance is below zero. How far machines have run beyond it, less what storage went on to cost."""
        stored = self.ledger.totals.get("revenue:volume", 0)
        assert self.ledger.posted_usd_micros >= 0
        beyond = self.ledger.uncollected_usd_micros
        if not self.is_poor:
            assert not beyond
            return
        burn = machines_burn(self.ledger)
        if not beyond:
            self.when_empty = (stored, burn)
            return
        stored_then, burn_then = self.when_empty
        self.when_empty = (stored_then, max(burn_then, burn))
        machines = beyond - min(beyond, stored - stored_then)
        one_tick = max(1, max(burn_then, burn) * TICK_SOON_S // 3_600)
        self.outcome.uncollected_ticks = max(self.outcome.uncollected_ticks, machines / one_tick)


def machines_burn(ledger: Account) -> int:
    return sum(rate_of(meter) for meter in ledger.meters.values() if meter.line != "volume")


def priced(command: Command) -> Command:
    """As the service's intake does."""
    if not isinstance(command, NoteRate) or not (command.volume_gb or command.stored_gb):
        return command
    rate = command.volume_gb * VOLUME_PRICE + command.stored_gb * STORAGE_PRICE
    return replace(command, rate_usd_micros_per_hour=rate)


def simulate_ledgers(*, seed: int, accounts: int, days: float) -> Outcome:
    """Raises AssertionError when an account is not what the closed form says, on any line."""
    outcome = Outcome(accounts=accounts)
    for number in range(accounts):
        customer = Customer(seed, number, outcome)
        customer.live(days * DAY_S)
        expected = closed_form([one for each in customer.instances.values() for one in each.meters.values()])
        billed = {line: customer.ledger.totals.get(REVENUE[line], 0) for line in LINES}
        assert billed == expected, f"seed {seed}, {customer.account_id}: billed {billed}, closed form {expected}"
        outcome.billed_usd_micros += sum(billed.values())
        outcome.uncollected_usd_micros -= customer.ledger.totals.get("uncollected", 0)
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
