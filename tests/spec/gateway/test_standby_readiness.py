"""Readiness tells the truth about a CPU standby: there, running, in sync, and not stopped by anything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from proto.failover.queries import Blocker, PlanStep, Readiness
from proto.failover.words import PoolSeen
from proto.instance.copy_queries import CpuStandbyView
from services.gateway.dialects.dumont import standby_readiness
from services.gateway.dialects.dumont.standby_readiness import with_cpu_standby

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PLAN = [
    PlanStep("warm_pool", is_ready=False, reason="not_configured"),
    PlanStep("cpu_standby", is_ready=True, reason=""),
    PlanStep("cloud_storage", is_ready=False, reason="not_in_strategy"),
]
FOUND = Readiness(
    instance_id="inst_1",
    effective_strategy="both",
    warm_pool_ready=False,
    is_ready=True,
    pool=PoolSeen(),
    blockers=[Blocker("warm_pool", "not_configured")],
    plan=PLAN,
    failovers_24h=0,
    failovers_24h_max=5,
    open_breakers=[],
)
VIEW = CpuStandbyView(
    "inst_1",
    "ready",
    30,
    "mach_9",
    is_running=True,
    sync_age_max_s=90,
    copies=3,
    captured_at=NOW - timedelta(seconds=31),
)


def test_a_standby_in_sync_is_ready() -> None:
    told = with_cpu_standby(FOUND, VIEW, NOW)
    assert told == FOUND
    assert standby_readiness.is_ready(told)
    shown = standby_readiness.shown(VIEW, NOW)
    assert (shown.association_exists, shown.cpu_vm_running, shown.last_sync_age_seconds) == (True, True, 31)


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        (None, "no_association"),
        (replace(VIEW, state="failover_active"), "failover_active"),
        (replace(VIEW, is_running=False), "cpu_vm_not_running"),
        (replace(VIEW, captured_at=None), "never_synced"),
        (replace(VIEW, captured_at=NOW - timedelta(seconds=92)), "sync_too_old"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_ready(view: CpuStandbyView | None, reason: str) -> None:
    told = with_cpu_standby(FOUND, view, NOW)
    assert Blocker("cpu_standby", reason) in told.blockers
    assert not told.is_ready
    assert not standby_readiness.is_ready(told)


def test_an_open_breaker_and_the_daily_limit_are_blockers_too() -> None:
    spared = replace(FOUND, plan=[PLAN[0], replace(PLAN[1], is_ready=False, reason="breaker_open"), PLAN[2]])
    assert Blocker("cpu_standby", "breaker_open") in with_cpu_standby(spared, VIEW, NOW).blockers
    limited = replace(FOUND, blockers=[Blocker(None, "daily_limit_reached")])
    told = with_cpu_standby(limited, VIEW, NOW)
    assert not told.is_ready
    assert not standby_readiness.is_ready(told)


def test_a_standby_that_waits_to_be_told_is_no_readiness_whatever_it_has() -> None:
    waiting = replace(FOUND, plan=[PLAN[0], replace(PLAN[1], is_ready=False, reason="auto_failover_off"), PLAN[2]])
    told = with_cpu_standby(waiting, VIEW, NOW)
    assert Blocker("cpu_standby", "auto_failover_off") in told.blockers
    assert not told.is_ready
    assert standby_readiness.is_withheld(told)
    empty = with_cpu_standby(waiting, replace(VIEW, captured_at=None), NOW)
    reasons = [blocker.reason for blocker in empty.blockers if blocker.rung == "cpu_standby"]
    assert reasons == ["auto_failover_off", "never_synced"]


@pytest.mark.parametrize("reason", ["not_in_strategy", "fallback_off"])
def test_a_rung_that_the_settings_leave_out_is_not_looked_at(reason: str) -> None:
    without = replace(FOUND, plan=[PLAN[0], replace(PLAN[1], is_ready=False, reason=reason), PLAN[2]])
    assert with_cpu_standby(without, None, NOW) == without
    assert not standby_readiness.is_asked_for(without)
