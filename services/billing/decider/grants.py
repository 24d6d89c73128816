"""Grants: in which order credit is burnt, how a correction gives back, when it expires, what a top-up earns. Pure.

Used by the account's rules. A charge burns grants in the order of (priority, expiry, age); a correction gives back in
the opposite order, so the same total always leaves the same grants, however it came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from proto.billing.ledger import Grant, Ledger
from proto.billing.words import OWED, UNCOLLECTED, Beyond, Burn

BONUS_PRIORITY = 10  # given credit goes first: the customer keeps the money
PAID_PRIORITY = 50
BONUS_LIFETIME = timedelta(days=365)
GRANTS_MAX = 64  # used-up grants beyond this are forgotten, oldest first
# Contract dumont 2: the bonus of a package, from the highest that is reached; parts per hundred.
BONUS_STEPS: Sequence[tuple[int, int]] = ((500_000_000, 20), (100_000_000, 15), (50_000_000, 10))
_NEVER = datetime.max.replace(tzinfo=UTC)


def bonus_of(usd_micros: int) -> int:
    """What comes on top of a purchase."""
    return next((usd_micros * percent // 100 for floor, percent in BONUS_STEPS if usd_micros >= floor), 0)


def burn(ledger: Ledger, usd_micros: int, beyond: Beyond = OWED) -> tuple[Burn, ...]:
    """Where a charge comes from, or (negative) where a correction goes. Sums to `usd_micros` exactly.

    `beyond`: where it comes from when the credits do not suffice. What was not collected since money came last is
    corrected first, so that the order in which usage is heard does not matter.
    """
    return _take(ledger, usd_micros, beyond) if usd_micros >= 0 else _give_back(ledger, -usd_micros, beyond)


def _take(ledger: Ledger, wanted: int, beyond: Beyond) -> tuple[Burn, ...]:
    burns: list[Burn] = []
    for grant in sorted(ledger.grants, key=_order):
        if wanted == 0:
            break
        taken = min(grant.left_usd_micros, wanted)
        if taken:
            burns.append(Burn(grant.grant_id, taken))
            wanted -= taken
    if wanted:
        burns.append(Burn(beyond, wanted))
    return tuple(burns)


def _give_back(ledger: Ledger, wanted: int, beyond: Beyond) -> tuple[Burn, ...]:
    """Debts first, then grants from the last burnt to the first; what no grant remembers becomes one of its own."""
    burns: list[Burn] = []
    uncollected = ledger.uncollected_usd_micros if beyond == UNCOLLECTED else 0
    for name, unpaid in ((UNCOLLECTED, uncollected), (OWED, -ledger.totals.get("owed", 0))):
        given = min(unpaid, wanted)
        if given:
            burns.append(Burn(name, -given))
            wanted -= given
    for grant in sorted(ledger.grants, key=_order, reverse=True):
        if wanted == 0:
            break
        given = 0 if grant.expired else min(grant.used_usd_micros, wanted)
        if given > 0:
            burns.append(Burn(grant.grant_id, -given))
            wanted -= given
    if wanted:
        burns.append(Burn(RETURNED, -wanted))
    return tuple(burns)


# A grant that takes what is given back after its own grant was forgotten or has expired.
RETURNED = "returned"


def _order(grant: Grant) -> tuple[int, datetime, str]:
    return grant.priority, grant.expires_at or _NEVER, grant.grant_id


def burnt(grants: tuple[Grant, ...], burns: Sequence[Burn]) -> tuple[Grant, ...]:
    """The grants after a charge or a correction."""
    amounts: dict[str, int] = {}
    for one in burns:
        if one.grant_id not in (OWED, UNCOLLECTED):
            amounts[one.grant_id] = amounts.get(one.grant_id, 0) + one.usd_micros
    if not amounts:
        return grants
    changed = tuple(
        replace(
            grant,
            left_usd_micros=grant.left_usd_micros - amounts[grant.grant_id],
            used_usd_micros=max(0, grant.used_usd_micros + amounts[grant.grant_id]),
        )
        if grant.grant_id in amounts
        else grant
        for grant in grants
    )
    if RETURNED in amounts and not any(grant.grant_id == RETURNED for grant in grants):
        returned = Grant(RETURNED, "paid", -amounts[RETURNED], priority=PAID_PRIORITY)
        changed = (*changed, returned)
    return changed


def with_grant(grants: tuple[Grant, ...], grant: Grant) -> tuple[Grant, ...]:
    """One more; the oldest used-up ones are forgotten when there are too many."""
    spare = len(grants) + 1 - GRANTS_MAX
    kept: list[Grant] = []
    for old in grants:
        if spare > 0 and old.left_usd_micros == 0:
            spare -= 1
        else:
            kept.append(old)
    return (*kept, grant)


def kinds(ledger: Ledger, burns: Sequence[Burn]) -> tuple[int, int, int, int]:
    """A burn by what it takes from: (paid, bonus, owed, uncollected)."""
    bonus_ids = {grant.grant_id for grant in ledger.grants if grant.kind == "bonus"}
    bonus = sum(one.usd_micros for one in burns if one.grant_id in bonus_ids)
    owed = sum(one.usd_micros for one in burns if one.grant_id == OWED)
    uncollected = not_collected(burns)
    total = sum(one.usd_micros for one in burns)
    return total - bonus - owed - uncollected, bonus, owed, uncollected


def not_collected(burns: Sequence[Burn]) -> int:
    return sum(one.usd_micros for one in burns if one.grant_id == UNCOLLECTED)
