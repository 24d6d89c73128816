"""Failovers, readiness and strategies as contract dumont 3 shows them. Pure field maps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from msgspec import Struct

from proto.failover.queries import FailoverList, FailoverView, PlanStep, Readiness
from proto.failover.words import Attempt, Phase
from proto.instance.copy_queries import CpuStandbyView
from proto.instance.queries import InstanceView
from proto.warmpool.queries import PoolView
from services.gateway.dialects import milliseconds, milliseconds_or_none
from services.gateway.dialects.dumont import standby_readiness
from services.gateway.dialects.dumont.failover_strategies import ETA_S
from services.gateway.dialects.dumont.instance_object import instance as shown_instance
from services.gateway.dialects.dumont.standby_readiness import DumontCpuReadiness
from services.gateway.dialects.dumont.volume_object import DumontStatusVolume, DumontVolume, volume, volume_status


class DumontAttempt(Struct, frozen=True, kw_only=True):
    strategy: str
    outcome: str
    reason: str | None
    started_at: str
    ended_at: str
    duration_ms: int


class DumontPhase(Struct, frozen=True, kw_only=True):
    phase: str
    strategy: str | None
    started_at: str
    ended_at: str
    duration_ms: int
    outcome: str


class DumontOriginal(Struct, frozen=True):
    machine_id: str


class DumontFailover(Struct, frozen=True, kw_only=True):
    """One failover. `success` is null while it runs."""

    success: bool | None
    failover_id: str
    machine_id: str
    status: str
    phase: str
    reason: str
    test: bool
    strategy: str
    strategy_attempted: str | None
    strategy_succeeded: str | None
    original: DumontOriginal
    new_gpu_id: str | None
    new_ssh_host: str | None
    new_ssh_port: int | None
    new_gpu_name: str | None
    warm_pool_attempt_ms: int | None
    cpu_standby_attempt_ms: int | None
    total_ms: int | None
    data_loss_window_s: int | None
    error: str | None
    warm_pool_error: str | None
    cpu_standby_error: str | None
    attempts: list[DumontAttempt]
    phase_history: list[DumontPhase]
    phase_timings_ms: dict[str, int]
    started_at: str
    ended_at: str | None


def failover(view: FailoverView, instance: InstanceView | None) -> DumontFailover:
    """`instance` says where it is reached now; without it the way in is left out."""
    has_succeeded = view.status == "succeeded"
    shown = shown_instance(instance) if instance is not None and has_succeeded else None
    by_rung = {attempt.rung: attempt for attempt in view.attempts}
    return DumontFailover(
        success=None if view.status == "in_progress" else has_succeeded,
        failover_id=view.failover_id,
        machine_id=view.instance_id,
        status=view.status,
        phase=view.phase,
        reason=view.reason,
        test=view.test,
        strategy=view.strategy,
        strategy_attempted=view.strategy_attempted,
        strategy_succeeded=view.strategy_succeeded,
        original=DumontOriginal(view.original_machine_id),
        new_gpu_id=view.machine_id or None,
        new_ssh_host=shown.ssh_host if shown else None,
        new_ssh_port=shown.ssh_port if shown else None,
        new_gpu_name=shown.gpu_name if shown else None,
        warm_pool_attempt_ms=_took_ms(by_rung.get("warm_pool")),
        cpu_standby_attempt_ms=_took_ms(by_rung.get("cpu_standby")),
        total_ms=view.total_ms,
        data_loss_window_s=view.data_loss_window_s,
        error=view.error or None,
        warm_pool_error=_error(by_rung.get("warm_pool")),
        cpu_standby_error=_error(by_rung.get("cpu_standby")),
        attempts=[_attempt(attempt) for attempt in view.attempts],
        phase_history=[_phase(phase) for phase in view.phases],
        phase_timings_ms={phase.phase: phase.took_ms for phase in view.phases},
        started_at=milliseconds(view.started_at),
        ended_at=milliseconds_or_none(view.ended_at),
    )


def _took_ms(attempt: Attempt | None) -> int | None:
    return None if attempt is None or attempt.outcome == "skipped" else attempt.took_ms


def _error(attempt: Attempt | None) -> str | None:
    return None if attempt is None or attempt.outcome == "succeeded" else attempt.reason


def _attempt(attempt: Attempt) -> DumontAttempt:
    return DumontAttempt(
        strategy=attempt.rung,
        outcome=attempt.outcome,
        reason=attempt.reason or None,
        started_at=milliseconds(attempt.started_at),
        ended_at=milliseconds(attempt.ended_at),
        duration_ms=attempt.took_ms,
    )


def _phase(phase: Phase) -> DumontPhase:
    return DumontPhase(
        phase=phase.phase,
        strategy=phase.rung,
        started_at=milliseconds(phase.started_at),
        ended_at=milliseconds(phase.ended_at),
        duration_ms=phase.took_ms,
        outcome=phase.outcome,
    )


class DumontPoolStatus(Struct, frozen=True, kw_only=True):
    """`startable`: the standby can take over now; a stopped one may still find its GPU rented to somebody else."""

    state: str
    mode: str
    host_machine_id: str | None
    volume_id: str | None
    standby_gpu_id: str | None
    standby_state: str
    startable: bool
    checked_at: str | None


class DumontBlocker(Struct, frozen=True):
    strategy: str | None
    reason: str


class DumontPlanStep(Struct, frozen=True, kw_only=True):
    step: str
    ready: bool
    reason: str | None
    eta_s: int
    est_cost: float | None


class DumontReadiness(Struct, frozen=True, kw_only=True):
    machine_id: str
    effective_strategy: str
    warm_pool_ready: bool
    warm_pool_status: DumontPoolStatus | None
    cpu_standby_ready: bool
    cpu_standby_status: DumontCpuReadiness | None
    regional_volume_ready: bool
    regional_volume_status: DumontVolume | None
    overall_ready: bool
    blockers: list[DumontBlocker]
    plan: list[DumontPlanStep]


def readiness(
    found: Readiness, pool: PoolView, cpu: CpuStandbyView | None, instance: InstanceView, now: datetime
) -> DumontReadiness:
    """`found` with the CPU standby put in (`with_cpu_standby`). What is not in the strategy stays false and null."""
    return DumontReadiness(
        machine_id=found.instance_id,
        effective_strategy=found.effective_strategy,
        warm_pool_ready=found.warm_pool_ready,
        warm_pool_status=None if pool.status == "disabled" else _pool(pool),
        cpu_standby_ready=standby_readiness.is_ready(found),
        cpu_standby_status=standby_readiness.shown(cpu, now) if standby_readiness.is_asked_for(found) else None,
        regional_volume_ready=standby_readiness.is_ready(found, "regional_volume"),
        regional_volume_status=volume(instance),
        overall_ready=found.is_ready,
        blockers=[DumontBlocker(blocker.rung, blocker.reason) for blocker in found.blockers],
        plan=[_step(step) for step in found.plan],
    )


def _step(step: PlanStep) -> DumontPlanStep:
    return DumontPlanStep(
        step=step.rung, ready=step.is_ready, reason=step.reason or None, eta_s=ETA_S[step.rung][1], est_cost=None
    )


def _pool(pool: PoolView) -> DumontPoolStatus:
    return DumontPoolStatus(
        state=pool.status,
        mode=pool.mode,
        host_machine_id=pool.host_id or None,
        volume_id=pool.volume_id or None,
        standby_gpu_id=pool.standby_machine_id or None,
        standby_state=pool.standby_state,
        startable=pool.status == "active",
        checked_at=milliseconds_or_none(pool.changed_at),
    )


def plan_message(found: Readiness, say: Callable[[str, str], str]) -> str:
    """One sentence for a person."""
    ready = next((step.rung for step in found.plan if step.is_ready), None)
    if found.is_ready and ready is not None:
        return say(f"A failover would use {ready}; nothing was changed", f"Um failover usaria {ready}; nada mudou")
    reasons = "; ".join(f"{blocker.rung or 'failover'}: {blocker.reason}" for blocker in found.blockers)
    why = reasons or say("no strategy is ready", "nenhuma estratégia está pronta")
    return say(f"A failover would fail: {why}; nothing was changed", f"Um failover falharia: {why}; nada mudou")


class DumontNewInstance(Struct, frozen=True):
    gpu_id: str
    ssh_host: str | None
    ssh_port: int | None


class DumontTest(Struct, frozen=True, kw_only=True):
    """A dry run has `would_succeed`, `readiness` and `message`; a real test has the rest."""

    dry_run: bool
    would_succeed: bool | None = None
    readiness: DumontReadiness | None = None
    message: str | None = None
    success: bool | None = None
    failover_id: str | None = None
    strategy_succeeded: str | None = None
    total_ms: int | None = None
    new_instance: DumontNewInstance | None = None
    error: str | None = None


def test_result(view: FailoverView, instance: InstanceView) -> DumontTest:
    shown = failover(view, instance)
    new = DumontNewInstance(view.machine_id, shown.new_ssh_host, shown.new_ssh_port) if shown.success else None
    return DumontTest(
        dry_run=False,
        success=bool(shown.success),
        failover_id=view.failover_id,
        strategy_succeeded=view.strategy_succeeded,
        total_ms=view.total_ms,
        new_instance=new,
        error=view.error or None,
    )


class DumontStatusPool(Struct, frozen=True, kw_only=True):
    enabled: bool
    active: bool
    standby_gpu_id: str | None
    volume_id: str | None
    config: DumontPoolStatus | None


class DumontStatusStandby(Struct, frozen=True, kw_only=True):
    enabled: bool
    active: bool
    instance_name: str | None
    config: DumontCpuReadiness | None


class DumontLimits(Struct, frozen=True):
    failovers_24h: int
    max: int
    remaining: int


class DumontStatus(Struct, frozen=True, kw_only=True):
    machine_id: str
    effective_strategy: str
    warm_pool: DumontStatusPool
    cpu_standby: DumontStatusStandby
    regional_volume: DumontStatusVolume
    recommended_action: str | None
    current_failover: DumontFailover | None
    last_failover: DumontFailover | None
    limits: DumontLimits
    circuit_breakers: dict[str, str]


def status(
    found: Readiness,
    pool: PoolView,
    cpu: CpuStandbyView | None,
    instance: InstanceView,
    *,
    recent: list[DumontFailover],
    now: datetime,
) -> DumontStatus:
    """`found` with the CPU standby put in; `recent`: newest first."""
    current = next((one for one in recent if one.success is None), None)
    has_pool = pool.status != "disabled"
    return DumontStatus(
        machine_id=found.instance_id,
        effective_strategy=found.effective_strategy,
        warm_pool=DumontStatusPool(
            enabled=has_pool,
            active=pool.status == "active",
            standby_gpu_id=pool.standby_machine_id or None,
            volume_id=pool.volume_id or None,
            config=_pool(pool) if has_pool else None,
        ),
        cpu_standby=DumontStatusStandby(
            enabled=cpu is not None,
            active=cpu is not None and cpu.state in ("failover_active", "recovering"),
            instance_name=cpu.machine_id or None if cpu is not None else None,
            config=standby_readiness.shown(cpu, now) if cpu is not None else None,
        ),
        regional_volume=volume_status(found, instance),
        recommended_action=_recommended(found, pool, cpu),
        current_failover=current,
        last_failover=next((one for one in recent if one is not current), None),
        limits=DumontLimits(
            found.failovers_24h, found.failovers_24h_max, max(0, found.failovers_24h_max - found.failovers_24h)
        ),
        circuit_breakers={rung: "open" if rung in found.open_breakers else "closed" for rung in ETA_S},
    )


def _recommended(found: Readiness, pool: PoolView, cpu: CpuStandbyView | None) -> str | None:
    if found.effective_strategy == "disabled":
        return "Enable failover: PUT /failover/settings/machines/{id}"
    is_limited = any(blocker.rung is None for blocker in found.blockers)  # nothing but time helps
    if is_limited or any(step.is_ready for step in found.plan if step.rung != "cloud_storage"):
        return None
    if cpu is not None and cpu.state == "failover_active" and cpu.way_back is None:
        return "Look for a GPU again: POST /standby/recover/{id}"
    if cpu is not None and cpu.way_back is not None:
        return None
    if found.effective_strategy == "regional_volume":
        return "Move it to a volume: POST /instances/{id}/hibernate, then POST /instances/{id}/wake"
    if cpu is None and not any(step.rung == "warm_pool" and step.reason != "not_in_strategy" for step in found.plan):
        return "Configure a CPU standby: POST /standby/provision/{id}"
    if standby_readiness.is_withheld(found) and cpu is not None and cpu.captured_at is not None:
        return "If its GPU is lost, take over by hand: POST /failover/execute with force_strategy cpu_standby"
    if pool.status == "disabled":
        return "Provision a warm pool: POST /warmpool/provision"
    return f"Inspect the warm pool ({pool.status}{': ' + pool.error if pool.error else ''}): GET /warmpool/status"


class DumontReport(Struct, frozen=True, kw_only=True):
    total: int
    succeeded: int
    failed: int
    success_rate: float | None
    mttr_ms: int | None
    primary_cause: str | None
    average_phase_ms: dict[str, int]
    last: list[DumontFailover]


def report(found: FailoverList) -> DumontReport:
    over = found.succeeded + found.failed
    causes = Counter(view.reason for view in found.items)
    sums: dict[str, list[int]] = {}
    for view in found.items:
        for phase in view.phases:
            sums.setdefault(phase.phase, []).append(phase.took_ms)
    return DumontReport(
        total=found.total,
        succeeded=found.succeeded,
        failed=found.failed,
        success_rate=round(found.succeeded / over, 6) if over else None,
        mttr_ms=found.mttr_ms,
        primary_cause=causes.most_common(1)[0][0] if causes else None,
        average_phase_ms={phase: round(sum(times) / len(times)) for phase, times in sums.items()},
        last=[failover(view, None) for view in found.items],
    )
