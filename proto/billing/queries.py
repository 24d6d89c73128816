"""Questions the billing service answers on `qry.billing.<tag>`. Amounts are integer micros; the gateway divides."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from msgspec import Struct

from proto.base import Query
from proto.billing.words import (
    AlertSettings,
    Currency,
    EntryType,
    LedgerAccount,
    Line,
    PaymentMethod,
    PaymentStatus,
    Stage,
)
from proto.health import GetHealth, GetMetrics

LIST_LIMIT_MAX = 100
EXPORT_ROWS_MAX = 100_000  # about 15 MB of CSV; a year of a hundred instances is 36,500


class BalanceView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One account as of `at`, with what has run since the last tick. `is_open` false: nothing ever happened here."""

    account_id: str
    at: datetime
    is_open: bool = True
    currency: Currency = "USD"
    balance_usd_micros: int = 0
    paid_usd_micros: int = 0
    bonus_usd_micros: int = 0
    held_usd_micros: int = 0
    available_usd_micros: int = 0
    hourly_cost_usd_micros: int = 0
    runway_s: int | None = None
    active_instances: int = 0
    stage: Stage = "ok"
    grace_until: datetime | None = None
    storage_kept_until: datetime | None = None
    is_low: bool = False
    alerts: AlertSettings = AlertSettings()
    totals: dict[LedgerAccount, int] = {}


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the history. Usage is one line per meter and day; today's grows until midnight UTC (`is_final`)."""

    entry_id: str
    type: EntryType
    usd_micros: int
    balance_before_usd_micros: int
    balance_after_usd_micros: int
    created_at: datetime
    description: str = ""
    instance_id: str = ""
    reference_id: str = ""
    quantity_seconds: int | None = None
    unit_price_usd_micros_per_hour: int | None = None
    is_final: bool = True


class EntryList(Struct, frozen=True):
    items: list[Entry]
    total: int


class UsageDay(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one thing of one instance came to on one day (UTC)."""

    day: str
    instance_id: str
    meter_id: str
    line: Line
    seconds: int
    usd_micros: int
    label: str = ""
    is_final: bool = True


class UsageList(Struct, frozen=True):
    items: list[UsageDay]
    total: int
    usd_micros: int


class Invoice(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One month: usage by instance and line, corrections, credits, and how the balance moved. Opening and closing
    balance differ by exactly what is listed."""

    account_id: str
    month: str
    currency: Currency
    status: Literal["open", "final"]
    opening_usd_micros: int
    closing_usd_micros: int
    usage_usd_micros: int
    credits_usd_micros: int
    adjustments_usd_micros: int
    lines: list[UsageDay] = []
    entries: list[Entry] = []


class InvoiceList(Struct, frozen=True):
    months: list[Invoice]


class PaymentView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One top-up. `is_credited`: its amount is in the balance."""

    payment_id: str
    status: PaymentStatus
    usd_micros: int = 0
    bonus_usd_micros: int = 0
    method: PaymentMethod = "manual"
    reference: str = ""
    reason: str = ""
    is_credited: bool = False
    balance_usd_micros: int = 0


class BillingQuery(Query, frozen=True, kw_only=True):
    service: ClassVar[str] = "billing"
    account_id: str


class GetBalance(BillingQuery, tag="balance", frozen=True, kw_only=True):
    reply: ClassVar[object] = BalanceView


class ListEntries(BillingQuery, tag="entries", frozen=True, kw_only=True):
    """Newest first. `since` and `until` bound `created_at`, the latter exclusive."""

    reply: ClassVar[object] = EntryList
    since: datetime | None = None
    until: datetime | None = None
    types: tuple[EntryType, ...] = ()
    instance_id: str = ""
    limit: int = LIST_LIMIT_MAX
    offset: int = 0


class ListUsage(BillingQuery, tag="usage", frozen=True, kw_only=True):
    """By instance and day, newest day first. Days are inclusive."""

    reply: ClassVar[object] = UsageList
    since_day: str = ""
    until_day: str = ""
    instance_id: str = ""
    limit: int = LIST_LIMIT_MAX
    offset: int = 0


class GetInvoice(BillingQuery, tag="invoice", frozen=True, kw_only=True):
    """`month` is YYYY-MM, UTC."""

    reply: ClassVar[object] = Invoice
    month: str


class ListInvoices(BillingQuery, tag="invoices", frozen=True, kw_only=True):
    reply: ClassVar[object] = InvoiceList


class GetPayment(BillingQuery, tag="payment", frozen=True, kw_only=True):
    reply: ClassVar[object] = PaymentView
    payment_id: str


class GetBillingHealth(GetHealth, tag="health", frozen=True):
    service: ClassVar[str] = "billing"


class GetBillingMetrics(GetMetrics, tag="metrics", frozen=True):
    service: ClassVar[str] = "billing"


AnyQuery = (
    GetBalance | ListEntries | ListUsage | GetInvoice | ListInvoices | GetPayment | GetBillingHealth | GetBillingMetrics
)
