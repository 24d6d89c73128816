"""Answers about money: SQL in, reply struct out. The runtime calls `QUERIES[type](query, context)`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from proto.base import Query
from proto.billing.queries import (
    GetBalance,
    GetInvoice,
    GetPayment,
    ListEntries,
    ListInvoices,
    ListUsage,
)
from services.billing.queries.balance import get_balance, get_payment
from services.billing.queries.history import list_entries, list_usage
from services.billing.queries.invoices import get_invoice, list_invoices

QUERIES: Mapping[type[Query], Callable[[Any, Any], Awaitable[Any]]] = {
    GetBalance: get_balance,
    ListEntries: list_entries,
    ListUsage: list_usage,
    GetInvoice: get_invoice,
    ListInvoices: list_invoices,
    GetPayment: get_payment,
}
