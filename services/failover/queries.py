"""Answers about failovers, readiness and settings: SQL in, reply struct out.

The runtime calls `QUERIES[type](query, context)`. Readiness is computed by the same pure functions that a failover
climbs by, so a plan and what then happens cannot differ in their rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from asyncpg import Record

from libs.clock import Clock
from libs.postgres import Database
from libs.refusal import Refused
from libs.runtime.recent import Recent
from libs.runtime.service import Answer
from proto.base import Query
from proto.failover.queries import (
    LIST_LIMIT_MAX,
    Blocker,
    FailoverList,
    FailoverView,
    GetFailover,
    GetNewMachineProtection,
    GetProtection,
    GetReadiness,
    GetSettings,
    ListFailovers,
    ListProtections,
    MachineProtection,
    NewMachineProtection,
    PlanStep,
    Readiness,
)
from proto.failover.words import RUNGS_OF, Attempt, GlobalSettings, Limits, MachineSettings, Phase, PoolSeen, Rung
from services.failover.decider import ladder
from services.failover.decider.guard import Breaker, Guard

PROTECTIONS_MAX = 1_000
LIST_OFFSET_MAX = 1_000_000
CHOOSERS_MAX = 5_000  # one event names them
_attempts = msgspec.json.Decoder(tuple[Attempt, ...])
_phases = msgspec.json.Decoder(tuple[Phase, ...])


class World(Protocol):
    """What readiness needs of the outside."""

    @property
    def limits(self) -> Limits: ...

    @property
    def clock(self) -> Clock: ...


class Context(Protocol):
    """What the runtime hands to a query beside the question."""

    @property
    def pool(self) -> Database: ...

    @property
    def recent(self) -> Recent: ...

    @property
    def world(self) -> World: ...


_GET_SQL = "select * from failovers where failover_id = $1"
# $1 account, $2 instance ('' = any), $3 status ('' = any), $4 limit, $5 offset
_LIST_SQL = """
with matching as (
    select * from failovers
    where account_id = $1 and ($2 = '' or instance_id = $2) and ($3 = '' or status = $3)
), numbers as (
    select count(*) as total, count(*) filter (where status = 'succeeded') as succeeded,
           count(*) filter (where status = 'failed') as failed,
           avg(total_ms) filter (where status = 'succeeded') as mttr_ms
    from matching
)
select n.total, n.succeeded, n.failed, n.mttr_ms, p.*
from numbers n
left join (select * from matching order by started_at desc, failover_id limit $4 offset $5) p on true
order by p.started_at desc, p.failover_id
"""
_SETTINGS_SQL = "select settings from settings where account_id = $1"
# $1 account, $2 limit; a field at its default is not written
_CHOOSERS_SQL = """
select instance_id from guards
where account_id = $1 and closed is not true and settings @> '{"use_global_settings": false}'
      and not settings @> '{"warm_pool_enabled": false}'
order by instance_id limit $2
"""
_GUARD_SQL = (
    "select account_id, settings, pool, closed, has_snapshot, cpu_machine_id, volume_id from guards"
    " where instance_id = $1"
)
# $1 instance, $2 since
_RECENT_SQL = """
select started_at from failovers where instance_id = $1 and counts and started_at > $2 order by started_at
"""
# $1 instance: the outcome of each of its rungs, newest first
_RUNGS_SQL = """
select a->>'rung' as rung, a->>'outcome' as outcome, ended_at
from failovers, jsonb_array_elements(attempts) a
where instance_id = $1 and a->>'outcome' <> 'skipped'
order by started_at desc limit 50
"""
# $1 account, $2 instance ('' = all), $3 limit
_PROTECTIONS_SQL = """
select g.instance_id, g.account_id, g.settings, f.n, l.started_at, l.strategy_succeeded
from guards g
left join lateral (select count(*) as n from failovers where instance_id = g.instance_id and counts) f on true
left join lateral (select started_at, strategy_succeeded from failovers
                   where instance_id = g.instance_id and counts order by started_at desc limit 1) l on true
