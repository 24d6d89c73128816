"""Standby machines: asked for, promoted in one commit, given back; and agents that fall silent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.instance.commands import (
    GiveUpMachine,
    PromoteMachine,
    ReleaseStandby,
    ReportBooted,
    ReportFailed,
    ReportHealthy,
    ReportHeard,
    ReportRented,
    ReportSilence,
    ReportStopped,
    ReportVolumeReleased,
    ReportVolumeShared,
    RequestStandby,
    StartInstance,
)
from proto.instance.events import (
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
    InstanceDeleted,
    InstanceInterrupted,
    InstanceMigrated,
    InstanceReady,
    InstanceRecovering,
    InstanceStarted,
    InstanceStarting,
    MachineBooted,
    MachineCancelled,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachinePromoted,
    MachineRented,
    MachineRequested,
    MachineStartRequested,
    MachineStopped,
    MachineStopRequested,
    PromotionFailed,
    PromotionPlanned,
    StandbyFailed,
    StandbyReady,
    VolumeReleased,
    VolumeReleaseRequested,
    VolumeShared,
)
from services.instance.decider import INSTANCE
from tests.spec.instance.controls import (
    ACCOUNT,
    DELETE,
    DESTROYED,
    ENDPOINTS,
    INSTANCE_ID,
    MACHINE,
    MACHINE_2,
    NOW,
    OFFER,
    OFFER_2,
    PREEMPTED,
    STOP,
    TO_READY,
    after,
    minutes,
)

REQUEST = RequestStandby(
    now=NOW,
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    primary_machine_id=MACHINE,
    host_id="host_1",
    mode="hot",
    volume_gb=50,
    offers=(OFFER,),
)
SHARED = ReportVolumeShared(
    now=NOW, instance_id=INSTANCE_ID, provider="sandbox", host_id="host_1", volume_id="vol_1", size_gb=50
)
RENTED = ReportRented(
    now=NOW,
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    provider="sandbox",
    provider_machine_id="sb_2",
    offer=OFFER,
)
BOOTED = ReportBooted(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE_2, endpoints=ENDPOINTS)
HEALTHY = ReportHealthy(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE_2)
OFF = ReportStopped(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE_2, requested=True)
PROMOTE = PromoteMachine(
    now=NOW,
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    replaces=MACHINE,
    failover_id="fo_1",
    give_up_at=NOW + timedelta(seconds=120),
)
FAILED = ReportFailed(
    now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE_2, stage="rejected", code="OFFER_UNAVAILABLE", reason="gone"
)
TO_HOT = (*TO_READY, REQUEST, SHARED, RENTED, BOOTED, HEALTHY)
TO_COLD = (*TO_READY, replace(REQUEST, mode="stopped"), SHARED, RENTED, BOOTED, HEALTHY, OFF)
SILENCE = ReportSilence(
    now=minutes(2), instance_id=INSTANCE_ID, machine_id=MACHINE, last_seen_at=NOW, missed=3, is_lost=False
)


def given(*commands: object) -> Given:
    return spec(INSTANCE).given(*after(*commands))


def test_a_hot_standby_comes_up_without_a_word_about_the_instance() -> None:
    story = given(*TO_READY).when(REQUEST).then_kinds(MachineRequested).when(SHARED).then_kinds(VolumeShared)
    story = story.when(RENTED).then_kinds(MachineRented).when(BOOTED).then_kinds(MachineBooted)
    ready = story.when(HEALTHY).then_kinds(MachineHealthy, StandbyReady)
    ready.holds(lambda state: state.status == "ready" and state.primary.machine_id == MACHINE)
    assert after(*TO_HOT)[-1] == StandbyReady(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        machine_id=MACHINE_2,
        host_id="host_1",
        volume_id="vol_1",
        mode="hot",
        price_usd_micros_per_hour=380_000,
        volume_gb=50,
    )


def test_a_stopped_standby_is_tried_out_before_it_is_ready() -> None:
    story = given(*TO_COLD[:-2]).when(HEALTHY).then_kinds(MachineHealthy, MachineStopRequested)
    story.when(OFF).then_kinds(MachineStopped, StandbyReady)


def test_a_standby_has_a_generation_above_all_before_it() -> None:
    requested = given(*TO_READY).when(REQUEST).events[0]
    assert (requested.role, requested.generation, requested.exact) == ("standby", 2, True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"primary_machine_id": "mach_other"}, "primary_not_ready"),
        ({"offers": ()}, "no_gpu_on_host"),
    ],
)
def test_a_standby_that_cannot_be_had_is_refused_once(change: dict, reason: str) -> None:
    no = StandbyFailed(instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id=MACHINE_2, reason=reason)
    given(*TO_READY).when(replace(REQUEST, **change)).then(no).when(REQUEST).then_nothing()


def test_a_lost_primary_is_replaced_in_one_commit_and_what_it_left_is_given_back() -> None:
    story = given(*TO_HOT, PREEMPTED).when(PROMOTE)
    recovering, promoted, given_back = story.events
    assert recovering == InstanceRecovering(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="my-instance",
        gpu="RTX 4090",
        machine_id=MACHINE_2,
        generation=2,
        failover_id="fo_1",
    )
    assert (promoted.generation, promoted.replaces) == (2, MACHINE)
    assert isinstance(given_back, MachineDestroyRequested)
    assert given_back.machine_id == MACHINE
    up = story.then_kinds(InstanceRecovering, MachinePromoted, MachineDestroyRequested).when(PROMOTE).then_nothing()
    ready = up.when(HEALTHY).then_kinds(MachineHealthy, InstanceReady, InstanceStarted, InstanceMigrated)
    ready.holds(lambda state: state.primary.machine_id == MACHINE_2 and state.primary.generation == 2)


def test_a_stopped_standby_is_started_when_it_takes_over() -> None:
    story = given(*TO_COLD, PREEMPTED).when(PROMOTE)
    up = story.then_kinds(InstanceRecovering, MachinePromoted, MachineStartRequested, MachineDestroyRequested)
    booted = up.when(BOOTED).then_kinds(MachineBooted)
    booted.when(HEALTHY).then_kinds(MachineHealthy, InstanceReady, InstanceStarted, InstanceMigrated)


@pytest.mark.parametrize("end", [FAILED, GiveUpMachine(now=minutes(3), instance_id=INSTANCE_ID, machine_id=MACHINE_2)])
def test_a_standby_that_does_not_come_up_leaves_the_instance_interrupted(end: object) -> None:
    story = given(*TO_COLD, PREEMPTED, PROMOTE).when(end)
    story.then_kinds(MachineFailed, MachineDestroyRequested, PromotionFailed).holds(
        lambda state: state.status == "interrupted"
    )


def test_losing_the_standby_while_it_takes_over_is_not_a_second_interruption() -> None:
    story = given(*TO_HOT, PREEMPTED, PROMOTE).when(replace(PREEMPTED, machine_id=MACHINE_2))
    story.then_kinds(MachineLost, PromotionFailed)


def test_a_wished_failover_gives_the_working_machine_up_only_for_a_standby_that_is_up() -> None:
    story = given(*TO_HOT).when(PROMOTE)
    story.then_kinds(MachineLost, InstanceInterrupted, MachineDestroyRequested, InstanceRecovering, MachinePromoted)
    assert story.events[1].failover_id == "fo_1"
    cold = given(*TO_COLD).when(PROMOTE).then_kinds(PromotionPlanned, MachineStartRequested)
    cold.when(PROMOTE).then_nothing()
    cold.when(FAILED).then_kinds(MachineFailed, MachineDestroyRequested, StandbyFailed, PromotionFailed).holds(
        lambda state: state.status == "ready" and state.primary.machine_id == MACHINE
    )
    up = cold.when(BOOTED).then_kinds(MachineBooted).when(HEALTHY)
    up.then_kinds(
        MachineHealthy, MachineLost, InstanceInterrupted, MachineDestroyRequested, InstanceRecovering, MachinePromoted
    )


@pytest.mark.parametrize(
    ("past", "reason"),
    [
        ((*TO_READY, PREEMPTED), "standby_not_ready"),
        ((*TO_HOT, STOP), "instance_stopping"),
        (
            (*TO_HOT, PREEMPTED, StartInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id="m3")),
            "",
        ),
    ],
)
def test_a_late_promotion_is_answered_and_takes_no_healthy_machine_away(past: tuple, reason: str) -> None:
    story = given(*past).when(PROMOTE)
    if not reason:
        story.then_nothing()  # the customer's start has promoted it already
        return
    assert story.events[0].reason == reason
    story.then_kinds(PromotionFailed).when(PROMOTE).then_nothing()


def test_a_claim_that_was_answered_long_ago_is_not_answered_again() -> None:
    """A warm pool that is killed may tell an older claim again; a plan that is under way must not fall to it."""
    declined = given(*TO_COLD).when(replace(PROMOTE, failover_id="fo_0", replaces="mach_old"))
    planned = declined.then_kinds(PromotionFailed).when(PROMOTE).then_kinds(PromotionPlanned, MachineStartRequested)
    planned.when(replace(PROMOTE, failover_id="fo_0", replaces="mach_old")).then_nothing()


def test_a_promotion_of_a_machine_that_was_replaced_meanwhile_is_declined() -> None:
    assert given(*TO_HOT).when(replace(PROMOTE, replaces="mach_old")).events[0].reason == "already_replaced"


def test_the_customers_start_of_an_interrupted_instance_uses_its_standby() -> None:
    start = StartInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id="mach_3", offers=(OFFER_2,))
    story = given(*TO_HOT, PREEMPTED).when(start)
    story.then_kinds(InstanceStarting, MachinePromoted, MachineDestroyRequested).when(start).then_nothing()


def test_a_start_on_a_new_machine_gives_back_a_standby_that_is_not_up() -> None:
    start = StartInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id="mach_3", offers=(OFFER_2,))
    story = given(*TO_READY, REQUEST, PREEMPTED).when(start)
    story.then_kinds(InstanceStarting, MachineDestroyRequested, MachineCancelled, StandbyFailed, MachineRequested)
    assert story.events[-1].generation == 3


def test_a_lost_standby_is_given_back_and_told() -> None:
    story = given(*TO_HOT).when(replace(PREEMPTED, machine_id=MACHINE_2))
    story.then_kinds(MachineLost, MachineDestroyRequested, StandbyFailed)


def test_a_released_standby_is_given_back_and_a_primary_never() -> None:
    release = ReleaseStandby(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE_2)
    given(*TO_HOT).when(release).then_kinds(MachineDestroyRequested).when(release).then_nothing()
    given(*TO_HOT, PREEMPTED, PROMOTE).when(release).then_nothing()
    given(*TO_HOT).when(replace(release, machine_id=MACHINE)).then_nothing()


def test_a_deleted_instance_gives_its_volumes_back() -> None:
    events = given(*TO_HOT).when(DELETE).events
    assert isinstance(events[-1], VolumeReleaseRequested)
    released = ReportVolumeReleased(now=NOW, instance_id=INSTANCE_ID)
    given(*TO_HOT, DELETE).when(released).then_kinds(VolumeReleased).when(released).then_nothing()


def test_a_silent_agent_is_told_once_and_again_after_it_was_heard() -> None:
    lost = AgentHeartbeatLost(
        instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id=MACHINE, last_seen_at=NOW, missed=3
    )
    heard = ReportHeard(now=minutes(3), instance_id=INSTANCE_ID, machine_id=MACHINE, seen_at=minutes(3))
    story = given(*TO_READY).when(SILENCE).then(lost).when(replace(SILENCE, missed=4)).then_nothing()
    story.when(heard).then_kinds(AgentHeartbeatRestored).when(heard).then_nothing().when(SILENCE).then(lost)


def test_a_silence_that_counts_as_a_loss_interrupts_the_instance() -> None:
    story = given(*TO_READY).when(replace(SILENCE, is_lost=True))
    story.then_kinds(AgentHeartbeatLost, MachineLost, InstanceInterrupted).when(SILENCE).then_nothing()
    assert story.events[-1].reason == "heartbeat_lost"


def test_an_instance_is_deleted_when_the_last_of_its_machines_is_gone() -> None:
    story = given(*TO_HOT, DELETE).when(DESTROYED).then_kinds(MachineDestroyed)
    story.when(replace(DESTROYED, machine_id=MACHINE_2)).then_kinds(MachineDestroyed, InstanceDeleted)


def test_a_standby_may_be_silent() -> None:
    given(*TO_HOT).when(replace(SILENCE, machine_id=MACHINE_2, is_lost=True)).then_nothing()
