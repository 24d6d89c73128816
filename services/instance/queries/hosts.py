"""Questions about the market and about hosts: offers with their history, blacklists, attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from asyncpg import Record

from libs.clock import Clock
from libs.postgres import Database
from proto.instance.queries import (
    LIST_LIMIT_MAX,
    BlacklistCheck,
    BlacklistEntry,
    CheckBlacklist,
    HistorySummary,
    ListBlacklist,
    ListOffers,
    OfferList,
    OfferView,
    SummarizeHistory,
)
from proto.instance.words import Offer, ReliabilityStatus
from services.instance.decider.market import Stock, is_in_region, is_same_gpu, parse_gpu

RELIABILITY_ATTEMPTS_MIN = 3  # contract dumont 7: fewer say nothing
RELIABILITY_STEPS: tuple[tuple[int, ReliabilityStatus], ...] = (
    (900_000, "excellent"),
    (700_000, "good"),
    (500_000, "fair"),
)
HISTORY_HOURS_MAX = 168
ENTRIES_MAX = 1_000  # blacklist entries in one answer; a market has hundreds of hosts


class World(Protocol):
    """What these questions need of the outside."""

    @property
    def clock(self) -> Clock: ...

    async def offers(self) -> Stock: ...


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...

    @property
    def world(self) -> World: ...


# $1 providers, $2 host ids (pairs), $3 account, $4 now. An account's own entry speaks before the platform's.
_HOSTS_SQL = """
select p.provider, p.host_id, h.attempts_total, h.successes_total, b.reason
from unnest($1::text[], $2::text[]) as p(provider, host_id)
left join hosts h using (provider, host_id)
left join lateral (
    select reason from blacklist
    where provider = p.provider and host_id = p.host_id and account_id in ($3, '')
      and (expires_at is null or expires_at > $4)
    order by account_id desc limit 1) b on true
"""

# $1 account, $2 provider, $3 kind ('' = any), $4 now, $5 expired too, $6 limit
_BLACKLIST_SQL = """
select b.*, (expires_at is null or expires_at > $4) as is_active
from blacklist b
where account_id in ($1, '') and ($2 = '' or provider = $2) and ($3 = '' or kind = $3)
  and ($5 or expires_at is null or expires_at > $4)
order by blacklisted_at desc, provider, host_id limit $6
"""

# $1 account, $2 provider, $3 host, $4 now
_CHECK_SQL = """
select b.*, true as is_active
from blacklist b
where provider = $2 and host_id = $3 and account_id in ($1, '') and (expires_at is null or expires_at > $4)
order by account_id desc limit 1
"""

# $1 provider ('' = all), $2 since, $3 now. Cancelled attempts are not counted (contract dumont 7).
_SUMMARY_SQL = """
select outcome, coalesce(stage, 'error') as stage, count(*) as n, (
    select count(distinct (provider, host_id)) from blacklist
    where ($1 = '' or provider = $1) and account_id = '' and (expires_at is null or expires_at > $3)) as blacklisted
from attempts
where attempted_at >= $2 and ($1 = '' or provider = $1) and outcome <> 'cancelled'
group by 1, 2
union all
select '', '', 0, (
    select count(distinct (provider, host_id)) from blacklist
    where ($1 = '' or provider = $1) and account_id = '' and (expires_at is null or expires_at > $3))
