"""Snapshots and machines filled from them: one at a time, only by the machine that carries the instance, ten kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.instance.commands import (
    GiveUpSnapshot,
    ReplaceMachine,
    ReportBooted,
    ReportFailed,
    ReportHealthy,
    ReportRented,
    ReportRestored,
    ReportSnapshot,
    ReportSnapshotFailed,
    RequestSnapshot,
)
from proto.instance.events import (
    InstanceMigrated,
    InstanceReady,
    InstanceRecovering,
    InstanceStarted,
    MachineBooted,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineRented,
    MachineRequested,
    MachineRestored,
    PromotionFailed,
    SnapshotCompleted,
    SnapshotFailed,
    SnapshotRequested,
    SnapshotsExpired,
)
from services.instance.decider import INSTANCE
from services.instance.decider.snapshots import KEPT_MAX
from tests.spec.instance.controls import (
    ACCOUNT,
    ENDPOINTS,
    INSTANCE_ID,
    MACHINE,
    MACHINE_2,
    OFFER,
    OFFER_2,
    OTHER_ACCOUNT,
    PREEMPTED,
    START,
    TO_READY,
    after,
    minutes,
)

REQUEST = RequestSnapshot(
    now=minutes(1), instance_id=INSTANCE_ID, snapshot_id="snap_1", reason="scheduled", has_storage=True
)
TAKEN = ReportSnapshot(
    now=minutes(2),
    instance_id=INSTANCE_ID,
    machine_id=MACHINE,
    generation=1,
    snapshot_id="snap_1",
    captured_at=minutes(1),
    files=3,
    bytes=3_000,
    stored_bytes=1_000,
    packs=("snap_1",),
    took_ms=20,
)
REPLACE = ReplaceMachine(
    now=minutes(3),
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    replaces=MACHINE,
    failover_id="fo_1",
    give_up_at=minutes(60),
    rung="cloud_storage",
    offers=(OFFER_2,),
)
RENTED_2 = ReportRented(
    now=minutes(3),
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    provider="sandbox",
    provider_machine_id="sb_2",
    offer=OFFER_2,
)
BOOTED_2 = ReportBooted(now=minutes(4), instance_id=INSTANCE_ID, machine_id=MACHINE_2, endpoints=ENDPOINTS)
HEALTHY_2 = ReportHealthy(now=minutes(5), instance_id=INSTANCE_ID, machine_id=MACHINE_2)
RESTORED_2 = ReportRestored(
    now=minutes(5),
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    source="snap_1",
    captured_at=minutes(1),
    files=3,
    bytes=3_000,
    took_ms=40,
)
WITH_SNAPSHOT = (*TO_READY, REQUEST, TAKEN)
TO_RESTORING = (*WITH_SNAPSHOT, PREEMPTED, REPLACE, RENTED_2, BOOTED_2)


def given(*commands: object) -> Given:
    return spec(INSTANCE).given(*after(*commands))


def numbered(number: int) -> tuple[RequestSnapshot, ReportSnapshot]:
    """The request and the report of one of many snapshots, each with a pack that only it and the next one need."""
    name, before = f"snap_{number}", f"snap_{number - 1}"
    return replace(REQUEST, snapshot_id=name), replace(TAKEN, snapshot_id=name, packs=(before, name))


def test_a_snapshot_is_asked_of_the_primary_and_may_add_to_the_last_one() -> None:
    given(*TO_READY).when(REQUEST).then(
        SnapshotRequested(
            instance_id=INSTANCE_ID,
            account_id=ACCOUNT,
            snapshot_id="snap_1",
            machine_id=MACHINE,
            generation=1,
            reason="scheduled",
            requested_at=minutes(1),
            give_up_at=minutes(1) + timedelta(seconds=120 + 30 * 60),  # the disk has 60 GB
        )
    )
    later = INSTANCE.decide(_state(*WITH_SNAPSHOT), replace(REQUEST, snapshot_id="snap_2"))[0]
    assert isinstance(later, SnapshotRequested)
    assert later.base_id == "snap_1"


def test_a_customers_snapshot_is_refused_when_it_cannot_be_and_our_own_is_answered() -> None:
    wish = replace(REQUEST, account_id=ACCOUNT, snapshot_id="snap_2", reason="user_request")
    given(*TO_READY, PREEMPTED).when(wish).refused("INVALID_STATE", advice="wait until it is ready")
    given(*TO_READY[:-1]).when(wish).refused("INVALID_STATE")
    given(*TO_READY).when(replace(wish, has_storage=False)).refused("NOT_CONFIGURED", feature="storage")
    given(*TO_READY).when(replace(wish, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")
    taken = given(*TO_READY, wish).when(replace(wish, snapshot_id="snap_3"))
    taken.refused("SNAPSHOT_IN_PROGRESS", snapshot_id="snap_2")
    assert taken.refusal is not None
    assert "advice" not in taken.refusal.facts
    own = replace(REQUEST, snapshot_id="snap_2")
    (said,) = INSTANCE.decide(_state(*TO_READY, PREEMPTED), own)
    assert isinstance(said, SnapshotFailed)
    assert (said.snapshot_id, said.code) == ("snap_2", "invalid_state")


def test_a_wished_snapshot_goes_before_a_scheduled_one() -> None:
    wish = replace(REQUEST, snapshot_id="snap_2", reason="hibernation")
    ended, asked = INSTANCE.decide(_state(*TO_READY, REQUEST), wish)
    assert isinstance(ended, SnapshotFailed)
    assert (ended.snapshot_id, ended.code) == ("snap_1", "superseded")
    assert isinstance(asked, SnapshotRequested)
    assert INSTANCE.decide(_state(*TO_READY, REQUEST, wish), REQUEST) == []


def test_the_carrier_completes_its_snapshot_once() -> None:
    completed = SnapshotCompleted(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        snapshot_id="snap_1",
        machine_id=MACHINE,
        generation=1,
        reason="scheduled",
        captured_at=minutes(1),
        completed_at=minutes(2),
        files=3,
        bytes=3_000,
        stored_bytes=1_000,
        took_ms=20,
        packs=("snap_1",),
    )
    given(*TO_READY, REQUEST).when(TAKEN).then(completed)
    ahead = replace(TAKEN, captured_at=minutes(9))
    given(*TO_READY, REQUEST).when(ahead).then(replace(completed, captured_at=TAKEN.now))
    given(*WITH_SNAPSHOT).when(TAKEN).then()


def test_a_late_machine_of_an_old_generation_cannot_complete_a_snapshot() -> None:
    moved = (*TO_READY, REQUEST, PREEMPTED, START)
    given(*moved).when(TAKEN).refused("MACHINE_FENCED")
    given(*TO_READY, REQUEST).when(replace(TAKEN, machine_id=MACHINE_2)).refused("MACHINE_FENCED")
    given(*TO_READY).when(TAKEN).refused("SNAPSHOT_NOT_FOUND")


def test_a_snapshot_that_fails_or_takes_too_long_is_over() -> None:
    failed = ReportSnapshotFailed(
        now=minutes(2), instance_id=INSTANCE_ID, machine_id=MACHINE, snapshot_id="snap_1", code="disk_full"
    )
    (said,) = INSTANCE.decide(_state(*TO_READY, REQUEST), failed)
    assert isinstance(said, SnapshotFailed)
    assert said.code == "disk_full"
    assert INSTANCE.decide(_state(*TO_READY, REQUEST), replace(failed, snapshot_id="snap_0")) == []
    give_up = GiveUpSnapshot(now=minutes(2), instance_id=INSTANCE_ID, snapshot_id="snap_1")
    assert INSTANCE.decide(_state(*TO_READY, REQUEST), give_up) == []
    (said,) = INSTANCE.decide(_state(*TO_READY, REQUEST), replace(give_up, now=minutes(60)))
    assert isinstance(said, SnapshotFailed)
    assert said.code == "timeout"
    given(*TO_READY, REQUEST, failed).when(TAKEN).then()


def test_the_oldest_snapshot_goes_and_takes_along_only_what_nobody_needs() -> None:
    many = [command for number in range(1, KEPT_MAX + 1) for command in numbered(number)]
    assert [type(event) for event in INSTANCE.decide(_state(*TO_READY, *many[:-1]), many[-1])] == [SnapshotCompleted]
    request, taken = numbered(KEPT_MAX + 1)
    completed, expired = INSTANCE.decide(_state(*TO_READY, *many, request), taken)
    assert isinstance(completed, SnapshotCompleted)
    assert expired == SnapshotsExpired(instance_id=INSTANCE_ID, snapshot_ids=("snap_1",), packs=("snap_0",))
    state = _state(*TO_READY, *many, request, taken)
    assert len(state.vault.kept) == KEPT_MAX


def test_a_lost_machine_is_replaced_by_one_that_is_filled_from_the_last_snapshot() -> None:
    given(*WITH_SNAPSHOT, PREEMPTED).when(REPLACE).then(
        InstanceRecovering(
            instance_id=INSTANCE_ID,
            account_id=ACCOUNT,
            name="my-instance",
            gpu="RTX 4090",
            machine_id=MACHINE_2,
            generation=2,
            failover_id="fo_1",
            rung="cloud_storage",
        ),
        MachineDestroyRequested(
            instance_id=INSTANCE_ID, machine_id=MACHINE, provider="sandbox", provider_machine_id="sb_1"
        ),
        MachineRequested(
            instance_id=INSTANCE_ID,
            account_id=ACCOUNT,
            machine_id=MACHINE_2,
            role="primary",
            generation=2,
            spec=_state(*TO_READY).spec,
            offers=(OFFER_2,),
            requested_at=minutes(3),
            give_up_at=minutes(60),
            restore="snap_1",
        ),
    )


@pytest.mark.parametrize(
    ("past", "wish", "reason"),
    [
        ((*TO_READY, PREEMPTED), REPLACE, "no_snapshot"),
        (WITH_SNAPSHOT, REPLACE, "instance_ready"),
        ((*WITH_SNAPSHOT, PREEMPTED), replace(REPLACE, replaces="mach_0"), "already_replaced"),
        ((*WITH_SNAPSHOT, PREEMPTED), replace(REPLACE, offers=()), "no_offer"),
    ],
)
def test_a_failover_is_told_once_why_there_is_no_new_machine(
    past: tuple[object, ...], wish: ReplaceMachine, reason: str
) -> None:
    (said,) = INSTANCE.decide(_state(*past), wish)
    assert isinstance(said, PromotionFailed)
    assert (said.reason, said.failover_id, said.rung) == (reason, "fo_1", "cloud_storage")
    assert INSTANCE.decide(_state(*past, wish), wish) == []


def test_it_is_ready_only_when_the_files_are_back_and_then_says_of_which_instant_they_are() -> None:
    assert INSTANCE.decide(_state(*TO_RESTORING), HEALTHY_2) == []
    (said,) = INSTANCE.decide(_state(*TO_RESTORING), RESTORED_2)
    assert isinstance(said, MachineRestored)
    given(*TO_RESTORING, RESTORED_2).when(RESTORED_2).then()
    healthy, ready, started, moved = INSTANCE.decide(_state(*TO_RESTORING, RESTORED_2), HEALTHY_2)
    assert isinstance(healthy, MachineHealthy)
    assert isinstance(started, InstanceStarted)
    assert isinstance(moved, InstanceMigrated)
    assert isinstance(ready, InstanceReady)
    assert (ready.generation, ready.restored_at) == (2, minutes(1))


def test_a_machine_that_cannot_be_filled_gives_way_to_the_next_rung() -> None:
    failed = ReportFailed(
        now=minutes(5),
        instance_id=INSTANCE_ID,
        machine_id=MACHINE_2,
        stage="loading",
        code="RESTORE_FAILED",
        reason="a checksum differs",
    )
    ended, given_back, fell_back = INSTANCE.decide(_state(*TO_RESTORING), failed)
    assert isinstance(ended, MachineFailed)
    assert isinstance(given_back, MachineDestroyRequested)
    assert fell_back == PromotionFailed(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        machine_id=MACHINE_2,
        failover_id="fo_1",
        reason="restore_failed",
        was_promoted=True,
        rung="cloud_storage",
    )
    assert _state(*TO_RESTORING, failed).status == "interrupted"


def test_a_start_on_a_new_machine_fills_it_unless_the_volume_is_there() -> None:
    state = _state(*WITH_SNAPSHOT, PREEMPTED, replace(START, offers=(OFFER,)))
    assert state.primary is not None
    assert state.primary.restore == "snap_1"
    with_volume = replace(RENTED_2, has_volume=True, offer=OFFER)
    state = _state(*WITH_SNAPSHOT, PREEMPTED, START, with_volume)
    assert state.primary.restore == ""
    rented, booted = after(*WITH_SNAPSHOT, PREEMPTED, START, with_volume, BOOTED_2)[-4:-2]
    assert isinstance(rented, MachineRented)
    assert isinstance(booted, MachineBooted)


def _state(*commands: object):
    state = INSTANCE.initial
    for event in after(*commands):
        state = INSTANCE.evolve(state, event)
    return state
