"""`auto_failover` off: the CPU standby is in sync and waits for somebody to say that it takes over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.failover.commands import NoteCpuStandby
from proto.failover.events import (
    CpuStandbyNoted,
    CpuStandbySucceeded,
    FailoverCompleted,
    FailoverFailed,
    RungClaimed,
    RungTried,
)
from proto.failover.words import CpuStandbySettings, GlobalSettings, Strategy
from services.failover.decider import GUARD
from tests.spec.failover.controls import ACCOUNT, CLAIMED, EXECUTE, INSTANCE_ID, LOST, NOW, READY, seconds

BY_HAND = GlobalSettings(cpu_standby=CpuStandbySettings(auto_failover=False))
IN_SYNC = NoteCpuStandby(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id="mach_cpu")
WISH = replace(EXECUTE, failover_id="fo_2", settings=BY_HAND, now=seconds(3_600), test=False)


def protected() -> Given:
    return spec(GUARD).given().when(IN_SYNC).then_kinds(CpuStandbyNoted)


def lost() -> Given:
    """Nobody was there when it was lost."""
    return Given(GUARD, protected().when(replace(LOST, settings=BY_HAND)).state)


def rungs_tried(given: Given) -> list[str]:
    return [event.rung for event in given.events if isinstance(event, RungTried)]


def test_by_itself_a_failover_uses_the_standby() -> None:
    assert rungs_tried(protected().when(LOST)) == ["cpu_standby"]


@pytest.mark.parametrize("strategy", ["both", "cpu_standby", "all"])
def test_without_auto_failover_the_standby_is_passed_over_and_the_reason_says_so(strategy: Strategy) -> None:
    story = protected().when(replace(LOST, settings=replace(BY_HAND, default_strategy=strategy)))
    failed = story.events[-1]
    assert isinstance(failed, FailoverFailed)
    assert failed.error == "every_rung_failed"
    assert [one.reason for one in failed.attempts if one.rung == "cpu_standby"] == ["auto_failover_off"]


@pytest.mark.parametrize(
    ("strategy", "tried"), [("cpu_standby", ["cpu_standby"]), ("both", ["cpu_standby"]), (None, [])]
)
def test_a_wish_that_names_a_strategy_with_it_lets_it_take_over(strategy: Strategy | None, tried: list[str]) -> None:
    assert rungs_tried(lost().when(replace(WISH, force_strategy=strategy))) == tried


def test_the_work_that_is_missing_is_counted_from_the_loss_and_not_from_the_wish() -> None:
    taken = Given(GUARD, lost().when(replace(WISH, force_strategy="cpu_standby")).state)
    claimed = replace(CLAIMED, failover_id="fo_2", rung="cpu_standby", machine_id="mach_cpu", now=seconds(3_601))
    ready = replace(READY, machine_id="mach_cpu", now=seconds(3_602), restored_at=seconds(-20), on_cpu=True)
    story = taken.when(claimed).then_kinds(RungClaimed).when(ready)
    story.then_kinds(CpuStandbySucceeded, FailoverCompleted)
    completed = story.events[-1]
    assert isinstance(completed, FailoverCompleted)
    assert (completed.data_loss_window_s, completed.total_ms) == (20, 2_000)


def test_a_wish_that_came_to_nothing_says_nothing_about_when_a_machine_is_lost_later() -> None:
    """The machine of a wished failover goes on working when no rung could be tried."""
    wished = Given(GUARD, protected().when(replace(WISH, failover_id="fo_0", now=NOW)).state)
    taken = Given(GUARD, wished.when(replace(LOST, now=seconds(1_000))).state)
    claimed = replace(CLAIMED, rung="cpu_standby", machine_id="mach_cpu", now=seconds(1_001))
    ready = replace(READY, machine_id="mach_cpu", now=seconds(1_002), restored_at=seconds(990), on_cpu=True)
    completed = taken.when(claimed).then_kinds(RungClaimed).when(ready).events[-1]
    assert isinstance(completed, FailoverCompleted)
    assert completed.data_loss_window_s == 10


def test_a_copy_that_is_heard_of_again_after_the_takeover_makes_no_standby_of_the_primary() -> None:
    """After a crash what was heard before is heard again."""
    claimed = replace(CLAIMED, rung="cpu_standby", machine_id="mach_cpu", now=seconds(1))
    ready = replace(READY, machine_id="mach_cpu", now=seconds(2), restored_at=NOW, on_cpu=True)
    on_cpu = Given(GUARD, protected().when(LOST, claimed, ready).state)
    on_cpu.when(IN_SYNC).then()
    on_cpu.when(replace(IN_SYNC, now=seconds(60))).then_kinds(CpuStandbyNoted)
