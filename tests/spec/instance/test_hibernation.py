"""An instance that nobody uses is announced, copied, checked, and only then gives its machine back."""

from __future__ import annotations

from msgspec.structs import replace

from libs.spec.given import Given, Outcome, spec
from proto.instance.commands import (
    AbandonHibernation,
    HibernateInstance,
    KeepAlive,
    MarkUsed,
    ReportBusy,
    ReportIdle,
    ReportSilence,
    ReportSnapshot,
    ReportSnapshotChecked,
    ReportSnapshotFailed,
)
from proto.instance.events import (
    HibernationCancelled,
    HibernationScheduled,
    InstanceDeleted,
    InstanceDeleting,
    InstanceHibernated,
    InstanceHibernating,
    InstanceInterrupted,
    InstanceKeptAlive,
    InstanceStarting,
    InstanceStopping,
    InstanceUsed,
    InstanceWaking,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineLost,
    MachineRequested,
    MachineStopRequested,
    SnapshotCompleted,
    SnapshotFailed,
    SnapshotRequested,
    VolumeReleaseRequested,
)
from services.instance.decider import INSTANCE
from services.instance.decider.hibernation import COPIES_MAX
from tests.spec.instance.controls import (
    ACCOUNT,
    DELETE,
    DESTROYED,
    INSTANCE_ID,
    MACHINE,
    MACHINE_2,
    OFFER,
    PREEMPTED,
    START,
    STOP,
    TO_READY,
    after,
    minutes,
)
from tests.spec.instance.test_standby import SHARED

IDLE = ReportIdle(
    now=minutes(10), instance_id=INSTANCE_ID, machine_id=MACHINE, idle_since=minutes(0), idle_s=900, notice_s=300
)
DUE = replace(IDLE, now=minutes(15))
BUSY = ReportBusy(now=minutes(12), instance_id=INSTANCE_ID, machine_id=MACHINE, reason="in_use")
WISH = HibernateInstance(now=minutes(1), instance_id=INSTANCE_ID, account_id=ACCOUNT, has_storage=True)
KEEP = KeepAlive(now=minutes(11), instance_id=INSTANCE_ID, account_id=ACCOUNT, minutes=30)


def ready(*more: object) -> Given:
    return spec(INSTANCE).given(*after(*TO_READY, *more))


def taken(story: Given, *, adds: bool = True, at: int = 16) -> Outcome:
    """The agent has stored the copy that is being made, and it is whole."""
    snapshot_id = story.state.sleep.snapshot_id
    done = ReportSnapshot(
        now=minutes(at), instance_id=INSTANCE_ID, machine_id=MACHINE, generation=1, snapshot_id=snapshot_id,
        captured_at=minutes(at), files=3, bytes=3_000, stored_bytes=10, packs=(snapshot_id,) if adds else (), took_ms=9,
    )  # fmt: skip
    return story.when(done).then_kinds(SnapshotCompleted).when(checked(story, adds=adds, at=at))


def checked(story: Given, *, adds: bool, at: int = 16, detail: str = "") -> ReportSnapshotChecked:
    return ReportSnapshotChecked(
        now=minutes(at), instance_id=INSTANCE_ID, snapshot_id=story.state.sleep.snapshot_id, is_whole=not detail,
        has_added=adds, detail=detail,
    )  # fmt: skip


def asleep() -> Given:
    first = taken(ready(WISH)).then_kinds(SnapshotRequested)
    return taken(first, adds=False, at=17).then_kinds(InstanceHibernated, MachineDestroyRequested)


def test_it_is_announced_first_then_copied_twice_and_only_then_given_back() -> None:
    announced = ready().when(IDLE)
    story = announced.then_kinds(HibernationScheduled)
    assert announced.events[0].will_hibernate_at == minutes(15)
    story.when(IDLE).then_nothing()
    begun = story.when(DUE)
    first = begun.then_kinds(InstanceHibernating, SnapshotRequested)
    assert begun.events[0].price_usd_micros_per_hour == OFFER.price_usd_micros_per_hour
    second = taken(first).then_kinds(SnapshotRequested)
    assert second.state.sleep.snapshot_id != first.state.sleep.snapshot_id
    done = taken(second, adds=False, at=17)
    assert (done.events[0].idle_seconds, done.events[0].snapshot_id) == (17 * 60, second.state.sleep.snapshot_id)
    done.then_kinds(InstanceHibernated, MachineDestroyRequested).holds(
        lambda state: state.status == "hibernated" and state.primary is None
    )


def test_idle_counts_from_the_last_use_and_not_before_it_became_ready() -> None:
    used = MarkUsed(now=minutes(8), instance_id=INSTANCE_ID, account_id=ACCOUNT, used_at=minutes(8))
    ready(used).when(IDLE).then_nothing()
    assert ready(used).when(replace(IDLE, now=minutes(18))).events[0].will_hibernate_at == minutes(23)
    assert ready().when(replace(IDLE, idle_since=minutes(-60))).events[0].idle_since == minutes(0)


def test_a_keep_alive_is_a_floor_and_calls_off_what_was_announced() -> None:
    called_off = ready(IDLE).when(KEEP).then_kinds(InstanceKeptAlive, HibernationCancelled)
    called_off.when(DUE).then_nothing()
    assert called_off.when(replace(IDLE, now=minutes(36))).events[0].will_hibernate_at == minutes(41)
    ready(IDLE, DUE).when(replace(KEEP, now=minutes(16))).then_kinds(InstanceKeptAlive, HibernationCancelled).holds(
        lambda state: state.status == "ready"
    )


