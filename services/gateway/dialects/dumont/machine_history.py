"""Dumont: /machines/history. Which hosts are avoided, and why (seed 000, Machine History; contract dumont 7)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from proto.instance.host_commands import Blacklist, Unblacklist
from proto.instance.queries import (
    BlacklistCheck,
    BlacklistEntry,
    CheckBlacklist,
    HistorySummary,
    ListBlacklist,
    SummarizeHistory,
)
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds, milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.routing import Route

BASE = "/api/v1/machines/history"
DURATION_HOURS_MAX = 24 * 366

Token = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]


class BlacklistQuery(Struct, frozen=True, forbid_unknown_fields=True):
    provider: Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    blacklist_type: Literal["", "auto", "manual", "temporary"] = ""
    include_expired: bool = False


class BlacklistBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`duration_hours` absent or null: for good."""

    provider: Token
    machine_id: Token
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    duration_hours: Annotated[int, Meta(ge=1, le=DURATION_HOURS_MAX)] | None = None
    gpu_name: Annotated[str, Meta(max_length=100)] = ""
    blacklist_type: Literal["manual", "temporary"] | None = None


class SummaryQuery(Struct, frozen=True, forbid_unknown_fields=True):
    provider: Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    hours: Annotated[int, Meta(ge=1, le=168)] = 24


class DumontBlacklistEntry(Struct, frozen=True, kw_only=True):
    id: str
    provider: str
    machine_id: str
    blacklist_type: str
    total_attempts: int
    failed_attempts: int
    failure_rate: float
    last_failure_reason: str | None
    blacklisted_at: str
    expires_at: str | None
    is_active: bool
    reason: str
    gpu_name: str | None


class DumontBlacklistCheck(Struct, frozen=True):
    is_blacklisted: bool
    info: DumontBlacklistEntry | None


class DumontHistorySummary(Struct, frozen=True, kw_only=True):
    period_hours: int
    provider: str
    total_attempts: int
    successful: int
    failed: int
    success_rate: float | None
    failure_stages: dict[str, int]
    blacklisted_machines: int


class DumontUnblacklisted(Struct, frozen=True):
    provider: str
    machine_id: str
    removed: bool


async def list_blacklist(call: Call) -> Answer:
    query: BlacklistQuery = call.query
    found: list[BlacklistEntry] = await call.ask(
        ListBlacklist(
            account_id=call.account_id,
            provider=query.provider,
            kind=query.blacklist_type,
            include_expired=query.include_expired,
        )
    )
    return ok([_entry(entry) for entry in found])


async def add_to_blacklist(call: Call) -> Answer:
    """201 for a new entry, 200 when the account had one for this host (contract dumont 7)."""
    body: BlacklistBody = call.body
    before = await _check(call, body.provider, body.machine_id)
    is_new = before.entry is None or before.entry.account_id != call.account_id
    expires_at = call.now + timedelta(hours=body.duration_hours) if body.duration_hours else None
    await call.command(
        Blacklist(
            now=call.now,
            request_id=call.wish_id("blacklist"),
            provider=body.provider,
            host_id=body.machine_id,
            account_id=call.account_id,
            reason=body.reason,
            kind=body.blacklist_type or ("temporary" if expires_at else "manual"),
            gpu=body.gpu_name,
            expires_at=expires_at,
        )
    )
    after = await _check(call, body.provider, body.machine_id)
    return ok(_entry(after.entry) if after.entry else None, 201 if is_new else 200)


async def check_blacklist(call: Call) -> Answer:
    found = await _check(call, call.path["provider"], call.path["machine_id"])
    return ok(DumontBlacklistCheck(found.entry is not None, _entry(found.entry) if found.entry else None))


async def remove_from_blacklist(call: Call) -> Answer:
    provider, host_id = call.path["provider"], call.path["machine_id"]
    wish = Unblacklist(
        now=call.now,
        request_id=call.wish_id("unblacklist"),
        provider=provider,
        host_id=host_id,
        account_id=call.account_id,
    )
    await call.command(wish)
    return ok(DumontUnblacklisted(provider, host_id, removed=True))


async def summary(call: Call) -> Answer:
    query: SummaryQuery = call.query
    found: HistorySummary = await call.ask(SummarizeHistory(provider=query.provider, hours=query.hours))
    return ok(
        DumontHistorySummary(
            period_hours=query.hours,
            provider=query.provider or "all",
            total_attempts=found.attempts_total,
            successful=found.successes,
            failed=found.failures,
            success_rate=round(found.successes / found.attempts_total, 6) if found.attempts_total else None,
            failure_stages=found.failure_stages,
            blacklisted_machines=found.blacklisted_hosts,
        )
    )


async def _check(call: Call, provider: str, host_id: str) -> BlacklistCheck:
    return await call.ask(CheckBlacklist(account_id=call.account_id, provider=provider, host_id=host_id))


def _entry(entry: BlacklistEntry) -> DumontBlacklistEntry:
    rate = entry.attempts_failed / entry.attempts_total if entry.attempts_total else 0.0
    return DumontBlacklistEntry(
        id=f"{entry.provider}-{entry.host_id}",
        provider=entry.provider,
        machine_id=entry.host_id,
        blacklist_type=entry.kind,
        total_attempts=entry.attempts_total,
        failed_attempts=entry.attempts_failed,
        failure_rate=round(rate, 6),
        last_failure_reason=entry.last_failure or None,
        blacklisted_at=milliseconds(entry.blacklisted_at),
        expires_at=milliseconds_or_none(entry.expires_at),
        is_active=entry.is_active,
        reason=entry.reason,
        gpu_name=entry.gpu or None,
    )


ROUTES = (
    Route("GET", f"{BASE}/blacklist", DIALECT, "machines:read", "read", list_blacklist, "List avoided hosts",
          query=BlacklistQuery, reply=list[DumontBlacklistEntry]),
    Route("POST", f"{BASE}/blacklist", DIALECT, "machines:write", "write", add_to_blacklist, "Avoid a host",
          body=BlacklistBody, reply=DumontBlacklistEntry, statuses=(201, 200),
          example={"provider": "sandbox", "machine_id": "12345", "reason": "no ssh", "duration_hours": 24}),
    Route("GET", f"{BASE}/blacklist/check/{{provider}}/{{machine_id}}", DIALECT, "machines:read", "read",
          check_blacklist, "Is a host avoided?", reply=DumontBlacklistCheck),
    Route("DELETE", f"{BASE}/blacklist/{{provider}}/{{machine_id}}", DIALECT, "machines:write", "write",
          remove_from_blacklist, "Stop avoiding a host", reply=DumontUnblacklisted),
    Route("GET", f"{BASE}/summary", DIALECT, "machines:read", "read", summary, "What attempts on hosts came to",
          query=SummaryQuery, reply=DumontHistorySummary),
)  # fmt: skip
