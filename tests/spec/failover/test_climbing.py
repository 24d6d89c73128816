"""How a failover goes: started, up the ladder, completed or failed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.failover.commands import NoteCpuStandby, UpdateMachineSettings
from proto.failover.events import (
    CloudStorageSucceeded,
    FailoverCompleted,
    FailoverFailed,
    FailoverStarted,
    GuardClosed,
    InterruptionJoined,
    LadderPlanned,
    PoolNoted,
    RungClaimed,
    RungFailed,
    RungSkipped,
    RungTried,
    SnapshotNoted,
    WarmPoolSucceeded,
)
from proto.failover.words import GlobalSettings, Limits, MachinePatch, PoolSeen, WarmPoolSettings
from services.failover.decider import GUARD
from tests.spec.failover.controls import (
    ACCOUNT,
    CLAIMED,
    DELETED,
    EXECUTE,
    FAILOVER,
    GIVE_UP,
    INSTANCE_ID,
    LOST,
    NOT_AVAILABLE,
    NOW,
    POOL_READY,
    PRIMARY,
    PROMOTION_FAILED,
    READY,
    SNAPSHOT,
    STANDBY,
    STOPPED,
    seconds,
)

REST_SKIPPED = (RungSkipped, RungSkipped, RungSkipped)


def protected() -> Given:
    """A guard that knows a ready pool."""
    return spec(GUARD).given().when(POOL_READY).then_kinds(PoolNoted)


def climbing() -> Given:
    return protected().when(LOST).then_kinds(FailoverStarted, LadderPlanned, RungTried)


def last(given: Given, command: object) -> FailoverCompleted | FailoverFailed:
    event = given.when(command).events[-1]
    assert isinstance(event, FailoverCompleted | FailoverFailed)
    return event


def test_a_loss_of_a_protected_instance_asks_the_warm_pool_first() -> None:
    tried = climbing_events()[-1]
    assert tried == RungTried(
        failover_id=FAILOVER,
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        rung="warm_pool",
        machine_id=PRIMARY,
        tried_at=NOW,
        give_up_at=seconds(120),
    )


def climbing_events() -> list:
    return protected().when(LOST).events


def test_the_instance_ready_on_the_claimed_standby_completes_the_failover_with_its_timings() -> None:
    story = climbing().when(CLAIMED).then_kinds(RungClaimed).when(READY)
    succeeded, completed = story.events
    assert isinstance(succeeded, WarmPoolSucceeded)
    assert isinstance(completed, FailoverCompleted)
    assert (completed.machine_id, completed.generation, completed.total_ms) == (STANDBY, 2, 35)
    assert completed.data_loss_window_s == 0
    assert [(phase.phase, phase.took_ms) for phase in completed.phases] == [
        ("warm_pool_check", 10),
        ("warm_pool_failover", 25),
    ]
    assert [attempt.outcome for attempt in completed.attempts] == ["succeeded"]


def test_without_a_pool_every_rung_is_skipped_with_its_reason_and_the_failover_fails() -> None:
    story = spec(GUARD).given().when(LOST)
    story.then_kinds(FailoverStarted, LadderPlanned, RungSkipped, *REST_SKIPPED, FailoverFailed)
    failed = story.events[-1]
    assert failed.error == "every_rung_failed"
    assert [(attempt.rung, attempt.reason) for attempt in failed.attempts] == [
        ("warm_pool", "not_configured"),
        ("cpu_standby", "not_configured"),
        ("regional_volume", "not_in_strategy"),
        ("cloud_storage", "not_in_strategy"),
    ]


def test_a_cpu_standby_that_may_not_stand_in_is_passed_over_with_that_reason() -> None:
    account = GlobalSettings(warm_pool=WarmPoolSettings(fallback_to_cpu_standby=False))
    in_sync = NoteCpuStandby(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id="mach_cpu")
    failed = spec(GUARD).given().when(in_sync, replace(LOST, settings=account)).events[-1]
    assert ("cpu_standby", "fallback_off") in [(attempt.rung, attempt.reason) for attempt in failed.attempts]


@pytest.mark.parametrize(
    ("account", "is_quiet"),
    [
        (GlobalSettings(), False),
        (GlobalSettings(notify_on_failover=False), True),
        (GlobalSettings(notify_channels=()), True),
    ],
)
def test_what_is_said_of_a_failover_says_whether_its_account_wants_to_be_told(
    account: GlobalSettings, is_quiet: bool
) -> None:
    lost = replace(LOST, settings=account)
    helped = protected().when(lost).then_kinds(FailoverStarted, LadderPlanned, RungTried)
    told = [*protected().when(lost).events, *helped.when(CLAIMED, READY).events, *helped.when(GIVE_UP).events]
    public = (FailoverStarted, WarmPoolSucceeded, FailoverCompleted, FailoverFailed)
    assert [one.is_quiet for one in told if isinstance(one, public)] == [is_quiet] * len(public)


@pytest.mark.parametrize(("command", "kind"), [(NOT_AVAILABLE, RungSkipped), (PROMOTION_FAILED, RungFailed)])
def test_a_rung_that_has_nothing_or_fails_is_left_for_the_next(command: object, kind: type) -> None:
    climbing().when(command).then_kinds(kind, *REST_SKIPPED, FailoverFailed)


def test_a_rung_that_says_nothing_is_given_up_when_its_time_is_over() -> None:
    story = climbing().when(replace(GIVE_UP, now=seconds(149))).then_nothing()
    story.when(GIVE_UP).then_kinds(RungFailed, *REST_SKIPPED, FailoverFailed)


def test_a_late_answer_of_a_failover_that_is_over_changes_nothing() -> None:
    over = climbing().when(GIVE_UP).then_kinds(RungFailed, *REST_SKIPPED, FailoverFailed)
    for late in (CLAIMED, READY, NOT_AVAILABLE, PROMOTION_FAILED, GIVE_UP, LOST):
        over.when(late).then_nothing()
    another = climbing()
    for late in (CLAIMED, NOT_AVAILABLE, PROMOTION_FAILED, GIVE_UP):
        another.when(replace(late, failover_id="fo_0")).then_nothing()


def test_the_customers_own_start_is_faster_and_the_failover_gives_way() -> None:
    assert last(climbing(), replace(READY, machine_id="mach_other")).error == "superseded"


def test_a_loss_during_a_failover_joins_it() -> None:
    joined = InterruptionJoined(
        failover_id=FAILOVER, instance_id=INSTANCE_ID, joined_id="fo_2", machine_id=LOST.machine_id
    )
    second = replace(LOST, failover_id="fo_2")
    climbing().when(second).then(joined).when(second).then_nothing()


def test_the_loss_of_the_claimed_standby_ends_its_rung() -> None:
    """Simulated seed 2630: the customer's start had promoted the standby, so nobody said that its promotion failed."""
    lost = replace(LOST, failover_id="fo_2", machine_id=STANDBY)
    outcome = Given(GUARD, climbing().when(CLAIMED).state).when(lost)
    assert [type(event) for event in outcome.events[:2]] == [InterruptionJoined, RungFailed]
    assert isinstance(outcome.events[-1], FailoverFailed)
    Given(GUARD, outcome.state).when(lost).then_nothing()