where g.account_id = $1 and ($2 = '' or g.instance_id = $2) and g.closed is not true
order by g.instance_id limit $3
"""


async def get_failover(query: GetFailover, context: Context) -> FailoverView:
    row = await context.pool.fetchrow(_GET_SQL, query.failover_id)
    if row is None or row["account_id"] != query.account_id:
        raise Refused("FAILOVER_NOT_FOUND", failover_id=query.failover_id)
    return _view(row)


async def list_failovers(query: ListFailovers, context: Context) -> FailoverList:
    rows = await context.pool.fetch(
        _LIST_SQL,
        query.account_id,
        query.instance_id,
        query.status or "",
        max(1, min(query.limit, LIST_LIMIT_MAX)),
        max(0, min(query.offset, LIST_OFFSET_MAX)),
    )
    first = rows[0]
    return FailoverList(
        items=[_view(row) for row in rows if row["failover_id"] is not None],
        total=first["total"],
        succeeded=first["succeeded"],
        failed=first["failed"],
        mttr_ms=None if first["mttr_ms"] is None else round(first["mttr_ms"]),
    )


def _view(row: Record) -> FailoverView:
    return FailoverView(
        failover_id=row["failover_id"],
        instance_id=row["instance_id"],
        account_id=row["account_id"],
        status=row["status"],
        strategy=row["strategy"],
        reason=row["reason"],
        original_machine_id=row["original_machine_id"],
        started_at=row["started_at"],
        phase=row["phase"],
        test=row["test"],
        strategy_attempted=row["strategy_attempted"],
        strategy_succeeded=row["strategy_succeeded"],
        machine_id=row["machine_id"] or "",
        ended_at=row["ended_at"],
        total_ms=row["total_ms"],
        data_loss_window_s=row["data_loss_window_s"],
        error=row["error"] or "",
        attempts=_attempts.decode(row["attempts"] or b"[]"),
        phases=_phases.decode(row["phases"] or b"[]"),
    )


async def get_settings(query: GetSettings, context: Context) -> GlobalSettings:
    return await settings_of(context.recent, context.pool, query.account_id)


async def settings_of(recent: Recent, pool: Database, account_id: str) -> GlobalSettings:
    """They change by the account's own facts alone, and every create asks for them."""

    async def read() -> GlobalSettings:
        found = await pool.fetchval(_SETTINGS_SQL, account_id)
        return GlobalSettings() if found is None else msgspec.json.decode(found, type=GlobalSettings)

    return await recent.answer(account_id, "settings", read)


async def choosers_of(pool: Database, account_id: str) -> tuple[str, ...]:
    """Instances that decide themselves whether they have a warm pool, and have not switched it off."""
    return tuple(row["instance_id"] for row in await pool.fetch(_CHOOSERS_SQL, account_id, CHOOSERS_MAX))


async def get_new_machine_protection(query: GetNewMachineProtection, context: Context) -> NewMachineProtection:
    return ladder.new_machine(query.strategy, await settings_of(context.recent, context.pool, query.account_id))


async def list_protections(query: ListProtections, context: Context) -> list[MachineProtection]:
    account = await settings_of(context.recent, context.pool, query.account_id)
    rows = await context.pool.fetch(_PROTECTIONS_SQL, query.account_id, "", PROTECTIONS_MAX)
    return [_protection(row, account) for row in rows]


async def get_protection(query: GetProtection, context: Context) -> MachineProtection:
    account = await settings_of(context.recent, context.pool, query.account_id)
    row = await context.pool.fetchrow(_PROTECTIONS_SQL, query.account_id, query.instance_id, 1)
    if row is not None:
        return _protection(row, account)
    own = MachineSettings()
    strategy, volume = ladder.effective_strategy(own, account), ladder.volume_settings(own, account)
    return MachineProtection(query.instance_id, own, strategy, 0, None, None, volume)


def _protection(row: Record, account: GlobalSettings) -> MachineProtection:
    own = _own(row["settings"])
    return MachineProtection(
        instance_id=row["instance_id"],
        settings=own,
        effective_strategy=ladder.effective_strategy(own, account),
        failover_count=row["n"],
        last_failover_at=row["started_at"],
        last_failover_strategy=row["strategy_succeeded"],
        regional_volume=ladder.volume_settings(own, account),
    )


def _own(settings: str | None) -> MachineSettings:
    return MachineSettings() if settings is None else msgspec.json.decode(settings, type=MachineSettings)


