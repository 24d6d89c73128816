"""Dumont: /balance and /billing (seed 000, Billing; contract dumont 2): balance, history, credits, usage, invoices."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from libs.ids import derive_id
from libs.refusal import Refused
from proto.billing.commands import OpenAccount, RequestPayment, SetAlerts
from proto.billing.queries import (
    EXPORT_ROWS_MAX,
    LIST_LIMIT_MAX,
    BalanceView,
    EntryList,
    GetBalance,
    GetInvoice,
    GetPayment,
    InvoiceList,
    ListEntries,
    ListInvoices,
    ListUsage,
    PaymentView,
    UsageList,
)
from proto.billing.words import AlertSettings, AutoTopUp, EntryType
from services.gateway.call import Answer, Call
from services.gateway.dialects import MICROS, usd
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok, page
from services.gateway.dialects.dumont.billing_object import (
    DumontAlerts,
    DumontBalance,
    DumontCredit,
    DumontEntry,
    DumontInvoice,
    DumontLedger,
    DumontUsage,
    DumontUsageList,
    alerts,
    balance,
    entry,
    invoice,
    ledger,
    usage,
)
from services.gateway.dialects.dumont.billing_pages import CSV_TYPE, HTML_TYPE, csv_of, invoice_page
from services.gateway.routing import Route
from services.gateway.validation import refuse

CREDITS_USD_MIN = 10  # contract dumont 2
CREDITS_USD_MAX = 100_000
# A payment that settles at once is in the balance within milliseconds; the others are answered with `pending`.
CREDIT_WAIT_S = 2.0
CREDIT_POLL_S = 0.02

Day = Annotated[str, Meta(pattern=r"^(20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01]))?$")]
When = Annotated[str, Meta(max_length=40, description="2026-11-22 or 2026-11-22T10:00:00Z")]
Id = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9_-]*$")]
Limit = Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)]
Offset = Annotated[int, Meta(ge=0, le=1_000_000)]


class HistoryQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"since": "from"}):
    """`from` and `to` are days or instants (RFC 3339); a day given as `to` is included."""

    since: When = ""
    to: When = ""
    type: EntryType | None = None
    instance_id: Id = ""
    limit: Limit = LIST_LIMIT_DEFAULT
    offset: Offset = 0


class ExportQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"since": "from"}):
    """`from` and `to` as in the history."""

    since: When = ""
    to: When = ""
    type: EntryType | None = None
    instance_id: Id = ""


class UsageQuery(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"since": "from"}):
    """Days in UTC, both included."""

    since: Day = ""
    to: Day = ""
    instance_id: Id = ""
    limit: Limit = LIST_LIMIT_DEFAULT
    offset: Offset = 0


class CreditsBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`reference` makes it idempotent: the same one again changes nothing, with another amount it is refused."""

    amount: Annotated[float, Meta(ge=CREDITS_USD_MIN, le=CREDITS_USD_MAX)]
    method: Literal["manual", "card", "pix", "boleto", "wire"] = "manual"
    reference: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")] | None = None


class AlertsBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is left out stays as it is. An auto top-up amount of 0 switches it off; a daily maximum of 0 is three times
    the amount."""

    low_balance_threshold: Annotated[float, Meta(ge=0, le=CREDITS_USD_MAX)] | None = None
    auto_top_up_threshold: Annotated[float, Meta(ge=0, le=CREDITS_USD_MAX)] | None = None
    auto_top_up_amount: Annotated[float, Meta(ge=0, le=CREDITS_USD_MAX)] | None = None
    auto_top_up_daily_max: Annotated[float, Meta(ge=0, le=CREDITS_USD_MAX)] | None = None


async def get_balance(call: Call) -> Answer:
    return ok(balance(await _account(call)))


async def get_ledger(call: Call) -> Answer:
    """The trial balance of the account, for whoever checks the books."""
    return ok(ledger(await _account(call)))


async def _account(call: Call) -> BalanceView:
    """An account is opened when somebody first looks at it, so that its welcome credit is there before it is spent."""
    view: BalanceView = await call.ask(GetBalance(account_id=call.account_id))
    if view.is_open:
        return view
    await call.command(OpenAccount(now=call.now, account_id=call.account_id))
    return await call.ask(GetBalance(account_id=call.account_id))


async def list_history(call: Call) -> Answer:
    query: HistoryQuery = call.query
    found: EntryList = await call.ask(_entries(call, query, query.limit, query.offset))
    items = [entry(one) for one in found.items]
    return page(items, total=found.total, limit=query.limit, offset=query.offset)


async def export_history(call: Call) -> Answer:
    query: ExportQuery = call.query
    found: EntryList = await call.ask(_entries(call, query, EXPORT_ROWS_MAX, 0))
    body = csv_of(DumontEntry, [entry(one) for one in found.items])
    return Answer(200, body, _csv_named("history.csv"))


def _entries(call: Call, query: HistoryQuery | ExportQuery, limit: int, offset: int) -> ListEntries:
    return ListEntries(
        account_id=call.account_id,
        since=_instant("from", query.since),
        until=_instant("to", query.to),
        types=(query.type,) if query.type else (),
        instance_id=query.instance_id,
        limit=limit,
        offset=offset,
    )


def _instant(name: str, given: str) -> datetime | None:
    """An instant, or a day: its beginning as a lower bound, its end as an upper one."""
    if not given:
        return None
    try:
        found = datetime.fromisoformat(given)
    except ValueError:
        refuse(name, f"{name} must be a day (2026-11-22) or an instant (2026-11-22T10:00:00Z)", given)
    is_day = len(given) <= len("2026-11-22")
    found = found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return found + timedelta(days=1) if is_day and name == "to" else found


def _csv_named(name: str) -> dict[str, str]:
    return {"Content-Type": CSV_TYPE, "Content-Disposition": f'attachment; filename="{name}"'}


async def list_usage(call: Call) -> Answer:
    query: UsageQuery = call.query
    found: UsageList = await call.ask(_usage(call, query, query.limit, query.offset))
    items = [usage(one) for one in found.items]
    return ok(DumontUsageList(total_amount=usd(found.usd_micros), items=items))


async def export_usage(call: Call) -> Answer:
    found: UsageList = await call.ask(_usage(call, call.query, EXPORT_ROWS_MAX, 0))
    body = csv_of(DumontUsage, [usage(one) for one in found.items])
    return Answer(200, body, _csv_named("usage.csv"))


def _usage(call: Call, query: UsageQuery, limit: int, offset: int) -> ListUsage:
    return ListUsage(
        account_id=call.account_id,
        since_day=query.since,
        until_day=query.to,
        instance_id=query.instance_id,
        limit=limit,
        offset=offset,
    )


async def add_credits(call: Call) -> Answer:
    """201 when it is in the balance, 202 while the payment is under way."""
    body: CreditsBody = call.body
    reference = body.reference or call.idempotency_key or call.request_id
    payment_id = derive_id("pay", call.account_id, reference)
    await call.command(
        RequestPayment(
            now=call.now,
            payment_id=payment_id,
            account_id=call.account_id,
            usd_micros=round(body.amount * MICROS),
            method=body.method,
            reference=reference,
        )
    )
    paid = await _settled(call, payment_id)
    if paid.status == "declined":
        raise Refused("PAYMENT_DECLINED", reason=paid.reason, reference=reference)
    credit = DumontCredit(
        transaction_id=payment_id,
        status="settled" if paid.is_credited else "pending",
        amount=round(body.amount, 6),
        bonus=usd(paid.bonus_usd_micros),
        balance=usd(paid.balance_usd_micros),
        reference=reference,
    )
    return ok(credit, 201 if paid.is_credited else 202)


async def _settled(call: Call, payment_id: str) -> PaymentView:
    clock = call.gateway.clock
    until_s = clock.monotonic_s() + CREDIT_WAIT_S
    while True:
        paid: PaymentView = await call.ask(GetPayment(account_id=call.account_id, payment_id=payment_id))
        if paid.is_credited or paid.status == "declined" or clock.monotonic_s() >= until_s:
            return paid
        await clock.sleep(CREDIT_POLL_S)


async def set_alerts(call: Call) -> Answer:
    body: AlertsBody = call.body
    known = (await _account(call)).alerts
    top_up = AutoTopUp(
        threshold_usd_micros=_or(body.auto_top_up_threshold, known.auto_top_up.threshold_usd_micros),
        amount_usd_micros=_or(body.auto_top_up_amount, known.auto_top_up.amount_usd_micros),
        day_usd_micros_max=_or(body.auto_top_up_daily_max, known.auto_top_up.day_usd_micros_max),
    )
    if 0 < top_up.amount_usd_micros < CREDITS_USD_MIN * MICROS:
        refuse("auto_top_up_amount", f"auto_top_up_amount must be 0 or at least {CREDITS_USD_MIN}")
    if 0 < top_up.day_usd_micros_max < top_up.amount_usd_micros:
        refuse("auto_top_up_daily_max", "auto_top_up_daily_max must be 0 or at least auto_top_up_amount")
    wanted = AlertSettings(low_usd_micros=_or(body.low_balance_threshold, known.low_usd_micros), auto_top_up=top_up)
    wish_id = call.wish_id("alerts")
    await call.command(SetAlerts(now=call.now, request_id=wish_id, account_id=call.account_id, alerts=wanted))
    return ok(alerts(await _account(call)))


def _or(given: float | None, known: int) -> int:
    return known if given is None else round(given * MICROS)


async def list_invoices(call: Call) -> Answer:
    found: InvoiceList = await call.ask(ListInvoices(account_id=call.account_id))
    return ok([invoice(one) for one in found.months])


async def get_invoice(call: Call) -> Answer:
    return ok(invoice(await call.ask(GetInvoice(account_id=call.account_id, month=call.path["month"]))))


async def print_invoice(call: Call) -> Answer:
    found = await call.ask(GetInvoice(account_id=call.account_id, month=call.path["month"]))
    headers = {
        "Content-Type": HTML_TYPE,
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    }
    return Answer(200, invoice_page(invoice(found)), headers)


ROUTES = (
    Route(
        "GET",
        "/api/v1/balance",
        DIALECT,
        "billing:read",
        "read",
        get_balance,
        "Balance and runway",
        reply=DumontBalance,
    ),
    Route(
        "GET",
        "/api/v1/billing/history",
        DIALECT,
        "billing:read",
        "read",
        list_history,
        "List what moved the balance",
        query=HistoryQuery,
        reply=list[DumontEntry],
        has_meta=True,
    ),
    Route(
        "GET",
        "/api/v1/billing/history.csv",
        DIALECT,
        "billing:read",
        "read",
        export_history,
        "Export the history as CSV",
        query=ExportQuery,
        reply=str,
        media="text/csv",
    ),
    Route(
        "GET",
        "/api/v1/billing/usage",
        DIALECT,
        "billing:read",
        "read",
        list_usage,
        "Usage by instance and day",
        query=UsageQuery,
        reply=DumontUsageList,
    ),
    Route(
        "GET",
        "/api/v1/billing/usage.csv",
        DIALECT,
        "billing:read",
        "read",
        export_usage,
        "Export usage as CSV",
        query=UsageQuery,
        reply=str,
        media="text/csv",
    ),
    Route(
        "GET",
        "/api/v1/billing/ledger",
        DIALECT,
        "billing:read",
        "read",
        get_ledger,
        "Trial balance of the account",
        reply=DumontLedger,
    ),
    Route(
        "GET",
        "/api/v1/billing/invoices",
        DIALECT,
        "billing:read",
        "read",
        list_invoices,
        "List invoices by month",
        reply=list[DumontInvoice],
    ),
    Route(
        "GET",
        "/api/v1/billing/invoices/{month}",
        DIALECT,
        "billing:read",
        "read",
        get_invoice,
        "Read an invoice or statement",
        reply=DumontInvoice,
    ),
    Route(
        "GET",
        "/api/v1/billing/invoices/{month}/print",
        DIALECT,
        "billing:read",
        "read",
        print_invoice,
        "An invoice as a page to print",
        reply=str,
        media="text/html",
    ),
    Route(
        "POST",
        "/api/v1/billing/add-credits",
        DIALECT,
        "billing:write",
        "write",
        add_credits,
        "Add credits",
        body=CreditsBody,
        reply=DumontCredit,
        statuses=(201, 202),
    ),
    Route(
        "PUT",
        "/api/v1/billing/settings",
        DIALECT,
        "billing:write",
        "write",
        set_alerts,
        "Set alerts and auto top-up",
        body=AlertsBody,
        reply=DumontAlerts,
    ),
)
