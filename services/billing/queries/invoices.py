"""Invoices: one month of one account, made from its history. A month is final when everything of it has been charged.

Opening balance + credits + corrections - usage = closing balance, to the micro-unit: all come from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from libs.refusal import Refused
from proto.billing.queries import (
    EXPORT_ROWS_MAX,
    Entry,
    GetInvoice,
    Invoice,
    InvoiceList,
    ListEntries,
    ListInvoices,
    UsageDay,
)
from proto.billing.words import USAGE_TYPE
from services.billing.queries.context import Context
from services.billing.queries.history import USAGE_CTE, list_entries, usage_of

_USAGE_TYPES = frozenset(USAGE_TYPE.values())
# Months of the history, newest first, with what moved in each.
_MONTHS_SQL = (
    USAGE_CTE
    + """
select to_char(created_at at time zone 'UTC', 'YYYY-MM') as month,
       sum(amount)::bigint as moved,
       (sum(sum(amount)) over (order by to_char(created_at at time zone 'UTC', 'YYYY-MM')))::bigint as closing,
       (-coalesce(sum(amount) filter (where type like 'line:%'), 0))::bigint as usage,
       coalesce(sum(amount) filter (where type in ('adjustment', 'uncollected')), 0)::bigint as adjustments
from history group by 1 order by 1 desc
"""
)
_CHARGED_SQL = """
select a.charged_until, exists(select 1 from meters m where m.account_id = $1 and m.since is not null) as is_running
from accounts a where a.account_id = $1
"""


async def list_invoices(query: ListInvoices, context: Context) -> InvoiceList:
    now = context.world.clock.now()
    charged = await context.pool.fetchrow(_CHARGED_SQL, query.account_id)
    rows = await context.pool.fetch(_MONTHS_SQL, query.account_id, now, context.world.settings.prepaid)
    return InvoiceList([_month(query.account_id, row, charged, now) for row in rows])


def _month(
    account_id: str,
    row: Any,
    charged: Any,
    now: datetime,
    *,
    lines: Sequence[UsageDay] = (),
    entries: Sequence[Entry] = (),
) -> Invoice:
    return Invoice(
        account_id=account_id,
        month=row["month"],
        currency="USD",
        status=_status(row["month"], charged, now),
        opening_usd_micros=row["closing"] - row["moved"],
        closing_usd_micros=row["closing"],
        usage_usd_micros=row["usage"],
        credits_usd_micros=row["moved"] + row["usage"] - row["adjustments"],
        adjustments_usd_micros=row["adjustments"],
        lines=list(lines),
        entries=list(entries),
    )


def _status(month: str, charged: Any, now: datetime) -> Literal["open", "final"]:
    end = month_end(month)
    if now < end:
        return "open"
    is_behind = charged is not None and charged["is_running"] and charged["charged_until"] < end
    return "open" if is_behind else "final"


def month_end(month: str) -> datetime:
    """The first instant that is not in it."""
    year, number = int(month[:4]), int(month[5:7])
    return datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)


async def get_invoice(query: GetInvoice, context: Context) -> Invoice:
    now = context.world.clock.now()
    charged = await context.pool.fetchrow(_CHARGED_SQL, query.account_id)
    rows = await context.pool.fetch(_MONTHS_SQL, query.account_id, now, context.world.settings.prepaid)
    row = next((row for row in rows if row["month"] == query.month), None)
    if row is None and query.month == f"{now:%Y-%m}":
        balance = rows[0]["closing"] if rows else 0
        row = {"month": query.month, "moved": 0, "closing": balance, "usage": 0, "adjustments": 0}
    if row is None:
        raise Refused("INVOICE_NOT_FOUND", month=query.month)
    days = (f"{query.month}-01", f"{query.month}-31")
    usage = await usage_of(context, query.account_id, now, days=days, limit=EXPORT_ROWS_MAX)
    start = datetime(int(query.month[:4]), int(query.month[5:7]), 1, tzinfo=UTC)
    wanted = ListEntries(account_id=query.account_id, since=start, until=month_end(query.month), limit=EXPORT_ROWS_MAX)
    entries = [entry for entry in (await list_entries(wanted, context)).items if entry.type not in _USAGE_TYPES]
    return _month(query.account_id, row, charged, now, lines=_by_instance(usage.items, query.month), entries=entries)


def _by_instance(days: Sequence[UsageDay], month: str) -> list[UsageDay]:
    """A line per thing of an instance: its days of this month added up."""
    found: dict[str, UsageDay] = {}
    for one in days:
        before = found.get(one.meter_id)
        found[one.meter_id] = UsageDay(
            day=month,
            instance_id=one.instance_id,
            meter_id=one.meter_id,
            line=one.line,
            seconds=one.seconds + (before.seconds if before else 0),
            usd_micros=one.usd_micros + (before.usd_micros if before else 0),
            label=one.label,
            is_final=one.is_final and (before.is_final if before else True),
        )
    return sorted(found.values(), key=lambda one: (one.instance_id, one.line, one.meter_id))