def test_the_loss_that_a_wished_failover_makes_is_its_own() -> None:
    story = protected().when(EXECUTE).then_kinds(FailoverStarted, LadderPlanned, RungTried)
    story.when(replace(LOST, reason="user_test")).then_nothing()


def test_losses_come_too_fast_and_the_failover_fails_at_once() -> None:
    over = climbing().when(CLAIMED, READY).then_kinds(RungClaimed, WarmPoolSucceeded, FailoverCompleted)
    soon = replace(LOST, failover_id="fo_2", machine_id=STANDBY, now=seconds(299))
    assert last(over, soon).error == "limit_reached"
    later = replace(soon, now=seconds(301))
    over.when(later).then_kinds(FailoverStarted, LadderPlanned, RungTried)


def test_a_failover_that_had_nothing_to_try_does_not_keep_the_next_from_being_tried() -> None:
    """A customer who asked for one before there was a pool was told to wait 300 s, and so was the real loss."""
    nothing = spec(GUARD).given().when(EXECUTE)
    assert not any(isinstance(event, RungTried) for event in nothing.events)
    assert isinstance(nothing.events[-1], FailoverFailed)
    soon = replace(LOST, failover_id="fo_2", now=seconds(5))
    provisioned = Given(GUARD, nothing.state).when(POOL_READY).then_kinds(PoolNoted)
    provisioned.when(soon).then_kinds(FailoverStarted, LadderPlanned, RungTried)


def test_five_failovers_a_day_are_enough() -> None:
    story, hour = protected(), 3_600
    for number in range(5):
        lost = replace(LOST, failover_id=f"fo_{number}", now=seconds(number * hour))
        story = story.when(lost, replace(STOPPED, now=lost.now)).then_kinds(
            FailoverStarted, LadderPlanned, RungTried, FailoverFailed
        )
    assert last(story, replace(LOST, failover_id="fo_9", now=seconds(23 * hour))).error == "limit_reached"
    refused = replace(EXECUTE, failover_id="fo_9", now=seconds(23 * hour))
    story.when(refused).refused("FAILOVER_LIMIT_REACHED", retry_after_s=hour)
    story.when(replace(refused, now=seconds(24 * hour + 1))).then_kinds(FailoverStarted, LadderPlanned, RungTried)


