"""Double entry: over which accounts each fact moves money. Every transaction sums to zero. Pure.

Used by `evolve`, which refuses to fold a transaction that does not balance, and by tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from proto.billing.events import (
    AccountEvent,
    CreditsAdded,
    CreditsExpired,
    CreditsGranted,
    LedgerAdjusted,
    MeterChanged,
    UsageCharged,
)
from proto.billing.ledger import Ledger, Transaction
from proto.billing.words import REVENUE, Burn, LedgerAccount
from services.billing.decider.grants import kinds

Postings = Mapping[LedgerAccount, int]


class Unbalanced(Exception):
    """A transaction that does not sum to zero: a bug, and never folded."""


def postings(ledger: Ledger, event: AccountEvent) -> Postings:
    """The transaction of one fact; empty when it moves no money. Raises Unbalanced."""
    found = _postings(ledger, event)
    if sum(found.values()):
        raise Unbalanced(f"{type(event).__name__} of {ledger.account_id}: {dict(found)}")
    return found


def _postings(ledger: Ledger, event: AccountEvent) -> Postings:
    match event:
        case CreditsAdded():
            return {
                "cash": -event.usd_micros,
                "promotions": -event.bonus_usd_micros,
                "owed": event.repaid_usd_micros,
                "credits:paid": event.usd_micros - event.repaid_usd_micros,
                "credits:bonus": event.bonus_usd_micros,
            }
        case CreditsGranted():
            left = event.usd_micros - event.repaid_usd_micros
            is_paid = event.kind == "paid"
            return {
                "promotions": -event.usd_micros,
                "owed": event.repaid_usd_micros,
                "credits:paid": left if is_paid else 0,
                "credits:bonus": 0 if is_paid else left,
            }
        case CreditsExpired():
            return {"credits:bonus": -event.usd_micros, "breakage": event.usd_micros}
        case LedgerAdjusted():
            return {**_burnt(ledger, event.burns), "adjustments": -event.usd_micros}
        case MeterChanged():
            return {**_burnt(ledger, event.burns), REVENUE[event.line]: event.usd_micros}
        case UsageCharged():
            earned: dict[LedgerAccount, int] = {REVENUE[line]: micros for line, micros in event.revenue.items()}
            return {**_burnt(ledger, event.burns), **earned}
        case _:
            return {}


def _burnt(ledger: Ledger, burns: Sequence[Burn]) -> dict[LedgerAccount, int]:
    paid, bonus, owed, uncollected = kinds(ledger, burns)
    taken: dict[LedgerAccount, int] = {"credits:paid": -paid, "credits:bonus": -bonus, "owed": -owed}
    return {**taken, "uncollected": -uncollected} if uncollected else taken


def applied(ledger: Ledger, event: AccountEvent) -> dict[LedgerAccount, int]:
    """The totals after one fact. Raises Unbalanced, also when the fact itself says otherwise."""
    moved = postings(ledger, event)
    if not moved:
        return ledger.totals
    totals = dict(ledger.totals)
    for account, usd_micros in moved.items():
        totals[account] = totals.get(account, 0) + usd_micros
    if isinstance(event, Transaction) and event.totals and event.totals != totals:
        raise Unbalanced(f"{type(event).__name__} of {ledger.account_id}: {totals} are not {event.totals}")
    return totals


def stamped(ledger: Ledger, event: AccountEvent) -> AccountEvent:
    """With the totals after it, if it moves money: rows and readers need not add up."""
    if not isinstance(event, Transaction):
        return event
    totals = applied(ledger, event)
    return replace(event, totals=totals) if totals is not ledger.totals else event
