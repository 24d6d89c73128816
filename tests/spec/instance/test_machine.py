"""What follows when machines come up, fail, are lost or answer late."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import spec
from proto.base import Command
from proto.instance.commands import GiveUpMachine, ReportFailed
from proto.instance.events import (
    InstanceFailed,
    InstanceHealthChecking,
    InstanceInterrupted,
    InstanceReady,
    InstanceRunning,
    InstanceStarted,
    InstanceStarting,
    MachineBooted,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachineRented,
    MachineStopped,
    MachineStopRequested,
)
from services.instance.decider import INSTANCE
from tests.spec.instance.controls import (
    ACCOUNT,
    BOOTED,
    CREATE,
    DELETE,
    DESTROYED,
    GONE,
    HEALTHY,
    INSTANCE_ID,
    MACHINE,
    NOW,
    OFFER,
    PREEMPTED,
    RENTED,
    START,
    STOP,
    STOPPED,
    TO_READY,
    TO_STOPPED,
    after,
    minutes,
)

REJECTED = ReportFailed(
    now=NOW,
    instance_id=INSTANCE_ID,
    machine_id=MACHINE,
    stage="rejected",
    code="OFFER_UNAVAILABLE",
    reason="every offer was gone",
    offers=(OFFER,),
)


def give_up(at_minutes: int) -> GiveUpMachine:
    return GiveUpMachine(now=minutes(at_minutes), instance_id=INSTANCE_ID, machine_id=MACHINE)


def test_a_machine_comes_up_step_by_step() -> None:
    story = spec(INSTANCE).given(*after(CREATE)).when(RENTED).then_kinds(MachineRented, InstanceStarting)
    story = story.when(BOOTED).then_kinds(MachineBooted, InstanceRunning, InstanceHealthChecking)
    story.when(HEALTHY).then_kinds(MachineHealthy, InstanceReady, InstanceStarted)


@pytest.mark.parametrize("report", TO_READY[1:])
def test_a_report_heard_again_changes_nothing(report: Command) -> None:
    spec(INSTANCE).given(*after(*TO_READY)).when(report).then_nothing()


def test_a_report_out_of_order_changes_nothing() -> None:
    spec(INSTANCE).given(*after(CREATE)).when(BOOTED, HEALTHY).then_nothing()


def test_a_report_about_a_machine_nobody_asked_for_is_refused() -> None:
    spec(INSTANCE).given(*after(CREATE)).when(replace(RENTED, machine_id="mach_9")).refused("MACHINE_NOT_FOUND")


def test_a_machine_that_could_not_be_rented_fails_the_instance() -> None:
    failed = MachineFailed(
        instance_id=INSTANCE_ID, machine_id=MACHINE, stage="rejected", reason="every offer was gone", offers=(OFFER,)
    )
    verdict = InstanceFailed(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="my-instance",
        gpu="RTX 4090",
        code="OFFER_UNAVAILABLE",
        detail="every offer was gone",
    )
    spec(INSTANCE).given(*after(CREATE)).when(REJECTED).then(failed, verdict)


def test_a_machine_that_does_not_become_healthy_is_given_back() -> None:
    failed = replace(REJECTED, stage="connecting", code="HEALTH_CHECK_TIMEOUT", offers=())
    story = spec(INSTANCE).given(*after(CREATE, RENTED, BOOTED)).when(failed)
    story.then_kinds(MachineFailed, MachineDestroyRequested, InstanceFailed)
    assert story.events[0].offers == (OFFER,)


def test_a_machine_is_given_up_when_its_time_is_over_and_not_before() -> None:
    story = spec(INSTANCE).given(*after(CREATE, RENTED)).when(give_up(9)).then_nothing().when(give_up(10))
    story.then_kinds(MachineFailed, MachineDestroyRequested, InstanceFailed)
    assert (story.events[0].stage, story.events[2].code) == ("loading", "STARTUP_TIMEOUT")
    assert story.events[0].took_ms == 600_000


def test_a_healthy_machine_is_not_given_up() -> None:
    spec(INSTANCE).given(*after(*TO_READY)).when(give_up(11)).then_nothing()


def test_a_contract_made_after_the_machine_was_given_up_is_given_back() -> None:
    given = spec(INSTANCE).given(*after(CREATE, give_up(10)))
    given.when(RENTED).then_kinds(MachineRented, MachineDestroyRequested)


def test_a_restart_that_fails_keeps_the_disk_and_may_be_tried_again() -> None:
    story = spec(INSTANCE).given(*after(*TO_STOPPED, START)).when(REJECTED)
    story = story.then_kinds(MachineFailed, MachineStopRequested, InstanceFailed)
    story = story.when(START).refused("INSTANCE_NOT_STARTABLE", advice="wait until its machine is stopped")
    story = story.when(STOPPED).then(MachineStopped(instance_id=INSTANCE_ID, machine_id=MACHINE))
    story.when(START).then_kinds(*[type(event) for event in after(*TO_STOPPED, START)[-2:]])


def test_the_answer_to_an_old_stop_request_does_not_look_like_a_loss() -> None:
    given = spec(INSTANCE).given(*after(*TO_STOPPED, START))
    given.when(STOPPED).then_nothing().when(BOOTED, STOPPED).then_kinds(
        MachineBooted, InstanceRunning, InstanceHealthChecking
    )


@pytest.mark.parametrize("past", [(CREATE, RENTED), (CREATE, RENTED, BOOTED), TO_READY, TO_STOPPED, (*TO_READY, STOP)])
def test_a_machine_that_vanishes_is_lost_for_good(past: tuple[Command, ...]) -> None:
    story = spec(INSTANCE).given(*after(*past)).when(GONE).then_kinds(MachineLost, InstanceInterrupted)
    story.holds(lambda state: state.status == "interrupted" and not any(m.has_contract for m in state.machines))


def test_a_lost_machine_that_vanishes_later_leaves_nothing_to_give_back() -> None:
    story = spec(INSTANCE).given(*after(*TO_READY, PREEMPTED)).when(GONE)
    story.then(MachineDestroyed(instance_id=INSTANCE_ID, machine_id=MACHINE)).when(GONE).then_nothing()


def test_a_wanted_stop_is_no_interruption() -> None:
    spec(INSTANCE).given(*after(*TO_STOPPED)).when(PREEMPTED).then_nothing()


def test_a_wanted_destroy_is_no_interruption() -> None:
    spec(INSTANCE).given(*after(*TO_READY, DELETE, DESTROYED)).when(GONE).then_nothing()


def test_health_reported_after_a_stop_was_wished_does_not_bring_it_back() -> None:
    spec(INSTANCE).given(*after(CREATE, RENTED, BOOTED, STOP)).when(HEALTHY).then_nothing()