def test_a_use_calls_it_off_until_it_is_idle_anew() -> None:
    story = ready(IDLE).when(BUSY).then_kinds(HibernationCancelled).when(BUSY).then_nothing()
    story.when(replace(DUE, idle_since=minutes(12))).then_nothing()
    ready(IDLE, DUE).when(BUSY).then_kinds(HibernationCancelled)
    used = MarkUsed(now=minutes(11), instance_id=INSTANCE_ID, account_id=ACCOUNT, used_at=minutes(11))
    ready(IDLE).when(used).then_kinds(InstanceUsed, HibernationCancelled)


def test_a_machine_that_is_not_the_primary_says_nothing_about_it() -> None:
    ready().when(replace(IDLE, machine_id=MACHINE_2)).then_nothing()
    ready(IDLE).when(replace(BUSY, machine_id=MACHINE_2)).then_nothing()


def test_a_copy_that_is_not_in_the_storage_leaves_everything_as_it_is() -> None:
    story = ready().when(WISH).then_kinds(InstanceHibernating, SnapshotRequested)
    missing = "its manifest is not in the storage"
    lost = story.when(checked(story, adds=True, detail=missing))
    assert (lost.events[0].reason, lost.events[0].detail) == ("snapshot_failed", missing)
    awake = lost.then_kinds(HibernationCancelled)
    awake.holds(lambda state: state.status == "ready" and state.primary.status == "healthy")
    awake.when(replace(IDLE, now=minutes(20))).then_nothing()
    awake.when(replace(IDLE, now=minutes(40))).then_kinds(HibernationScheduled)


def test_an_agent_that_is_silent_while_it_is_copied_is_no_loss_yet() -> None:
    silence = ReportSilence(
        now=minutes(2), instance_id=INSTANCE_ID, machine_id=MACHINE, last_seen_at=minutes(0), missed=9, is_lost=True
    )
    ready(WISH).when(silence).then_nothing()


def test_a_copy_that_cannot_be_made_calls_it_off() -> None:
    story = ready(WISH)
    snapshot_id = story.state.sleep.snapshot_id
    failed = ReportSnapshotFailed(
        now=minutes(2), instance_id=INSTANCE_ID, machine_id=MACHINE, snapshot_id=snapshot_id, code="no_space"
    )
    story.when(failed).then_kinds(SnapshotFailed)
    abandoned = AbandonHibernation(now=minutes(2), instance_id=INSTANCE_ID, snapshot_id=snapshot_id)
    story.when(replace(abandoned, snapshot_id="snap_other")).then_nothing()
    story.when(abandoned).then_kinds(HibernationCancelled).when(abandoned).then_nothing()


def test_files_that_never_stand_still_keep_the_machine() -> None:
    story = ready(WISH)
    for number in range(COPIES_MAX - 1):
        story = taken(story, at=20 + number).then_kinds(SnapshotRequested)
    last = taken(story, at=30)
    last.then_kinds(HibernationCancelled)
    assert last.events[0].reason == "never_still"


def test_a_late_check_of_an_earlier_copy_changes_nothing() -> None:
    first = ready(WISH)
    late = checked(first, adds=False)
    taken(first).then_kinds(SnapshotRequested).when(late).then_nothing()


def test_a_start_brings_a_new_machine_that_is_filled_from_the_copy() -> None:
    story = asleep()
    snapshot_id = story.state.sleep.snapshot_id
    woken = story.when(START)
    assert (woken.events[0].snapshot_id, woken.events[2].restore) == (snapshot_id, snapshot_id)
    woken.then_kinds(InstanceWaking, InstanceStarting, MachineRequested).when(START).then_nothing()
    story.when(replace(START, offers=())).refused("NO_AVAILABLE_PRODUCTS")


def test_a_start_or_stop_while_it_is_copied_is_what_the_customer_wants_now() -> None:
    ready(WISH).when(START).then_kinds(HibernationCancelled).when(START).then_nothing()
    ready(WISH).when(STOP).then_kinds(InstanceStopping, MachineStopRequested)
    asleep().when(STOP).refused("INSTANCE_NOT_STOPPABLE")
    gone = replace(DESTROYED, now=minutes(18))
    asleep().when(gone).then_kinds(MachineDestroyed).when(DELETE).then_kinds(InstanceDeleting, InstanceDeleted)


def test_a_machine_that_is_lost_while_it_is_copied_is_an_interruption() -> None:
    lost = ready(WISH).when(PREEMPTED).then_kinds(MachineLost, InstanceInterrupted)
    lost.holds(lambda state: state.sleep.snapshot_id == "")


def test_a_shared_workspace_goes_with_the_machine_and_is_not_what_a_start_takes_up() -> None:
    done = taken(taken(ready(SHARED, WISH)).then_kinds(SnapshotRequested), adds=False, at=17)
    assert done.events[2].machine_ids == (MACHINE,)
    done.then_kinds(InstanceHibernated, MachineDestroyRequested, VolumeReleaseRequested).holds(
        lambda state: state.volume is None
    )


def test_a_wish_twice_is_once_and_needs_a_storage_and_a_ready_machine() -> None:
    ready().when(WISH).then_kinds(InstanceHibernating, SnapshotRequested).when(WISH).then_nothing()
    ready().when(replace(WISH, has_storage=False)).refused("NOT_CONFIGURED")
    ready(STOP).when(WISH).refused("INVALID_STATE")
    ready().when(replace(WISH, account_id="acct_other")).refused("INSTANCE_NOT_FOUND")
    ready(WISH).when(BUSY).then_nothing()
