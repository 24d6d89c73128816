"""Dumont: what money looks like on the wire. Micros become numbers with at most six decimals, here and nowhere else."""

from __future__ import annotations

from msgspec import Struct

from proto.billing.queries import BalanceView, Entry, Invoice, UsageDay
from services.gateway.dialects import milliseconds, milliseconds_or_none, usd

SECONDS_PER_HOUR = 3_600


class DumontAlerts(Struct, frozen=True, kw_only=True):
    low_balance_threshold: float
    low_balance_alert: bool
    auto_top_up_threshold: float
    auto_top_up_amount: float
    auto_top_up_daily_max: float


class DumontBalance(Struct, frozen=True, kw_only=True):
    """`balance` is posted less what has run since; `available` is what no hold has set aside. `status`: ok, grace,
    suspended; then files are kept unpaid until `storage_kept_until` (null: for ever). `estimated_hours_remaining` is
    null while nothing runs."""

    balance: float
    currency: str
    last_updated: str
    paid_balance: float
    bonus_balance: float
    held: float
    available: float
    hourly_cost: float
    estimated_hours_remaining: float | None
    runway_seconds: int | None
    active_instances: int
    status: str
    grace_until: str | None
    storage_kept_until: str | None
    alerts: DumontAlerts


class DumontEntry(Struct, frozen=True, kw_only=True):
    """One line of the history. A usage line of today grows until midnight UTC, then it is final."""

    id: str
    type: str
    amount: float
    balance_before: float
    balance_after: float
    description: str
    instance_id: str | None
    reference_id: str | None
    quantity_seconds: int | None
    unit_price_hour: float | None
    is_final: bool
    created_at: str


class DumontUsage(Struct, frozen=True, kw_only=True):
    day: str
    instance_id: str
    resource_id: str
    type: str
    label: str
    seconds: int
    amount: float
    is_final: bool


class DumontUsageList(Struct, frozen=True, kw_only=True):
    total_amount: float
    items: list[DumontUsage]


class DumontInvoice(Struct, frozen=True, kw_only=True):
    """One month. `opening_balance + credits + adjustments - usage = closing_balance`, exactly."""

    id: str
    month: str
    currency: str
    status: str
    opening_balance: float
    credits: float
    usage: float
    adjustments: float
    closing_balance: float
    lines: list[DumontUsage]
    entries: list[DumontEntry]


class DumontLedger(Struct, frozen=True, kw_only=True):
    """The trial balance: every account of the chart. `sum` is always zero."""

    currency: str
    accounts: dict[str, float]
    sum: float


class DumontCredit(Struct, frozen=True, kw_only=True):
    """`status`: settled, or pending while the payment is under way (read the history, or repeat the request)."""

    transaction_id: str
    status: str
    amount: float
    bonus: float
    balance: float
    reference: str


def balance(view: BalanceView) -> DumontBalance:
    runway_s = view.runway_s
    return DumontBalance(
        balance=usd(view.balance_usd_micros),
        currency=view.currency,
        last_updated=milliseconds(view.at),
        paid_balance=usd(view.paid_usd_micros),
        bonus_balance=usd(view.bonus_usd_micros),
        held=usd(view.held_usd_micros),
        available=usd(view.available_usd_micros),
        hourly_cost=usd(view.hourly_cost_usd_micros),
        estimated_hours_remaining=None if runway_s is None else round(runway_s / SECONDS_PER_HOUR, 3),
        runway_seconds=runway_s,
        active_instances=view.active_instances,
        status=view.stage,
        grace_until=milliseconds_or_none(view.grace_until),
        storage_kept_until=milliseconds_or_none(view.storage_kept_until),
        alerts=alerts(view),
    )


def alerts(view: BalanceView) -> DumontAlerts:
    return DumontAlerts(
        low_balance_threshold=usd(view.alerts.low_usd_micros),
        low_balance_alert=view.is_low,
        auto_top_up_threshold=usd(view.alerts.auto_top_up.threshold_usd_micros),
        auto_top_up_amount=usd(view.alerts.auto_top_up.amount_usd_micros),
        auto_top_up_daily_max=usd(view.alerts.auto_top_up.day_usd_micros_max),
    )


def entry(one: Entry) -> DumontEntry:
    price = one.unit_price_usd_micros_per_hour
    return DumontEntry(
        id=one.entry_id,
        type=one.type,
        amount=usd(one.usd_micros),
        balance_before=usd(one.balance_before_usd_micros),
        balance_after=usd(one.balance_after_usd_micros),
        description=one.description,
        instance_id=one.instance_id or None,
        reference_id=one.reference_id or None,
        quantity_seconds=one.quantity_seconds,
        unit_price_hour=None if price is None else usd(price),
        is_final=one.is_final,
        created_at=milliseconds(one.created_at),
    )


def usage(one: UsageDay) -> DumontUsage:
    return DumontUsage(
        day=one.day,
        instance_id=one.instance_id,
        resource_id=one.meter_id,
        type=one.line,
        label=one.label,
        seconds=one.seconds,
        amount=usd(one.usd_micros),
        is_final=one.is_final,
    )


def invoice(one: Invoice) -> DumontInvoice:
    return DumontInvoice(
        id=f"{one.account_id}-{one.month}",
        month=one.month,
        currency=one.currency,
        status=one.status,
        opening_balance=usd(one.opening_usd_micros),
        credits=usd(one.credits_usd_micros),
        usage=usd(one.usage_usd_micros),
        adjustments=usd(one.adjustments_usd_micros),
        closing_balance=usd(one.closing_usd_micros),
        lines=[usage(line) for line in one.lines],
        entries=[entry(line) for line in one.entries],
    )


def ledger(view: BalanceView) -> DumontLedger:
    accounts = {name: usd(micros) for name, micros in sorted(view.totals.items())}
    return DumontLedger(currency=view.currency, accounts=accounts, sum=usd(sum(view.totals.values())))
