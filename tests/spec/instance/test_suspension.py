"""What an empty account runs is hibernated while its money lasts for that, else stopped; each step says why."""

from __future__ import annotations

from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.base import Heard
from proto.billing.events import BalanceStorageExpired, BalanceSuspended
from proto.instance.commands import ExpireInstance, HibernateInstance, KeepAlive, SuspendInstance
from proto.instance.events import (
    HibernationCancelled,
    InstanceDeleting,
    InstanceHibernated,
    InstanceHibernating,
    InstanceKeptAlive,
    InstanceStopping,
    MachineDestroyRequested,
    MachineStopRequested,
    SnapshotFailed,
    SnapshotRequested,
    StandbyFailed,
)
from services.instance.decider import INSTANCE
from services.instance.policy import react
from tests.spec.instance.controls import (
    ACCOUNT,
    INSTANCE_ID,
    NOW,
    OTHER_ACCOUNT,
    PREEMPTED,
    STOP,
    STOPPED,
    TO_READY,
    after,
    minutes,
)
from tests.spec.instance.test_cpu_standby import IN_SYNC, ON_CPU
from tests.spec.instance.test_hibernation import checked, ready, taken

REASON = "insufficient_balance"
SUSPEND = SuspendInstance(
    now=minutes(15),
    instance_id=INSTANCE_ID,
    account_id=ACCOUNT,
    reason=REASON,
    balance_usd_micros=30_000,
    has_storage=True,
)
SPENT = replace(SUSPEND, now=minutes(18), balance_usd_micros=-1)
STOPS = (InstanceStopping, MachineStopRequested)


EXPIRE = ExpireInstance(now=minutes(40), instance_id=INSTANCE_ID, account_id=ACCOUNT, reason=REASON)


def given(*commands: object) -> Given:
    return spec(INSTANCE).given(*after(*commands))


def test_a_suspended_account_makes_a_wish_of_each_instance_it_names() -> None:
    said = BalanceSuspended(
        account_id=ACCOUNT, reason=REASON, balance_usd_micros=30_000, instance_ids=(INSTANCE_ID, "inst_2")
    )
    wishes = list(react(Heard(said, "cmt_1.0", ACCOUNT, NOW, "PUB", 1)))
    wished = replace(SUSPEND, now=NOW, has_storage=False, request_id="cmt_1.0")
    assert wishes == [wished, replace(wished, instance_id="inst_2")]


def test_it_is_hibernated_and_each_step_says_why() -> None:
    begun = ready().when(SUSPEND)
    story = begun.then_kinds(InstanceHibernating, SnapshotRequested)
    assert begun.events[0].reason == REASON
    story.when(replace(SUSPEND, now=minutes(16))).then_nothing()
    done = taken(taken(story).then_kinds(SnapshotRequested), adds=False, at=17)
    assert (done.events[0].reason, done.events[0].bytes) == (REASON, 3_000)
    asleep = done.then_kinds(InstanceHibernated, MachineDestroyRequested)
    asleep.when(SPENT).then_nothing()


def test_once_the_money_is_used_up_it_is_stopped_as_it_is() -> None:
    stopped = ready(SUSPEND).when(SPENT)
    assert stopped.then_kinds(*STOPS).when(SPENT).then_nothing().state.status == "stopping"
    assert stopped.events[0].reason == REASON
    ready().when(SPENT).then_kinds(*STOPS)


def test_without_storage_or_after_a_copy_that_failed_it_is_stopped() -> None:
    ready().when(replace(SUSPEND, has_storage=False)).then_kinds(*STOPS)
    begun = ready().when(SUSPEND).then_kinds(InstanceHibernating, SnapshotRequested)
    failed = taken(begun).then_kinds(SnapshotRequested)
    broken = failed.when(checked(failed, adds=True, at=16, detail="missing")).then_kinds(HibernationCancelled)
    broken.when(replace(SUSPEND, now=minutes(17))).then_kinds(*STOPS)


def test_who_keeps_it_alive_without_paying_only_delays_it() -> None:
    keep = KeepAlive(now=minutes(16), instance_id=INSTANCE_ID, account_id=ACCOUNT, minutes=30)
    kept = ready(SUSPEND).when(keep).then_kinds(InstanceKeptAlive, HibernationCancelled)
    begun_again = kept.when(replace(SUSPEND, now=minutes(17)))
    begun_again.then_kinds(InstanceHibernating, SnapshotFailed, SnapshotRequested)
    assert begun_again.events[1].code == "superseded"
    kept.when(SPENT).then_kinds(*STOPS)


def test_a_hibernation_that_somebody_wished_goes_on_while_the_money_lasts() -> None:
    wish = HibernateInstance(now=minutes(14), instance_id=INSTANCE_ID, account_id=ACCOUNT, has_storage=True)
    ready(wish).when(SUSPEND).then_nothing()
    ready(wish).when(SPENT).then_kinds(*STOPS)


def test_what_does_not_run_is_left_alone_but_for_its_standbys() -> None:
    given(*TO_READY, STOP, STOPPED).when(SUSPEND).then_nothing()
    given(*TO_READY, PREEMPTED).when(SUSPEND).then_nothing()
    given(*IN_SYNC, PREEMPTED).when(SUSPEND).then_kinds(MachineDestroyRequested, StandbyFailed)
    given(*TO_READY).when(replace(SUSPEND, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")


def test_a_stop_gives_the_cpu_standby_back_and_says_which_machine_ran() -> None:
    stopped = given(*IN_SYNC).when(STOP)
    stopped.then_kinds(*STOPS, MachineDestroyRequested, StandbyFailed)
    assert (stopped.events[0].on_cpu, stopped.events[-1].role) == (False, "cpu_standby")
    assert given(*ON_CPU).when(replace(STOP, now=minutes(9))).events[0].on_cpu


def test_what_sleeps_is_deleted_when_its_files_are_kept_no_longer() -> None:
    given(*TO_READY, STOP, STOPPED).when(EXPIRE).then_kinds(InstanceDeleting, MachineDestroyRequested).when(
        EXPIRE
    ).then_nothing()
    fact = BalanceStorageExpired(account_id=ACCOUNT, reason=REASON, instance_ids=(INSTANCE_ID,))
    (wish,) = react(Heard(fact, "cmt_1.0", ACCOUNT, minutes(40), "PUB", 1))
    assert wish == EXPIRE


def test_what_was_paid_for_and_woken_meanwhile_is_left_alone() -> None:
    given(*TO_READY).when(EXPIRE).then_nothing()
    given(*TO_READY, STOP).when(EXPIRE).then_nothing()
    given(*TO_READY).when(replace(EXPIRE, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")
