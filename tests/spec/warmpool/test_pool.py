"""How a pool gets its standby, hands it to one failover, and gets another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.spec.given import Given, spec
from libs.spec.properties import every_command_twice_is_once
from proto.base import Heard
from proto.instance.events import InstanceCreated
from proto.instance.words import MachineSpec, Protection
from proto.warmpool.commands import (
    AdjustPool,
    ClaimStandby,
    DisablePool,
    EndClaim,
    NotePrimary,
    NotePromotionFailed,
    NoteStandbyFailed,
    NoteStandbyReady,
    ProvisionPool,
    RetryStandby,
    SuspendPool,
)
from proto.warmpool.events import (
    PoolDegraded,
    PoolDisabled,
    PoolProvisioned,
    PoolRequested,
    PrimarySeen,
    StandbyClaimed,
    StandbyNotAvailable,
    StandbyReleased,
    StandbyWanted,
)
from services.warmpool.decider import POOL
from services.warmpool.decider.pool import Pool
from services.warmpool.policy import react

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
INSTANCE_ID, ACCOUNT, HOST = "inst_abc123", "acct_7", "host-12345"
PRIMARY = "mach_1"
PROVISION = ProvisionPool(
    now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id=PRIMARY, host_id=HOST, is_new=True
)
STANDBY = next(e for e in spec(POOL).given().when(PROVISION).events if isinstance(e, StandbyWanted)).machine_id
STANDBY_READY = NoteStandbyReady(now=NOW, instance_id=INSTANCE_ID, machine_id=STANDBY, host_id=HOST, volume_id="vol_1")
STANDBY_FAILED = NoteStandbyFailed(now=NOW, instance_id=INSTANCE_ID, machine_id=STANDBY, reason="no_gpu_on_host")
CLAIM = ClaimStandby(
    now=NOW,
    instance_id=INSTANCE_ID,
    account_id=ACCOUNT,
    failover_id="fo_1",
    replaces=PRIMARY,
    give_up_at=NOW + timedelta(seconds=120),
)
SWAPPED = NotePrimary(now=NOW, instance_id=INSTANCE_ID, machine_id=STANDBY, host_id=HOST)
PROMOTION_FAILED = NotePromotionFailed(
    now=NOW, instance_id=INSTANCE_ID, failover_id="fo_1", machine_id=STANDBY, reason="offer_unavailable"
)
CLAIM_OVER = EndClaim(now=NOW, instance_id=INSTANCE_ID, failover_id="fo_1", reason="every_rung_failed")
DISABLE = DisablePool(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT)
RETRY = RetryStandby(now=NOW + timedelta(seconds=30), instance_id=INSTANCE_ID)
STOPPED = SuspendPool(now=NOW, instance_id=INSTANCE_ID, reason="instance_stopped")


def after(*commands: object) -> Given:
    return Given(POOL, spec(POOL).given().when(*commands).state)


def active() -> Given:
    return after(PROVISION, STANDBY_READY)


def test_a_pool_wants_a_standby_on_the_primarys_host_and_is_active_when_it_is_there() -> None:
    story = spec(POOL).given().when(PROVISION).then_kinds(PoolRequested, StandbyWanted)
    provisioned = PoolProvisioned(
        instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id=STANDBY, host_id=HOST, volume_id="vol_1", mode="stopped"
    )
    story.when(STANDBY_READY).then(provisioned).holds(lambda pool: pool.status == "active")


def test_a_pool_of_an_instance_without_a_machine_waits_for_one() -> None:
    story = spec(POOL).given().when(replace(PROVISION, machine_id="", host_id="")).then_kinds(PoolRequested)
    story.when(replace(SWAPPED, machine_id=PRIMARY)).then_kinds(PrimarySeen, StandbyWanted)


def test_a_pool_that_missed_its_primary_finds_it_when_it_is_asked_for_again() -> None:
    waiting = after(replace(PROVISION, machine_id="", host_id=""))
    waiting.when(replace(PROVISION, machine_id="", host_id="")).then_nothing()
    found = waiting.when(PROVISION).then_kinds(PrimarySeen, StandbyWanted).when(PROVISION).then_nothing()
    found.holds(lambda pool: pool.primary_machine_id == PRIMARY)


def test_a_standby_is_claimed_by_exactly_one_failover() -> None:
    claimed = active().when(CLAIM).then_kinds(StandbyClaimed).when(CLAIM).then_nothing()
    second = claimed.when(replace(CLAIM, failover_id="fo_2"))
    assert second.events[0].reason == "claimed_by_another"


@pytest.mark.parametrize(
    ("past", "reason"),
    [
        ((), "not_configured"),
        ((PROVISION,), "standby_not_ready"),
        ((PROVISION, STANDBY_FAILED), "no_gpu_on_host"),
        ((PROVISION, STANDBY_READY, DISABLE), "not_configured"),
    ],
)
def test_a_pool_without_a_standby_says_why(past: tuple, reason: str) -> None:
    story = after(*past) if past else spec(POOL).given()
    answer = StandbyNotAvailable(failover_id="fo_1", instance_id=INSTANCE_ID, account_id=ACCOUNT, reason=reason)
    story.when(CLAIM).then(answer).when(CLAIM).then_nothing()


def test_a_claim_for_another_machine_than_the_primary_gets_nothing() -> None:
    active().when(replace(CLAIM, replaces="mach_old")).then_kinds(StandbyNotAvailable)


def test_after_the_swap_another_standby_is_wanted_for_the_new_primary() -> None:
    seen, wanted = active().when(CLAIM, SWAPPED).events[1:]
    assert seen.swapped
    assert (wanted.primary_machine_id, wanted.is_replacement) == (STANDBY, True)
    assert wanted.machine_id != STANDBY


def test_a_pool_that_may_not_replace_its_standby_is_degraded_once() -> None:
    story = after(replace(PROVISION, auto_reprovision=False), STANDBY_READY, CLAIM)
    story.when(SWAPPED).then_kinds(PrimarySeen, PoolDegraded).when(SWAPPED).then_nothing()


def test_a_standby_that_fails_is_tried_again_later_and_later() -> None:
    first = after(PROVISION).when(STANDBY_FAILED).events[0]
    assert first.retry_at == NOW + timedelta(seconds=30)
    story = after(PROVISION, STANDBY_FAILED).when(replace(RETRY, now=NOW)).then_nothing()
    wanted = story.when(RETRY).events[0]
    second = story.when(RETRY, replace(STANDBY_FAILED, machine_id=wanted.machine_id, now=RETRY.now)).events[-1]
    assert second.retry_at == RETRY.now + timedelta(seconds=60)


def test_a_standby_that_is_lost_while_it_waits_is_replaced() -> None:
    active().when(replace(STANDBY_FAILED, reason="standby_lost")).then_kinds(PoolDegraded).when(RETRY).then_kinds(
        StandbyWanted
    )


@pytest.mark.parametrize("end", [PROMOTION_FAILED, CLAIM_OVER])
def test_a_claim_that_came_to_nothing_spends_the_standby_and_another_is_tried(end: object) -> None:
    """Simulated seed 2630: the failover was over, and the pool stayed claimed by it for ever."""
    claimed = Given(POOL, active().when(CLAIM).state)
    claimed.when(replace(end, failover_id="fo_of_before")).then_nothing()
    story = claimed.when(end).then_kinds(StandbyReleased, PoolDegraded)
    story = story.when(end).then_nothing()
    story.when(RETRY).then_kinds(StandbyWanted)
    story.when(replace(SWAPPED, machine_id="mach_9")).then_kinds(PrimarySeen, StandbyWanted)


def test_a_primary_that_moves_takes_its_pool_along() -> None:
    story = active().when(replace(SWAPPED, machine_id="mach_9", host_id="host-2"))
    story.then_kinds(StandbyReleased, PrimarySeen, StandbyWanted)
    assert story.events[-1].host_id == "host-2"


def test_a_stopped_instance_keeps_no_standby_and_gets_one_when_it_is_ready_again() -> None:
    story = active().when(STOPPED).then_kinds(StandbyReleased, PoolDegraded).when(STOPPED).then_nothing()
    story.when(replace(SWAPPED, machine_id=PRIMARY)).then_kinds(PrimarySeen, StandbyWanted)


def test_disabling_gives_the_standby_back_but_not_while_it_is_taking_over() -> None:
    active().when(DISABLE).then_kinds(StandbyReleased, PoolDisabled).when(DISABLE).then_nothing()
    claimed = Given(POOL, active().when(CLAIM).state)
    claimed.when(DISABLE).refused("FAILOVER_IN_PROGRESS", failover_id="fo_1")
    claimed.when(replace(DISABLE, forced=True)).then_kinds(StandbyReleased, PoolDisabled)


def test_a_deleted_instance_gets_no_pool_again() -> None:
    story = active().when(replace(DISABLE, reason="instance_deleted")).then_kinds(StandbyReleased, PoolDisabled)
    story.when(PROVISION).refused("INSTANCE_NOT_FOUND")


def test_a_second_pool_with_other_wishes_is_refused_and_the_same_again_is_fine() -> None:
    active().when(PROVISION).then_nothing()
    active().when(replace(PROVISION, mode="hot")).refused("WARMPOOL_EXISTS")
    active().when(replace(PROVISION, mode="hot", is_new=False)).then_nothing()
    active().when(replace(PROVISION, wanted_host_id=PROVISION.host_id, host_gpus_free=1)).then_nothing()
    active().when(replace(PROVISION, wanted_host_id="host-elsewhere", host_gpus_free=1)).refused("WARMPOOL_EXISTS")


def test_a_named_host_must_be_the_instances_own_with_a_free_gpu() -> None:
    given = spec(POOL).given()
    given.when(replace(PROVISION, wanted_host_id="host-9")).refused("HOST_NOT_FOUND")
    given.when(replace(PROVISION, wanted_host_id="host-9", host_gpus_free=4)).refused("INVALID_STATE")
    given.when(replace(PROVISION, wanted_host_id=HOST, host_gpus_free=0)).refused("HOST_INSUFFICIENT_GPUS")
    given.when(replace(PROVISION, wanted_host_id=HOST, host_gpus_free=1)).then_kinds(PoolRequested, StandbyWanted)


def test_to_another_account_the_instance_does_not_exist() -> None:
    active().when(replace(DISABLE, account_id="acct_other")).refused("INSTANCE_NOT_FOUND")


COMMON = {"now": st.just(NOW), "instance_id": st.just(INSTANCE_ID)}
MACHINES = st.sampled_from([PRIMARY, STANDBY, "mach_9"])
FAILOVERS = st.sampled_from(["fo_1", "fo_2"])
COMMANDS = st.one_of(
    st.builds(
        ProvisionPool,
        **COMMON,
        account_id=st.just(ACCOUNT),
        machine_id=st.just(PRIMARY),
        host_id=st.sampled_from(["", HOST]),
        auto_reprovision=st.booleans(),
    ),
    st.builds(
        AdjustPool,
        now=st.sampled_from([NOW, NOW + timedelta(seconds=1), NOW + timedelta(seconds=2)]),
        instance_id=st.just(INSTANCE_ID),
        account_id=st.just(ACCOUNT),
        is_enabled=st.sampled_from([None, True, False]),
        mode=st.sampled_from([None, "stopped", "hot"]),
        auto_reprovision=st.sampled_from([None, True, False]),
    ),
    st.builds(DisablePool, **COMMON, account_id=st.just(ACCOUNT), forced=st.booleans()),
    st.builds(
        ClaimStandby,
        **COMMON,
        account_id=st.just(ACCOUNT),
        failover_id=FAILOVERS,
        replaces=MACHINES,
        give_up_at=st.just(NOW),
    ),
    st.builds(NoteStandbyReady, **COMMON, machine_id=MACHINES, host_id=st.just(HOST), volume_id=st.just("vol_1")),
    st.builds(
        NoteStandbyFailed,
        **COMMON,
        machine_id=MACHINES,
        reason=st.sampled_from(["standby_lost", "no_gpu_on_host", "instance_deleted"]),
    ),
    st.builds(NotePromotionFailed, **COMMON, failover_id=FAILOVERS, machine_id=MACHINES, reason=st.just("x")),
    st.builds(EndClaim, **COMMON, failover_id=FAILOVERS, reason=st.just("superseded")),
    st.builds(NotePrimary, **COMMON, machine_id=MACHINES, host_id=st.just(HOST)),
    st.builds(SuspendPool, **COMMON, reason=st.sampled_from(["instance_stopped", "instance_failed"])),
    st.builds(RetryStandby, **COMMON),
)
USUAL = st.sampled_from([PROVISION, STANDBY_READY, CLAIM, SWAPPED])


def an_active_pool_has_a_standby_and_a_disabled_one_has_none(pool: Pool) -> None:
    if pool.status in ("active", "provisioning", "recovering", "failover"):
        assert pool.standby_machine_id, f"{pool.status} without a standby"
    if pool.status in ("disabled", "degraded", "searching"):
        assert not pool.standby_machine_id, f"{pool.status} with a standby that nobody releases"
    assert bool(pool.claimed_by) == (pool.status == "failover")
    assert pool.is_wanted or pool.status == "failover", f"{pool.status}, and nobody wants it"


def test_every_wish_for_a_pool_twice_is_once() -> None:
    every_command_twice_is_once(
        POOL, USUAL | COMMANDS, invariant=an_active_pool_has_a_standby_and_a_disabled_one_has_none, steps_max=30
    )


def test_what_the_instance_said_before_is_not_heard_as_news() -> None:
    """After a kill the pool hears the last half second of PUB again, older primaries and stops among it."""
    later = NOW + timedelta(minutes=5)
    swapped = active().when(CLAIM, replace(SWAPPED, now=later)).then_kinds(StandbyClaimed, PrimarySeen, StandbyWanted)
    swapped.when(replace(SWAPPED, machine_id=PRIMARY)).then_nothing()
    swapped.when(STOPPED).then_nothing()
    stopped = swapped.when(replace(STOPPED, now=later + timedelta(minutes=5)))
    stopped.then_kinds(StandbyReleased, PoolDegraded).when(replace(SWAPPED, now=later)).then_nothing()


CREATED = InstanceCreated(
    instance_id=INSTANCE_ID, account_id=ACCOUNT, name="n", gpu="RTX 4090", spec=MachineSpec("RTX 4090", "image")
)


def test_an_instance_that_was_created_with_a_pool_gets_one_when_it_is_ready() -> None:
    wanted = Protection(strategy="both", pool_mode="hot", pool_volume_gb=50)
    (wish,) = react(Heard(replace(CREATED, protection=wanted), "cmt_1.0", ACCOUNT, NOW, "PUB", 1))
    (requested,) = spec(POOL).given().when(wish).events
    assert isinstance(requested, PoolRequested)
    assert (requested.mode, requested.volume_gb, requested.host_id) == ("hot", 50, "")
    ready = NotePrimary(now=NOW, instance_id=INSTANCE_ID, machine_id=PRIMARY, host_id=HOST)
    _, want = spec(POOL).given(requested).when(ready).events
    assert isinstance(want, StandbyWanted)
    assert (want.mode, want.host_id, want.primary_machine_id) == ("hot", HOST, PRIMARY)


@pytest.mark.parametrize("protection", [None, Protection(strategy="cloud_storage")])
def test_an_instance_that_was_created_without_one_gets_none(protection: Protection | None) -> None:
    created = Heard(replace(CREATED, protection=protection), "cmt_1.0", ACCOUNT, NOW, "PUB", 1)
    assert list(react(created)) == []
