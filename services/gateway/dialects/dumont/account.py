"""Dumont: /account and /audit. What an account may ask, and what was done with the access to it."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from services.gateway.accounts import AUDIT_ENTRIES_MAX, AuditEntry
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds, milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok, page
from services.gateway.routing import Route

SCOPE = "account:read"


class DumontLimits(Struct, frozen=True):
    """`per_day` null is unlimited."""

    per_minute: int
    per_day: int | None


class DumontAccount(Struct, frozen=True):
    """`opened_at` null: an account of before accounts were opened."""

    id: str
    name: str
    plan: str
    limits: DumontLimits | None
    opened_at: str | None


class AuditQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Newest first; `total` counts those that are kept at hand."""

    limit: Annotated[int, Meta(ge=1, le=100)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=AUDIT_ENTRIES_MAX)] = 0


class DumontAuditEntry(Struct, frozen=True):
    """`actor`: the key that did it, or `operator`; `subject_id`: what it was done to."""

    at: str
    event: str
    actor: str
    subject_id: str
    details: dict[str, Any]
    request_id: str


async def get_account(call: Call) -> Answer:
    """`limits` null: this installation runs without."""
    known = call.gateway.keys.accounts.get(call.account_id)
    (_, quota), _ = call.gateway.limits.of_account(DIALECT.name, call.account_id, call.caller.plan)
    limits = DumontLimits(quota.limit, quota.per_day or None) if call.gateway.limits.is_on else None
    return ok(
        DumontAccount(
            id=call.account_id,
            name=known.name if known is not None else "",
            plan=call.caller.plan,
            limits=limits,
            opened_at=milliseconds_or_none(known.opened_at if known is not None else None),
        )
    )


async def list_audit(call: Call) -> Answer:
    query: AuditQuery = call.query
    entries = call.gateway.keys.accounts.audit(call.account_id)
    part = entries[query.offset : query.offset + query.limit]
    return page([_entry(entry) for entry in part], total=len(entries), limit=query.limit, offset=query.offset)


def _entry(entry: AuditEntry) -> DumontAuditEntry:
    facts = {name: fact for name, fact in entry.facts.items() if fact not in ("", None)}
    return DumontAuditEntry(milliseconds(entry.at), entry.event, entry.actor, entry.subject_id, facts, entry.request_id)


ROUTES = (
    Route("GET", "/api/v1/account", DIALECT, SCOPE, "read", get_account, "Read the account", reply=DumontAccount),
    Route("GET", "/api/v1/audit", DIALECT, SCOPE, "read", list_audit, "What was done with keys and plan",
          query=AuditQuery, reply=list[DumontAuditEntry], has_meta=True),
)  # fmt: skip
