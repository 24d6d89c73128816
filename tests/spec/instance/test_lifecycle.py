"""What a customer may wish for an instance, and what comes of it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import spec
from proto.base import Command
from proto.instance.commands import GiveUpMachine, KeepAlive, MarkUsed, ReportFailed, StopIfIdle
from proto.instance.events import (
    InstanceCreated,
    InstanceDeleted,
    InstanceDeleting,
    InstanceInterrupted,
    InstanceKeptAlive,
    InstanceReady,
    InstanceStarting,
    InstanceStopped,
    InstanceStopping,
    InstanceUsed,
    MachineCancelled,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineLost,
    MachineRented,
    MachineRequested,
    MachineStartRequested,
    MachineStopped,
    MachineStopRequested,
)
from proto.instance.words import HealthCheck
from services.instance.decider import INSTANCE
from tests.spec.instance.controls import (
    ACCOUNT,
    BOOTED,
    CREATE,
    DELETE,
    DESTROYED,
    ENDPOINTS,
    GONE,
    HEALTHY,
    INSTANCE_ID,
    MACHINE,
    MACHINE_2,
    NOW,
    OFFER,
    OFFER_2,
    OTHER_ACCOUNT,
    PREEMPTED,
    PROVIDER_ID,
    RENTED,
    SPEC,
    START,
    STOP,
    STOPPED,
    TO_READY,
    TO_STOPPED,
    after,
    minutes,
)

FAILED = ReportFailed(
    now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE, stage="loading", code="STARTUP_FAILED", reason="no image"
)
STOP_REQUESTED = MachineStopRequested(
    instance_id=INSTANCE_ID, machine_id=MACHINE, provider="sandbox", provider_machine_id=PROVIDER_ID
)
DESTROY_REQUESTED = MachineDestroyRequested(
    instance_id=INSTANCE_ID, machine_id=MACHINE, provider="sandbox", provider_machine_id=PROVIDER_ID
)


def stopping(reason: str) -> InstanceStopping:
    return InstanceStopping(
        instance_id=INSTANCE_ID, account_id=ACCOUNT, name="my-instance", gpu="RTX 4090", reason=reason
    )


def test_a_new_instance_asks_for_its_first_machine_and_gives_it_ten_minutes() -> None:
    created = InstanceCreated(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="my-instance",
        gpu="RTX 4090",
        spec=SPEC,
        region="CN-HK-01",
        auto_stop_minutes=20,
        request_hash="hash_1",
        created_at=NOW,
    )
    requested = MachineRequested(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        machine_id=MACHINE,
        role="primary",
        generation=1,
        spec=SPEC,
        offers=(OFFER, OFFER_2),
        requested_at=NOW,
        give_up_at=minutes(10),
    )
    spec(INSTANCE).given().when(CREATE).then(created, requested)


def test_a_create_repeated_with_the_same_body_changes_nothing_even_when_the_market_has_dried_up() -> None:
    again = replace(CREATE, offers=(), no_offer="NO_AVAILABLE_PRODUCTS", machine_id="mach_other")
    spec(INSTANCE).given(*after(CREATE)).when(again).then_nothing()


def test_a_create_repeated_with_another_body_is_a_conflict() -> None:
    again = replace(CREATE, request_hash="hash_2")
    spec(INSTANCE).given(*after(CREATE)).when(again).refused("IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("code", ["PRODUCT_NOT_FOUND", "NO_AVAILABLE_PRODUCTS", "OFFER_UNAVAILABLE"])
def test_a_create_without_offers_is_refused_with_the_markets_reason(code: str) -> None:
    spec(INSTANCE).given().when(replace(CREATE, offers=(), no_offer=code)).refused(code, gpu="RTX 4090")


def test_to_another_account_an_instance_does_not_exist() -> None:
    given = spec(INSTANCE).given(*after(*TO_READY))
    for wish in (STOP, START, DELETE):
        given.when(replace(wish, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")


def test_an_unknown_instance_is_not_found() -> None:
    for wish in (STOP, START, DELETE, RENTED):
        spec(INSTANCE).given().when(wish).refused("INSTANCE_NOT_FOUND", instance_id=INSTANCE_ID)


def test_a_stop_turns_the_machine_off_and_keeps_it() -> None:
    stopped = InstanceStopped(instance_id=INSTANCE_ID, account_id=ACCOUNT, name="my-instance", gpu="RTX 4090")
    off = MachineStopped(instance_id=INSTANCE_ID, machine_id=MACHINE)
    story = spec(INSTANCE).given(*after(*TO_READY)).when(STOP).then(stopping("user_request"), STOP_REQUESTED)
    story.when(STOPPED).then(off, stopped)


@pytest.mark.parametrize("past", [(*TO_READY, STOP), TO_STOPPED])
def test_a_stop_of_what_is_stopping_or_stopped_changes_nothing(past: tuple[Command, ...]) -> None:
    spec(INSTANCE).given(*after(*past)).when(STOP).then_nothing()


def test_nothing_can_be_stopped_before_a_machine_is_rented() -> None:
    spec(INSTANCE).given(*after(CREATE)).when(STOP).refused("INSTANCE_NOT_STOPPABLE", status="creating")


def test_a_failed_instance_cannot_be_stopped_and_says_what_to_do() -> None:
    advice = "start it again, or delete it"
    spec(INSTANCE).given(*after(CREATE, FAILED)).when(STOP).refused("INSTANCE_NOT_STOPPABLE", advice=advice)


def test_a_stopped_instance_starts_on_the_same_machine_with_a_new_time_limit() -> None:
    health_check = HealthCheck(timeout_ms=30_000)
    start = replace(START, now=minutes(60), health_check=health_check, webhook_url="https://example.com/hook")
    starting = InstanceStarting(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="my-instance",
        gpu="RTX 4090",
        machine_id=MACHINE,
        health_check=health_check,
        webhook_url="https://example.com/hook",
    )
    requested = MachineStartRequested(
        instance_id=INSTANCE_ID,
        machine_id=MACHINE,
        provider="sandbox",
        provider_machine_id=PROVIDER_ID,
        requested_at=minutes(60),
        give_up_at=minutes(70),
    )
    story = spec(INSTANCE).given(*after(*TO_STOPPED)).when(start).then(starting, requested)
    story.holds(lambda state: state.health_check == health_check)


def test_a_restarted_machine_boots_and_becomes_ready_again() -> None:
    story = spec(INSTANCE).given(*after(*TO_STOPPED, START)).when(BOOTED, HEALTHY)
    assert [type(event).__name__ for event in story.events][-2:] == ["InstanceReady", "InstanceStarted"]


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_start_of_what_is_coming_up_or_ready_changes_nothing(steps: int) -> None:
    spec(INSTANCE).given(*after(*TO_READY[:steps])).when(START).then_nothing()


def test_a_start_while_stopping_is_refused_with_what_to_do() -> None:
    facts = {"status": "stopping", "advice": "wait until it is stopped"}
    spec(INSTANCE).given(*after(*TO_READY, STOP)).when(START).refused("INSTANCE_NOT_STARTABLE", **facts)


def test_a_failed_instance_starts_on_a_new_machine_of_the_next_generation() -> None:
    story = spec(INSTANCE).given(*after(CREATE, FAILED)).when(START).then_kinds(InstanceStarting, MachineRequested)
    story.holds(lambda state: (state.primary.machine_id, state.primary.generation) == (MACHINE_2, 2))


def test_an_interrupted_instance_starts_on_a_new_machine_and_gives_back_what_the_lost_one_left() -> None:
    given = spec(INSTANCE).given(*after(*TO_READY, PREEMPTED))
    given.when(START).then_kinds(InstanceStarting, MachineDestroyRequested, MachineRequested)


def test_nothing_is_given_back_of_a_machine_that_is_gone() -> None:
    given = spec(INSTANCE).given(*after(*TO_READY, GONE))
    given.when(START).then_kinds(InstanceStarting, MachineRequested)


def test_a_start_that_needs_a_new_machine_is_refused_when_none_is_to_be_had() -> None:
    start = replace(START, offers=(), no_offer="NO_AVAILABLE_PRODUCTS")
    spec(INSTANCE).given(*after(CREATE, FAILED)).when(start).refused("NO_AVAILABLE_PRODUCTS")


def test_a_late_repeat_of_a_start_does_not_request_a_second_machine() -> None:
    failed_again = replace(FAILED, machine_id=MACHINE_2)
    spec(INSTANCE).given(*after(CREATE, FAILED, START, failed_again)).when(START).then_nothing()


def test_an_instance_without_a_contract_is_deleted_at_once() -> None:
    given = spec(INSTANCE).given(*after(CREATE))
    given.when(DELETE).then_kinds(InstanceDeleting, MachineCancelled, InstanceDeleted)


def test_a_deleted_instance_ends_when_its_machine_has_been_given_back() -> None:
    deleted = InstanceDeleted(instance_id=INSTANCE_ID, account_id=ACCOUNT, name="my-instance", gpu="RTX 4090")
    destroyed = MachineDestroyed(instance_id=INSTANCE_ID, machine_id=MACHINE)
    story = spec(INSTANCE).given(*after(*TO_STOPPED)).when(DELETE)
    story = story.then_kinds(InstanceDeleting, MachineDestroyRequested).when(DESTROYED)
    story.then(destroyed, deleted).when(DELETE).then_nothing()


def test_a_machine_given_up_while_coming_up_says_nothing_about_its_host() -> None:
    cancelled = MachineCancelled(instance_id=INSTANCE_ID, machine_id=MACHINE, offer=OFFER)
    deleting = InstanceDeleting(instance_id=INSTANCE_ID, account_id=ACCOUNT, name="my-instance", gpu="RTX 4090")
    given = spec(INSTANCE).given(*after(CREATE, RENTED, BOOTED))
    given.when(DELETE).then(deleting, cancelled, DESTROY_REQUESTED)


def test_a_contract_made_after_the_delete_is_given_back() -> None:
    story = spec(INSTANCE).given(*after(CREATE, DELETE)).when(RENTED).then_kinds(MachineRented, MachineDestroyRequested)
    story.when(DESTROYED).then(MachineDestroyed(instance_id=INSTANCE_ID, machine_id=MACHINE))


def test_a_deleted_instance_can_neither_be_started_nor_stopped_nor_kept() -> None:
    given = spec(INSTANCE).given(*after(CREATE, DELETE))
    given.when(START).refused("INSTANCE_NOT_STARTABLE", status="deleted", advice="create a new instance")
    given.when(STOP).refused("INSTANCE_NOT_STOPPABLE", status="deleted")
    given.when(used(1)).refused("INVALID_STATE", status="deleted")


def used(at_minutes: int, *, now_minutes: int = 60) -> MarkUsed:
    return MarkUsed(now=minutes(now_minutes), instance_id=INSTANCE_ID, account_id=ACCOUNT, used_at=minutes(at_minutes))


def test_a_use_moves_the_auto_stop() -> None:
    fact = InstanceUsed(instance_id=INSTANCE_ID, used_at=minutes(10), auto_stop_at=minutes(30))
    spec(INSTANCE).given(*after(*TO_READY)).when(used(10)).then(fact)


def test_the_last_use_moves_only_forward_and_not_into_the_future() -> None:
    story = spec(INSTANCE).given(*after(*TO_READY, used(10))).when(used(9)).then_nothing()
    fact = InstanceUsed(instance_id=INSTANCE_ID, used_at=minutes(60), auto_stop_at=minutes(80))
    story.when(used(5000)).then(fact)


def keep(count: int) -> KeepAlive:
    return KeepAlive(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, minutes=count)


def test_keep_alive_is_a_floor_under_the_auto_stop() -> None:
    fact = InstanceKeptAlive(instance_id=INSTANCE_ID, until=minutes(90), auto_stop_at=minutes(90))
    story = spec(INSTANCE).given(*after(*TO_READY)).when(keep(90)).then(fact)
    story.when(keep(30)).then_nothing().when(StopIfIdle(now=minutes(89), instance_id=INSTANCE_ID)).then_nothing()


@pytest.mark.parametrize("count", [0, -1, 1441])
def test_keep_alive_lasts_from_one_minute_to_a_day(count: int) -> None:
    spec(INSTANCE).given(*after(*TO_READY)).when(keep(count)).refused("VALIDATION_ERROR", field="minutes")


def test_an_idle_instance_is_stopped_when_its_time_is_over_and_not_before() -> None:
    story = spec(INSTANCE).given(*after(*TO_READY)).when(StopIfIdle(now=minutes(19), instance_id=INSTANCE_ID))
    story = story.then_nothing().when(StopIfIdle(now=minutes(20), instance_id=INSTANCE_ID))
    story.then(stopping("auto_stop"), STOP_REQUESTED)


def test_an_instance_without_auto_stop_is_never_idle() -> None:
    past = after(replace(CREATE, auto_stop_minutes=0), *TO_READY[1:])
    spec(INSTANCE).given(*past).when(StopIfIdle(now=minutes(10_000), instance_id=INSTANCE_ID)).then_nothing()


def test_a_use_before_the_restart_does_not_stop_a_restarted_instance_at_once() -> None:
    restarted = (START, BOOTED, replace(HEALTHY, now=minutes(100)))
    given = spec(INSTANCE).given(*after(*TO_READY, used(5), STOP, STOPPED, *restarted))
    given.when(StopIfIdle(now=minutes(119), instance_id=INSTANCE_ID)).then_nothing()


def test_ready_says_where_and_for_how_much_it_runs() -> None:
    ready = InstanceReady(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="my-instance",
        gpu="RTX 4090",
        machine_id=MACHINE,
        generation=1,
        endpoints=ENDPOINTS,
        ready_at=NOW,
        auto_stop_at=minutes(20),
        region="CN-HK-01",
        price_usd_micros_per_hour=380_000,
        provider="sandbox",
        host_id="host_1",
    )
    assert ready in after(*TO_READY)


def test_an_unwanted_stop_interrupts_the_instance_once() -> None:
    lost = MachineLost(instance_id=INSTANCE_ID, machine_id=MACHINE, reason="spot_preemption")
    interrupted = InstanceInterrupted(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="my-instance",
        gpu="RTX 4090",
        machine_id=MACHINE,
        reason="spot_preemption",
    )
    story = spec(INSTANCE).given(*after(*TO_READY)).when(PREEMPTED).then(lost, interrupted)
    story.when(PREEMPTED).then_nothing().when(
        GiveUpMachine(now=minutes(99), instance_id=INSTANCE_ID, machine_id=MACHINE)
    )
