"""CPU standbys: asked for once, kept while primaries come and go, promoted without a GPU; few syncs are facts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.instance.commands import (
    DisableCpuStandby,
    EnableCpuStandby,
    PromoteCpuStandby,
    ReportRestored,
    ReportSync,
    ReportVolumeShared,
    RequestCpuStandby,
)
from proto.instance.events import (
    CpuStandbyDisabled,
    CpuStandbyEnabled,
    InstanceReady,
    InstanceRecovering,
    InstanceStarting,
    MachineDestroyRequested,
    MachinePromoted,
    MachineRequested,
    MachineRestored,
    PromotionFailed,
    StandbyFailed,
    SyncCompleted,
    SyncStarted,
)
from proto.instance.return_events import ReturnAbandoned, ReturnWanted
from services.instance.decider import INSTANCE
from services.instance.decider.cpu_standby import CYCLES_PER_FACT
from tests.spec.instance.controls import (
    ACCOUNT,
    INSTANCE_ID,
    MACHINE,
    OFFER,
    OTHER_ACCOUNT,
    PREEMPTED,
    START,
    TO_READY,
    after,
    comes_up,
    minutes,
)

CPU = "mach_cpu"
CPU_OFFER = replace(OFFER, offer_id="offer_cpu", host_id="host_cpu", gpu="CPU", kind="cpu", region="EU-DE-01")
ENABLE = EnableCpuStandby(now=minutes(1), instance_id=INSTANCE_ID, account_id=ACCOUNT, sync_interval_s=30)
DISABLE = DisableCpuStandby(now=minutes(9), instance_id=INSTANCE_ID, account_id=ACCOUNT)
REQUEST = RequestCpuStandby(now=minutes(1), instance_id=INSTANCE_ID, machine_id=CPU, offers=(CPU_OFFER,))
UP = comes_up(minutes(2), CPU, CPU_OFFER)
SYNCED = ReportSync(
    now=minutes(3),
    instance_id=INSTANCE_ID,
    machine_id=MACHINE,
    standby_machine_id=CPU,
    cycle=100,
    ok=True,
    took_ms=12,
    files=3,
    bytes=400,
    captured_at=minutes(3),
)
RESTORED = ReportRestored(
    now=minutes(5),
    instance_id=INSTANCE_ID,
    machine_id=CPU,
    source="standby",
    captured_at=minutes(3),
    files=3,
    bytes=3_000,
    took_ms=9,
)
PROMOTE = PromoteCpuStandby(
    now=minutes(4), instance_id=INSTANCE_ID, replaces=MACHINE, failover_id="fo_1", give_up_at=minutes(6)
)
IN_SYNC = (*TO_READY, ENABLE, REQUEST, *UP, SYNCED)
ON_CPU = (*IN_SYNC, PREEMPTED, PROMOTE, RESTORED, replace(UP[2], now=minutes(5)))


def given(*commands: object) -> Given:
    return spec(INSTANCE).given(*after(*commands))


def state(*commands: object):
    folded = INSTANCE.initial
    for event in after(*commands):
        folded = INSTANCE.evolve(folded, event)
    return folded


def test_a_cpu_machine_is_rented_once_for_whom_it_is_enabled() -> None:
    given(*TO_READY).when(REQUEST).then()
    given(*TO_READY).when(replace(ENABLE, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")
    given(*TO_READY).when(ENABLE).then_kinds(CpuStandbyEnabled).when(ENABLE).then()
    (asked,) = INSTANCE.decide(state(*TO_READY, ENABLE), REQUEST)
    assert isinstance(asked, MachineRequested)
    assert (asked.role, asked.spec.kind, asked.spec.start_command) == ("cpu_standby", "cpu", "")
    given(*TO_READY, ENABLE).when(replace(REQUEST, offers=())).then()
    given(*TO_READY, ENABLE, REQUEST).when(replace(REQUEST, machine_id="mach_other")).then()


def test_of_many_syncs_the_first_and_one_in_twenty_are_facts_and_every_change() -> None:
    given(*TO_READY, ENABLE, REQUEST, *UP).when(SYNCED).then_kinds(SyncStarted, SyncCompleted).when(SYNCED).then()
    for cycle in range(101, 100 + CYCLES_PER_FACT):
        given(*IN_SYNC).when(replace(SYNCED, cycle=cycle)).then()
    given(*IN_SYNC).when(replace(SYNCED, cycle=100 + CYCLES_PER_FACT)).then_kinds(SyncCompleted)
    broken = replace(SYNCED, cycle=101, ok=False, error="ConnectionLost")
    story = given(*IN_SYNC).when(broken).then_kinds(SyncCompleted)
    story.when(replace(broken, cycle=102)).then()
    story.when(replace(SYNCED, cycle=102)).then_kinds(SyncCompleted)


def test_a_late_machine_cannot_report_a_sync() -> None:
    given(*IN_SYNC, PREEMPTED).when(replace(SYNCED, cycle=200)).refused("MACHINE_FENCED")
    given(*IN_SYNC).when(replace(SYNCED, machine_id="mach_0")).refused("MACHINE_FENCED")


def test_the_standby_takes_over_and_is_ready_when_it_has_checked_its_files() -> None:
    past = (*IN_SYNC, PREEMPTED)
    given(*past).when(PROMOTE).then_kinds(InstanceRecovering, MachinePromoted, MachineDestroyRequested)
    taken = (*past, PROMOTE)
    given(*taken).when(PROMOTE).then()
    healthy = replace(UP[2], now=minutes(5))
    given(*taken).when(healthy).then()
    given(*taken).when(RESTORED).then_kinds(MachineRestored)
    ready = INSTANCE.decide(state(*taken, RESTORED), healthy)[1]
    assert isinstance(ready, InstanceReady)
    assert (ready.on_cpu, ready.restored_at, ready.machine_id) == (True, minutes(3), CPU)
    assert ready.generation > 1


def test_a_start_after_a_loss_takes_the_standby_that_has_the_files_and_then_looks_for_a_gpu() -> None:
    """A new machine would be filled from an older snapshot, or from nothing, and overwrite what the standby has."""
    past = (*IN_SYNC, PREEMPTED)
    taken = (InstanceStarting, MachinePromoted, MachineDestroyRequested, ReturnWanted, ReturnAbandoned)
    given(*past).when(START).then_kinds(*taken).when(START).then()
    said = INSTANCE.decide(state(*past, START, RESTORED), replace(UP[2], now=minutes(5)))
    assert [event.on_cpu for event in said if isinstance(event, InstanceReady)] == [True]
    assert isinstance(said[-1], ReturnWanted)


def test_a_start_takes_a_new_machine_when_the_standby_has_nothing_or_the_volume_has_all() -> None:
    never_synced = (*TO_READY, ENABLE, REQUEST, *UP, PREEMPTED)
    shared = ReportVolumeShared(
        now=minutes(3), instance_id=INSTANCE_ID, provider="sandbox", host_id=OFFER.host_id, volume_id="vol_1", size_gb=9
    )
    for past, start in (
        (never_synced, START),
        ((*IN_SYNC, shared, PREEMPTED), replace(START, offers=(OFFER,))),  # its volume has more than any copy
    ):
        requested = [event for event in INSTANCE.decide(state(*past), start) if isinstance(event, MachineRequested)]
        assert [event.role for event in requested] == ["primary"]


@pytest.mark.parametrize(
    ("past", "reason"),
    [
        ((*TO_READY, PREEMPTED), "standby_not_ready"),
        ((*TO_READY, ENABLE, REQUEST, *UP, PREEMPTED), "never_synced"),
        (IN_SYNC, "instance_ready"),
    ],
)
def test_a_failover_is_told_once_why_there_is_no_standby(past: tuple[object, ...], reason: str) -> None:
    (said,) = INSTANCE.decide(state(*past), PROMOTE)
    assert isinstance(said, PromotionFailed)
    assert (said.reason, said.rung) == (reason, "cpu_standby")
    given(*past, PROMOTE).when(PROMOTE).then()


def test_switching_it_off_gives_the_machine_back() -> None:
    given(*IN_SYNC).when(DISABLE).then_kinds(CpuStandbyDisabled, MachineDestroyRequested, StandbyFailed)
    given(*IN_SYNC, DISABLE).when(DISABLE).then()
