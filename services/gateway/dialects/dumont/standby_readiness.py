"""Whether an instance's CPU standby would take over now, and why not (contract dumont 3, readiness). Pure.

The failover service knows which standby has had a whole copy; only the instance service knows how old that copy is by
now. Readiness is stricter than a failover, which takes an old copy rather than none.
"""

from __future__ import annotations

from datetime import datetime
from math import floor

from msgspec import Struct
from msgspec.structs import replace

from proto.failover.queries import Blocker, Readiness
from proto.failover.words import Rung
from proto.instance.copy_queries import CpuStandbyView
from services.gateway.dialects import milliseconds_or_none

RUNG: Rung = "cpu_standby"
LEFT_OUT = ("not_in_strategy", "fallback_off")
# The failover service's own reasons: whatever the standby says, they stand.
AUTO_FAILOVER_OFF, BREAKER_OPEN = "auto_failover_off", "breaker_open"


class DumontCpuReadiness(Struct, frozen=True, kw_only=True):
    association_exists: bool
    cpu_vm_running: bool
    state: str | None
    instance_name: str | None
    last_sync_at: str | None
    last_sync_age_seconds: int | None
    last_sync_age_max_seconds: int | None


def is_asked_for(found: Readiness) -> bool:
    """Whether the settings leave this rung in."""
    return any(step.rung == RUNG and step.reason not in LEFT_OUT for step in found.plan)


def is_withheld(found: Readiness) -> bool:
    """Whether it takes over only when somebody says so."""
    return any(step.rung == RUNG and step.reason == AUTO_FAILOVER_OFF for step in found.plan)


def is_ready(found: Readiness, rung: Rung = RUNG) -> bool:
    """This rung, the CPU standby's as `with_cpu_standby` left it, and nothing that stops every rung."""
    stopped = any(blocker.rung is None for blocker in found.blockers)
    return not stopped and any(step.rung == rung and step.is_ready for step in found.plan)


def with_cpu_standby(found: Readiness, view: CpuStandbyView | None, now: datetime) -> Readiness:
    """The plan with what the standby itself says put in."""
    if not is_asked_for(found):
        return found
    step = next(step for step in found.plan if step.rung == RUNG)
    missing = _objection(view, now)
    why = step.reason if step.reason in (AUTO_FAILOVER_OFF, BREAKER_OPEN) else missing or step.reason
    plan = [replace(each, is_ready=not why, reason=why) if each.rung == RUNG else each for each in found.plan]
    blockers = [blocker for blocker in found.blockers if blocker.rung != RUNG]
    # What is missing is told beside our own reason: it would also stop somebody who takes over by hand.
    blockers += [Blocker(RUNG, each) for each in dict.fromkeys((why, missing)) if each]
    stopped = any(blocker.rung is None for blocker in blockers)
    ready = not stopped and any(each.is_ready for each in plan)
    return replace(found, plan=plan, blockers=blockers, is_ready=ready)


def _objection(view: CpuStandbyView | None, now: datetime) -> str:
    """Why this standby may not be counted on, in the order in which one would mend it."""
    if view is None:
        return "no_association"
    if view.state in ("failover_active", "recovering"):
        return "failover_active"
    if not view.is_running:
        return "cpu_vm_not_running"
    if view.captured_at is None:
        return "never_synced"
    if _age_s(view, now) > view.sync_age_max_s:
        return "sync_too_old"
    return ""


def _age_s(view: CpuStandbyView, now: datetime) -> int:
    return 0 if view.captured_at is None else max(0, floor((now - view.captured_at).total_seconds()))


def shown(view: CpuStandbyView | None, now: datetime) -> DumontCpuReadiness:
    if view is None:
        return DumontCpuReadiness(
            association_exists=False,
            cpu_vm_running=False,
            state=None,
            instance_name=None,
            last_sync_at=None,
            last_sync_age_seconds=None,
            last_sync_age_max_seconds=None,
        )
    return DumontCpuReadiness(
        association_exists=True,
        cpu_vm_running=view.is_running,
        state=view.state,
        instance_name=view.machine_id or None,
        last_sync_at=milliseconds_or_none(view.captured_at),
        last_sync_age_seconds=None if view.captured_at is None else _age_s(view, now),
        last_sync_age_max_seconds=view.sync_age_max_s,
    )
