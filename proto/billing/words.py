"""Closed word sets and shared shapes of the billing service.

Words (services/billing/README.md): a *meter* measures one thing of one instance (its GPU, its volume) as a rate that
changes at instants; a *line* says what kind of thing; a *grant* is credit from one source; a *hold* is money set aside
for an instance that is about to run; a *burn* is what a charge takes from one grant.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

Currency = Literal["USD"]
# What is charged for, each on a line of its own.
Line = Literal["gpu", "cpu_standby", "volume", "warm_pool"]
LINES: tuple[Line, ...] = ("gpu", "cpu_standby", "volume", "warm_pool")
# paid: the customer's money, refundable; bonus: given, never paid out.
GrantKind = Literal["paid", "bonus"]
PaymentMethod = Literal["manual", "card", "pix", "boleto", "wire", "auto"]
PaymentStatus = Literal["pending", "settled", "declined"]
# Types of entries in the customer's history (contract dumont 2).
EntryType = Literal[
    "credit_purchase",
    "credit_bonus",
    "welcome_credit",
    "credit_expired",
    "usage_gpu",
    "usage_cpu_standby",
    "usage_storage",
    "usage_warmpool_volume",
    "uncollected",
    "adjustment",
]
USAGE_TYPE: dict[Line, EntryType] = {
    "gpu": "usage_gpu",
    "cpu_standby": "usage_cpu_standby",
    "volume": "usage_storage",
    "warm_pool": "usage_warmpool_volume",
}
# ok: what runs is covered; grace: it is covered for minutes only; suspended: what runs is being stopped.
Stage = Literal["ok", "grace", "suspended"]
LowReason = Literal["money", "runway"]
# How our charge for a machine compares with what its provider charged us.
DriftKind = Literal["matched", "amount", "only_ours", "only_theirs"]

# The chart of accounts of one customer. Every transaction sums to zero over them. Signs as the customer sees them:
# credits are positive, and so is what the platform has earned; where money came from is negative.
LedgerAccount = Literal[
    "cash",  # what the customer paid in
    "promotions",  # what we gave
    "credits:paid",
    "credits:bonus",
    "owed",  # used beyond the credits by who pays afterwards, or taken by an operator: zero or negative
    "revenue:gpu",
    "revenue:cpu_standby",
    "revenue:volume",
    "revenue:warm_pool",
    "breakage",  # bonus that expired unused
    "adjustments",  # corrections by an operator
    "uncollected",  # used beyond the credits of a prepaid account: never asked for, zero or negative
]
REVENUE: dict[Line, LedgerAccount] = {
    "gpu": "revenue:gpu",
    "cpu_standby": "revenue:cpu_standby",
    "volume": "revenue:volume",
    "warm_pool": "revenue:warm_pool",
}
# In a burn, what the credits did not suffice for: a debt of who pays afterwards; what a prepaid account is not asked.
Beyond = Literal["owed", "uncollected"]
OWED: Beyond = "owed"
UNCOLLECTED: Beyond = "uncollected"


class UsageLine(Struct, frozen=True, array_like=True, gc=False):
    """What one meter adds to a charge. An array on the wire: there is one per running thing and tick."""

    meter_id: str
    seconds: int
    usd_micros: int


class Burn(Struct, frozen=True, array_like=True, gc=False):
    """What a charge takes from one grant (negative: gives back), or adds beyond the grants (`Beyond`)."""

    grant_id: str
    usd_micros: int


class Segment(Struct, frozen=True, omit_defaults=True, gc=False):
    """A stretch of time in which a meter ran at one rate on one machine, and what it cost in all."""

    since: datetime
    until: datetime
    rate_usd_micros_per_hour: int
    usd_micros: int
    machine_id: str = ""


class AutoTopUp(Struct, frozen=True, omit_defaults=True, gc=False):
    """Buy `amount` when the balance falls below `threshold`; an amount of zero switches it off.

    No more than `day_usd_micros_max` is asked for on one day (UTC); zero: three times the amount.
    """

    threshold_usd_micros: int = 0
    amount_usd_micros: int = 0
    day_usd_micros_max: int = 0


class AlertSettings(Struct, frozen=True, omit_defaults=True, gc=False):
    """When the customer is warned (contract dumont 2: 10 USD) and whether the account refills itself."""

    low_usd_micros: int = 10_000_000
    auto_top_up: AutoTopUp = AutoTopUp()