async def get_readiness(query: GetReadiness, context: Context) -> Readiness:
    """What would happen now: the ladder as a failover would climb it."""
    now = context.world.clock.now()
    account = await settings_of(context.recent, context.pool, query.account_id)
    guard = await _guard(query, context, now)
    own = guard.settings
    strategy = query.strategy or ladder.effective_strategy(own, account)
    allowed = RUNGS_OF[strategy] if query.strategy else ladder.allowed_rungs(strategy, own, account)
    withheld = () if query.strategy else ladder.withheld_rungs(account)
    no_fallback = ladder.is_fallback_off(strategy, own, account)
    plan: list[PlanStep] = []
    for rung in ladder.order_of(own):
        why = ladder.objection(rung, allowed, guard, now, withheld=withheld, no_fallback=no_fallback)
        plan.append(PlanStep(rung, not why, why))
    blockers = [Blocker(step.rung, step.reason) for step in plan if step.reason not in ("", ladder.NOT_IN_STRATEGY)]
    general = _general_blockers(strategy == "disabled", guard, now)
    open_breakers: list[Rung] = [breaker.rung for breaker in guard.breakers if guard.is_breaker_open(breaker.rung, now)]
    return Readiness(
        instance_id=query.instance_id,
        effective_strategy=strategy,
        warm_pool_ready=any(step.rung == "warm_pool" and step.is_ready for step in plan),
        is_ready=not general and any(step.is_ready for step in plan),
        pool=guard.pool,
        blockers=[*general, *blockers],
        plan=plan,
        failovers_24h=len(guard.started_since(now)),
        failovers_24h_max=guard.limits.failovers_per_day_max,
        open_breakers=open_breakers,
        regional_volume=ladder.volume_settings(own, account),
    )


def _general_blockers(is_disabled: bool, guard: Guard, now: datetime) -> list[Blocker]:
    recent, limits = guard.started_since(now), guard.limits
    found: list[Blocker] = []
    if is_disabled:
        found.append(Blocker(None, "disabled"))
    if len(recent) >= limits.failovers_per_day_max:
        found.append(Blocker(None, "daily_limit_reached"))
    if recent and now - recent[-1] < timedelta(seconds=limits.spacing_s):
        found.append(Blocker(None, "too_soon_after_the_last"))
    return found


async def _guard(query: GetReadiness, context: Context, now: datetime) -> Guard:
    """The instance's guard as the rows tell it."""
    row = await context.pool.fetchrow(_GUARD_SQL, query.instance_id)
    if row is not None and row["account_id"] != query.account_id:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=query.instance_id)
    recent = await context.pool.fetch(_RECENT_SQL, query.instance_id, now - timedelta(hours=24))
    rungs = await context.pool.fetch(_RUNGS_SQL, query.instance_id)
    pool = None if row is None else row["pool"]
    return Guard(
        instance_id=query.instance_id,
        account_id=query.account_id,
        settings=_own(None if row is None else row["settings"]),
        pool=PoolSeen() if pool is None else msgspec.json.decode(pool, type=PoolSeen),
        cpu_machine_id="" if row is None else row["cpu_machine_id"] or "",
        has_snapshot=row is not None and bool(row["has_snapshot"]),
        volume_id="" if row is None else row["volume_id"] or "",
        started=tuple(one["started_at"] for one in recent),
        breakers=_breakers(rungs),
        limits=context.world.limits,
    )


def _breakers(outcomes: list[Record]) -> tuple[Breaker, ...]:
    """Failures in a row, from the newest outcome back to the last success."""
    counted: dict[Rung, Breaker] = {}
    closed: set[Rung] = set()
    for one in outcomes:
        rung: Rung = one["rung"]
        if one["outcome"] == "succeeded":
            closed.add(rung)
        elif rung not in closed:
            newest = counted.get(rung) or Breaker(rung, 0, one["ended_at"])
            counted[rung] = Breaker(rung, newest.failures + 1, newest.failed_at)
    return tuple(counted.values())


QUERIES: Mapping[type[Query], Answer] = {
    GetFailover: get_failover,
    ListFailovers: list_failovers,
    GetSettings: get_settings,
    GetProtection: get_protection,
    ListProtections: list_protections,
    GetReadiness: get_readiness,
    GetNewMachineProtection: get_new_machine_protection,
}
