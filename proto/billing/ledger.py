"""What one customer's account comes to: the state that the ledger's facts fold to, and the fact that carries it whole.

Part of the language because `ledger.brought_forward` writes it down, so that an account of a year is read from its last
such fact (docs/adr/0015). New fields need a default, as in any event.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from proto.base import Event
from proto.billing.words import AlertSettings, GrantKind, LedgerAccount, Line, Stage


class Grant(Struct, frozen=True, omit_defaults=True, gc=False):
    """Credit from one source. Burnt in the order of (priority, expiry, age); one that is used up is kept for a while,
    because a correction gives back to where the money came from."""

    grant_id: str
    kind: GrantKind
    left_usd_micros: int
    used_usd_micros: int = 0
    priority: int = 50
    expires_at: datetime | None = None
    expired: bool = False


class Hold(Struct, frozen=True, omit_defaults=True, gc=False):
    """Money set aside for an instance that does not run yet; it lapses by itself, so that it cannot lock money."""

    usd_micros: int
    expires_at: datetime


class Boundary(Struct, frozen=True, array_like=True, gc=False):
    """From `at` on, the meter runs at this rate on this machine; rate 0: not at all."""

    at: datetime
    rate_usd_micros_per_hour: int
    machine_id: str = ""


class Meter(Struct, frozen=True, omit_defaults=True, gc=False):
    """A step function of time: what it costs depends on the set of its boundaries, not on the order they were heard in.

    `settled_usd_micros`: cost of the boundaries that were too old to matter and were folded away. `paid_until`: charged
    further than the account's own `charged_until`. `ended_at`: the instance was deleted then.
    """

    meter_id: str
    instance_id: str
    line: Line
    label: str = ""
    boundaries: tuple[Boundary, ...] = ()
    settled_usd_micros: int = 0
    paid_until: datetime | None = None
    ended_at: datetime | None = None


class Ledger(Struct, frozen=True, omit_defaults=True, gc=False):
    """One customer's account. `totals` always sums to zero.

    `charged_until`: every meter has been charged up to here (or up to its own `paid_until`). `newest_fact_at`: the
    youngest instant that a fact about an instance carried. `uncollected_usd_micros`: used since the credits ended and
    since money came last; a correction is taken from it first. `forgotten_until`: what is older is a repetition,
    because meters that had ended then were forgotten. `weight`: facts since the last one that told it whole.
    """

    account_id: str = ""
    totals: dict[LedgerAccount, int] = {}
    grants: tuple[Grant, ...] = ()
    credit_ids: tuple[str, ...] = ()
    holds: dict[str, Hold] = {}
    meters: dict[str, Meter] = {}
    ended: dict[str, datetime] = {}
    charged_until: datetime | None = None
    newest_fact_at: datetime | None = None
    forgotten_until: datetime | None = None
    alerts: AlertSettings = AlertSettings()
    is_money_armed: bool = False
    is_runway_armed: bool = True
    stage: Stage = "ok"
    grace_until: datetime | None = None
    top_up_id: str = ""
    top_ups: int = 0
    top_up_after: datetime | None = None
    top_up_day: str = ""
    top_up_day_usd_micros: int = 0  # asked for on that day
    is_welcomed: bool = False
    uncollected_usd_micros: int = 0
    storage_kept_until: datetime | None = None
    is_storage_expiring: bool = False  # its owner was told
    weight: int = 0

    @property
    def posted_usd_micros(self) -> int:
        """The balance: credits less what is owed."""
        totals = self.totals
        return totals.get("credits:paid", 0) + totals.get("credits:bonus", 0) + totals.get("owed", 0)


class Transaction(Event, kw_only=True, frozen=True):
    """A fact that moves money. `totals` are the account's after it: whoever folds it checks them."""

    totals: dict[LedgerAccount, int] = field(default_factory=dict[LedgerAccount, int])
