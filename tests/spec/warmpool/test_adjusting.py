"""What a change of the settings does to a pool that is there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.spec.given import Given, spec
from libs.spec.properties import every_command_twice_is_once
from proto.base import Event, Heard
from proto.failover.events import PoolsChanged, PoolSwitched
from proto.warmpool.commands import AdjustPool, ChangePools
from proto.warmpool.events import (
    PoolAdjusted,
    PoolDegraded,
    PoolDisabled,
    PoolsTold,
    PrimarySeen,
    StandbyReleased,
    StandbyWanted,
)
from services.warmpool.decider import ACCOUNT as ACCOUNTS
from services.warmpool.decider import POOL
from services.warmpool.policy import react
from tests.spec.warmpool.test_pool import (
    ACCOUNT,
    CLAIM,
    CLAIM_OVER,
    DISABLE,
    INSTANCE_ID,
    NOW,
    PROVISION,
    RETRY,
    STANDBY_FAILED,
    STANDBY_READY,
    STOPPED,
    SWAPPED,
    active,
    after,
)

LATER = NOW + timedelta(seconds=5)
ADJUST = AdjustPool(now=LATER, instance_id=INSTANCE_ID, account_id=ACCOUNT)
OFF, HOT = replace(ADJUST, is_enabled=False), replace(ADJUST, mode="hot")
AUTO_OFF, AUTO_ON = replace(ADJUST, auto_reprovision=False), replace(ADJUST, auto_reprovision=True)


def claimed() -> Given:
    return Given(POOL, active().when(CLAIM).state)


def test_a_pool_that_is_switched_off_gives_its_standby_back() -> None:
    story = active().when(OFF).then_kinds(StandbyReleased, PoolDisabled).when(OFF).then_nothing()
    asked_again = replace(PROVISION, now=LATER + timedelta(seconds=1))
    Given(POOL, story.when(asked_again).state).when(OFF).then_nothing()  # heard again after that


def test_a_pool_that_is_not_there_is_not_changed() -> None:
    spec(POOL).given().when(OFF).then_nothing()
    spec(POOL).given().when(HOT).then_nothing()
    Given(POOL, active().when(DISABLE).state).when(HOT).then_nothing()


@pytest.mark.parametrize("past", [(PROVISION,), (PROVISION, STANDBY_READY)])
def test_another_mode_replaces_a_standby_that_nobody_has_claimed(past: tuple) -> None:
    story = after(*past).when(HOT).then_kinds(PoolAdjusted, StandbyReleased, PoolDegraded)
    due_at = story.state.retry_at
    assert due_at == LATER + timedelta(seconds=10)
    story = story.when(HOT).then_nothing()
    (wanted,) = Given(POOL, story.state).when(replace(RETRY, now=due_at)).events
    assert isinstance(wanted, StandbyWanted)
    assert wanted.mode == "hot"


def test_a_claimed_standby_is_left_alone_and_the_next_one_is_as_wished() -> None:
    story = claimed().when(HOT).then_kinds(PoolAdjusted).when(HOT).then_nothing()
    _, wanted = Given(POOL, story.state).when(SWAPPED).events
    assert isinstance(wanted, StandbyWanted)
    assert wanted.mode == "hot"


@pytest.mark.parametrize(
    ("end", "kinds"),
    [
        (SWAPPED, (PrimarySeen, PoolDisabled)),
        (replace(SWAPPED, machine_id="mach_9"), (StandbyReleased, PrimarySeen, PoolDisabled)),
        (CLAIM_OVER, (StandbyReleased, PoolDisabled)),
        (STOPPED, (StandbyReleased, PoolDisabled)),
    ],
)
def test_a_claimed_pool_that_is_switched_off_ends_with_its_claim(end: object, kinds: tuple[type[Event], ...]) -> None:
    switched_off = Given(POOL, claimed().when(OFF).then_kinds(PoolAdjusted).state)
    switched_off.when(end).then_kinds(*kinds).when(end).then_nothing()


def test_a_claimed_pool_that_is_switched_on_again_goes_on() -> None:
    on = replace(ADJUST, now=LATER + timedelta(seconds=1), is_enabled=True)
    story = claimed().when(OFF).then_kinds(PoolAdjusted).when(on).then_kinds(PoolAdjusted)
    Given(POOL, story.state).when(SWAPPED).then_kinds(PrimarySeen, StandbyWanted)


def test_another_size_is_for_the_next_volume() -> None:
    story = active().when(replace(ADJUST, volume_gb=300)).then_kinds(PoolAdjusted)
    assert (story.state.volume_gb, story.state.mode, story.state.status) == (300, "stopped", "active")


def test_a_pool_that_waits_for_nothing_gets_a_standby_when_it_may_replace_it() -> None:
    lost = after(PROVISION, AUTO_OFF, STANDBY_FAILED)
    assert lost.state.retry_at is None
    on = replace(AUTO_ON, now=LATER + timedelta(seconds=1))
    lost.when(on).then_kinds(PoolAdjusted, StandbyWanted).when(on).then_nothing()
    after(PROVISION, AUTO_OFF, STOPPED).when(on).then_kinds(PoolAdjusted)  # the instance does not run


def test_what_was_said_before_the_newest_change_is_not_news() -> None:
    story = active().when(HOT).then_kinds(PoolAdjusted, StandbyReleased, PoolDegraded)
    story.when(replace(OFF, now=LATER - timedelta(seconds=1))).then_nothing()
    active().when(replace(OFF, now=NOW)).then_nothing()  # before the pool was asked for


def test_to_another_account_there_is_no_such_pool() -> None:
    active().when(replace(OFF, account_id="acct_other")).refused("INSTANCE_NOT_FOUND")


CHANGE = ChangePools(
    now=LATER,
    account_id=ACCOUNT,
    is_enabled=False,
    mode="hot",
    own_choice=("inst_b",),
    instance_ids=("inst_a", "inst_b"),
)


def test_a_change_of_the_account_is_a_wish_for_each_of_its_pools() -> None:
    changed = PoolsChanged(account_id=ACCOUNT, is_enabled=False, mode="hot", own_choice=("inst_b",))
    (heard,) = react(Heard(changed, "cmt_1.0", ACCOUNT, LATER, "PUB", 1))
    assert heard == replace(CHANGE, instance_ids=())
    (told,) = spec(ACCOUNTS).given().when(CHANGE).events
    first, second = react(Heard(told, "cmt_2.0", ACCOUNT, LATER + timedelta(seconds=1), "EVT_WARMPOOL", 1))
    both = AdjustPool(now=LATER, instance_id="inst_a", account_id=ACCOUNT, is_enabled=False, mode="hot")
    assert first == both
    assert second == replace(both, instance_id="inst_b", is_enabled=None)


def test_a_change_is_told_once_and_to_nobody_when_there_is_no_pool() -> None:
    newer = replace(CHANGE, now=LATER + timedelta(seconds=1))
    spec(ACCOUNTS).given().when(newer).then_kinds(PoolsTold).when(CHANGE).then_nothing()
    spec(ACCOUNTS).given().when(replace(CHANGE, instance_ids=())).then_nothing()


def test_an_instances_own_switch_is_a_wish_for_its_pool() -> None:
    switched = PoolSwitched(instance_id=INSTANCE_ID, account_id=ACCOUNT, is_enabled=False)
    assert list(react(Heard(switched, "cmt_1.0", INSTANCE_ID, LATER, "PUB", 1))) == [OFF]


def test_every_change_of_an_account_twice_is_once() -> None:
    changes = st.builds(
        ChangePools,
        now=st.sampled_from([NOW, LATER]),
        account_id=st.just(ACCOUNT),
        mode=st.sampled_from([None, "hot"]),
        instance_ids=st.sampled_from([(), ("inst_a",), ("inst_a", "inst_b")]),
    )
    every_command_twice_is_once(ACCOUNTS, changes)