def test_a_rung_that_failed_three_times_in_a_row_is_spared_for_a_while() -> None:
    story, limits = protected(), Limits(spacing_s=0)
    for number in range(3):
        lost = replace(LOST, failover_id=f"fo_{number}", limits=limits)
        failed = replace(PROMOTION_FAILED, failover_id=f"fo_{number}")
        story.when(lost).then_kinds(FailoverStarted, LadderPlanned, RungTried)
        story = Given(GUARD, story.when(lost, failed).state)
    events = story.when(replace(LOST, failover_id="fo_9", limits=limits)).events
    assert next(e.reason for e in events if isinstance(e, RungSkipped)) == "breaker_open"
    later = replace(LOST, failover_id="fo_9", limits=limits, now=seconds(300))
    story.when(later).then_kinds(FailoverStarted, LadderPlanned, RungTried)


def test_a_failover_under_way_refuses_another_wish() -> None:
    other = replace(EXECUTE, failover_id="fo_2")
    climbing().when(other).refused("FAILOVER_IN_PROGRESS", failover_id=FAILOVER)
    climbing().when(replace(other, instance_status="recovering")).refused("FAILOVER_IN_PROGRESS")


def test_a_wish_said_again_meets_its_own_failover_wherever_the_instance_is_by_then() -> None:
    again = replace(EXECUTE, instance_status="recovering", machine_id=STANDBY)
    climbing().when(again).then()
    protected().when(again).refused("INVALID_STATE", status="recovering")
    protected().when(replace(EXECUTE, machine_id="")).refused("INVALID_STATE")


def test_a_disabled_instance_refuses_a_wish_and_answers_a_loss_with_a_failure() -> None:
    off = UpdateMachineSettings(
        now=NOW,
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        patch=MachinePatch(use_global_settings=False, strategy="disabled"),
    )
    story = Given(GUARD, protected().when(off).state)
    story.when(EXECUTE).refused("FAILOVER_DISABLED")
    assert last(story, LOST).error == "disabled"


def test_a_switched_off_pool_is_not_in_the_strategy() -> None:
    settings = GlobalSettings(warm_pool=WarmPoolSettings(enabled=False))
    failed = last(protected(), replace(LOST, settings=settings))
    assert failed.attempts[0].reason == "not_in_strategy"


def test_an_instance_that_is_stopped_or_deleted_needs_no_failover() -> None:
    assert last(climbing(), STOPPED).error == "instance_stopped"
    climbing().when(DELETED).then_kinds(FailoverFailed, GuardClosed).when(DELETED).then_nothing()
    spec(GUARD).given().when(STOPPED, DELETED).then_nothing()


def test_what_was_said_before_the_loss_and_is_heard_again_does_not_end_the_failover() -> None:
    """After a kill the services hear the last half second of PUB again: an earlier machine's `ready` among it."""
    climbing().when(replace(READY, machine_id="mach_older", now=seconds(-1))).then_nothing()
    climbing().when(replace(STOPPED, now=seconds(-1))).then_nothing()


def test_to_another_account_the_instance_does_not_exist() -> None:
    protected().when(replace(EXECUTE, account_id="acct_other")).refused("INSTANCE_NOT_FOUND")


def test_a_pool_that_says_the_same_again_is_not_noted_again() -> None:
    story = protected().when(POOL_READY).then_nothing()
    story.when(replace(POOL_READY, pool=PoolSeen())).then_kinds(PoolNoted)


def test_a_new_machine_filled_from_a_snapshot_completes_the_failover_with_what_is_missing() -> None:
    noted = spec(GUARD).given().when(SNAPSHOT).then_kinds(SnapshotNoted)
    noted.when(SNAPSHOT).then()
    everything = replace(LOST, settings=GlobalSettings(default_strategy="all"))
    said = noted.when(everything)
    asked = said.events[-1]
    assert isinstance(asked, RungTried)
    assert (asked.rung, asked.give_up_at) == ("cloud_storage", seconds(3_600))
    claimed = replace(CLAIMED, rung="cloud_storage", machine_id="mach_9")
    ready = replace(READY, machine_id="mach_9", restored_at=seconds(-12.4))
    climbed = said.then_kinds(FailoverStarted, LadderPlanned, RungSkipped, RungSkipped, RungSkipped, RungTried)
    said = climbed.when(claimed).then_kinds(RungClaimed).when(ready)
    said.then_kinds(CloudStorageSucceeded, FailoverCompleted)
    completed = said.events[-1]
    assert isinstance(completed, FailoverCompleted)
    assert (completed.strategy, completed.data_loss_window_s) == ("cloud_storage", 13)
    assert [phase.phase for phase in completed.phases] == ["cloud_storage_check", "snapshot_restore"]
