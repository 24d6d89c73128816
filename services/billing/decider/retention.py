"""How long the storage of an empty account is kept, and what is said before it goes. Pure; called by `ladder`.

From the suspension on it is kept for a stated time without being paid for (`balance.suspended` and the balance say
until when). A week before the end it is named once more (`balance.storage_expiring`), and only then, at the end, given
up (`balance.storage_expired`): whoever keeps the files deletes them. Credits end all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from proto.billing.events import BalanceStorageExpired, BalanceStorageExpiring
from proto.billing.ledger import Ledger
from services.billing.decider.metering import rate_of

KEPT = timedelta(days=30)  # unless the installation says otherwise
NOTICE = timedelta(days=7)  # nothing is given up that was not named this long before, however late that was


def stored(ledger: Ledger) -> tuple[str, ...]:
    """Instances of which nothing but files is left."""
    live = [meter for meter in ledger.meters.values() if rate_of(meter)]
    running = {meter.instance_id for meter in live if meter.line != "volume"}
    return tuple(sorted({meter.instance_id for meter in live} - running))


def next_step_at(ledger: Ledger) -> datetime | None:
    """When the files are named, or, once they were, given up; None: no time is set."""
    until = ledger.storage_kept_until
    return until if until is None or ledger.is_storage_expiring else until - NOTICE


def steps(ledger: Ledger, now: datetime, reason: str) -> Sequence[BalanceStorageExpiring | BalanceStorageExpired]:
    """Of a suspended account, at a tick. What is given up is named again at the next tick that still finds it."""
    until, named = ledger.storage_kept_until, stored(ledger)
    if until is None or not named:
        return []
    if ledger.is_storage_expiring:
        if now < until:
            return []
        return [BalanceStorageExpired(account_id=ledger.account_id, reason=reason, instance_ids=named)]
    if now < until - NOTICE:
        return []
    return [
        BalanceStorageExpiring(
            account_id=ledger.account_id, reason=reason, instance_ids=named, kept_until=max(until, now + NOTICE)
        )
    ]