"""


async def list_offers(query: ListOffers, context: Context) -> OfferList:
    """What one could rent now, with what our own attempts say about each host."""
    offers = [offer for offer in (await context.world.offers()).offers if _matches(query, offer)]
    known = await _known(offers, query.account_id, context)
    views = [_offer_view(offer, known.get((offer.provider, offer.host_id))) for offer in offers]
    if not query.include_blacklisted:
        views = [view for view in views if not view.is_blacklisted]
    views.sort(key=lambda view: _order(query, view.offer))
    return OfferList(views[: max(1, min(query.limit, LIST_LIMIT_MAX))], len(views))


def _matches(query: ListOffers, offer: Offer) -> bool:
    price_max = query.price_usd_micros_per_hour_max
    return (
        offer.kind == "gpu"
        and (not query.gpu or is_same_gpu(parse_gpu(query.gpu), offer))
        and (not query.gpu_count or offer.gpu_count == query.gpu_count)
        and offer.gpu_memory_gb >= query.gpu_memory_gb_min
        and offer.cpu_cores >= query.cpu_cores_min
        and offer.memory_gb >= query.memory_gb_min
        and offer.disk_gb >= query.disk_gb_min
        and offer.download_mbps >= query.download_mbps_min
        and offer.upload_mbps >= query.upload_mbps_min
        and (not price_max or offer.price_usd_micros_per_hour <= price_max)
        and offer.reliability_ppm >= query.reliability_ppm_min
        and is_in_region(offer.region, query.region)
        and (offer.verified or not query.verified_only)
        and (offer.static_ip or not query.static_ip)
        and (not query.cuda_version or offer.cuda_version == query.cuda_version)
        and (not query.billing or offer.billing == query.billing)
    )


def _order(query: ListOffers, offer: Offer) -> tuple[int, int, str]:
    match query.order_by:
        case "price":
            first = offer.price_usd_micros_per_hour
        case "gpu_memory":
            first = -offer.gpu_memory_gb
        case "reliability":
            first = -offer.reliability_ppm
    return first, offer.price_usd_micros_per_hour, offer.offer_id


async def _known(offers: Sequence[Offer], account_id: str, context: Context) -> dict[tuple[str, str], Record]:
    pairs = sorted({(offer.provider, offer.host_id) for offer in offers})
    if not pairs:
        return {}
    providers, host_ids = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    rows = await context.pool.fetch(_HOSTS_SQL, providers, host_ids, account_id, context.world.clock.now())
    return {(row["provider"], row["host_id"]): row for row in rows}


def _offer_view(offer: Offer, host: Record | None) -> OfferView:
    total, successes, reason = 0, 0, None
    if host is not None:
        total, successes, reason = host["attempts_total"] or 0, host["successes_total"] or 0, host["reason"]
    success_ppm = successes * 1_000_000 // total if total else None
    return OfferView(
        offer=offer,
        is_blacklisted=reason is not None,
        blacklist_reason=reason or "",
        attempts_total=total,
        success_ppm=success_ppm,
        reliability_status=reliability_status(total, success_ppm),
    )


def reliability_status(attempts_total: int, success_ppm: int | None) -> ReliabilityStatus:
    """Contract dumont 7: unknown below three attempts, then by success rate."""
    if success_ppm is None or attempts_total < RELIABILITY_ATTEMPTS_MIN:
        return "unknown"
    for least_ppm, word in RELIABILITY_STEPS:
        if success_ppm >= least_ppm:
            return word
    return "poor"


async def list_blacklist(query: ListBlacklist, context: Context) -> list[BlacklistEntry]:
    """The platform's entries and the account's own, newest first."""
    now = context.world.clock.now()
    rows = await context.pool.fetch(
        _BLACKLIST_SQL, query.account_id, query.provider, query.kind, now, query.include_expired, ENTRIES_MAX
    )
    return [_entry(row) for row in rows]


async def check_blacklist(query: CheckBlacklist, context: Context) -> BlacklistCheck:
    """Whether the account should avoid the host now."""
    now = context.world.clock.now()
    row = await context.pool.fetchrow(_CHECK_SQL, query.account_id, query.provider, query.host_id, now)
    return BlacklistCheck(None if row is None else _entry(row))


def _entry(row: Record) -> BlacklistEntry:
    return BlacklistEntry(
        provider=row["provider"],
        host_id=row["host_id"],
        kind=row["kind"],
        reason=row["reason"],
        account_id=row["account_id"],
        gpu=row["gpu"],
        blacklisted_at=row["blacklisted_at"],
        expires_at=row["expires_at"],
        is_active=row["is_active"],
        attempts_total=row["attempts_total"],
        attempts_failed=row["attempts_failed"],
        last_failure=row["last_failure"],
    )


async def summarize_history(query: SummarizeHistory, context: Context) -> HistorySummary:
    """Counted attempts of the last hours, over all accounts."""
    now: datetime = context.world.clock.now()
    since = now - timedelta(hours=max(1, min(query.hours, HISTORY_HOURS_MAX)))
    rows = await context.pool.fetch(_SUMMARY_SQL, query.provider, since, now)
    successes = sum(row["n"] for row in rows if row["outcome"] == "success")
    stages = {row["stage"]: row["n"] for row in rows if row["outcome"] == "failure"}
    failures = sum(stages.values())
    return HistorySummary(successes + failures, successes, failures, stages, rows[0]["blacklisted"])
