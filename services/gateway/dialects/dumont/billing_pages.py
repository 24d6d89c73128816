"""Dumont: money on paper. An invoice as a page to print, and exports as CSV. Pure text from wire structs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape

from msgspec import Struct
from msgspec.structs import asdict

from services.gateway.dialects.dumont.billing_object import DumontInvoice

CSV_TYPE = "text/csv; charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"
# A spreadsheet takes a cell that begins so for a formula; a leading quote makes it text.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Invoice {id}</title><style>
body{{font:14px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;width:100%;margin:1rem 0}}th,td{{padding:.3rem .5rem;border-bottom:1px solid #ccc}}
th{{text-align:left}}td.n,th.n{{text-align:right;font-variant-numeric:tabular-nums}}
@media print{{body{{margin:0;max-width:none}}}}
</style></head><body>
<h1>Invoice {month}</h1>
<p>Account {account}<br>Currency {currency}<br>Status {status}</p>
<h2>Usage</h2>
<table><thead><tr><th>Instance</th><th>Type</th><th class="n">Seconds</th><th class="n">Amount</th></tr></thead>
<tbody>{lines}</tbody></table>
<h2>Credits and corrections</h2>
<table><thead><tr><th>Date</th><th>Type</th><th>Description</th><th class="n">Amount</th></tr></thead>
<tbody>{entries}</tbody></table>
<h2>Balance</h2>
<table><tbody>{totals}</tbody></table>
</body></html>
"""


def money(amount: float) -> str:
    """Six decimals: what a second of a cheap machine costs is below a cent."""
    return f"{amount:.6f}"


def invoice_page(invoice: DumontInvoice) -> bytes:
    """One self-contained page: no script, no outside resource."""
    lines = "".join(
        _row(line.instance_id, f"{line.type} {line.label}".strip(), numbers=(str(line.seconds), money(line.amount)))
        for line in invoice.lines
    )
    entries = "".join(
        _row(entry.created_at[:10], entry.type, entry.description, numbers=(money(entry.amount),))
        for entry in invoice.entries
    )
    totals = "".join(
        _row(name, numbers=(money(amount),))
        for name, amount in (
            ("Opening balance", invoice.opening_balance),
            ("Credits", invoice.credits),
            ("Corrections", invoice.adjustments),
            ("Usage", -invoice.usage),
            ("Closing balance", invoice.closing_balance),
        )
    )
    page = _PAGE.format(
        id=escape(invoice.id),
        month=escape(invoice.month),
        account=escape(invoice.id.removesuffix(f"-{invoice.month}")),
        currency=escape(invoice.currency),
        status=escape(invoice.status),
        lines=lines,
        entries=entries,
        totals=totals,
    )
    return page.encode()


def _row(*cells: str, numbers: Sequence[str]) -> str:
    texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr>{texts}{''.join(f'<td class=n>{escape(number)}</td>' for number in numbers)}</tr>"


def csv_of(kind: type[Struct], rows: Sequence[Struct]) -> bytes:
    """Rows of one struct, with its field names as the header line. Amounts are plain decimals."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(kind.__struct_fields__)
    for row in rows:
        writer.writerow([_cell(value) for value in asdict(row).values()])
    return out.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return money(value)
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA_START) and not isinstance(value, int) else text
