"""A ladder has several rungs, and files are where the instance last was: found by the simulated market."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from proto.instance.events import (
    InstanceMigrated,
    InstanceReady,
    InstanceRecovering,
    InstanceStarted,
    MachineHealthy,
    PromotionFailed,
    VolumeOutdated,
)
from services.instance.decider import INSTANCE
from tests.spec.instance.controls import MACHINE, PREEMPTED, TO_READY, after
from tests.spec.instance.test_snapshots import (
    BOOTED_2,
    HEALTHY_2,
    RENTED_2,
    REPLACE,
    REQUEST,
    RESTORED_2,
    TAKEN,
    WITH_SNAPSHOT,
)
from tests.spec.instance.test_standby import FAILED, PROMOTE, SHARED, TO_COLD

ELSEWHERE = "mach_3"
REPLACE_3 = replace(REPLACE, machine_id=ELSEWHERE, failover_id=PROMOTE.failover_id)
TO_ELSEWHERE = (
    *WITH_SNAPSHOT,
    SHARED,
    PREEMPTED,
    REPLACE,
    RENTED_2,
    BOOTED_2,
    RESTORED_2,
)


def state_after(*commands: object):
    state = INSTANCE.initial
    for event in after(*commands):
        state = INSTANCE.evolve(state, event)
    return state


def test_when_the_standby_does_not_come_up_the_next_rung_still_replaces_the_lost_machine() -> None:
    """The standby was the last primary to end, and the next rung was told that it came too late."""
    past = (*TO_COLD, REQUEST, TAKEN, PREEMPTED, PROMOTE, FAILED)
    assert state_after(*past).status == "interrupted"
    said = INSTANCE.decide(state_after(*past), REPLACE_3)
    assert isinstance(said[0], InstanceRecovering)
    assert not any(isinstance(event, PromotionFailed) for event in said)


def test_a_volume_is_outdated_once_the_instance_works_elsewhere() -> None:
    """A later machine on the volume's host came up with files that were a day old, and the failover said 0 s."""
    said = INSTANCE.decide(state_after(*TO_ELSEWHERE), HEALTHY_2)
    ready = [MachineHealthy, VolumeOutdated, InstanceReady, InstanceStarted, InstanceMigrated]
    assert [type(event) for event in said] == ready
    assert state_after(*TO_ELSEWHERE, HEALTHY_2).volume is None


def test_an_instance_that_moved_says_from_where_why_and_how_long_it_took() -> None:
    moved = INSTANCE.decide(state_after(*TO_ELSEWHERE), HEALTHY_2)[-1]
    assert isinstance(moved, InstanceMigrated)
    assert (moved.from_machine_id, moved.machine_id) == (MACHINE, HEALTHY_2.machine_id)
    assert (moved.reason, moved.generation) == (PREEMPTED.reason, 2)
    assert moved.took_ms == (HEALTHY_2.now - REPLACE.now) // timedelta(milliseconds=1) > 0


def test_an_instance_that_was_started_again_has_not_moved() -> None:
    said = INSTANCE.decide(state_after(*TO_READY[:-1]), TO_READY[-1])
    assert InstanceReady in map(type, said)
    assert InstanceMigrated not in map(type, said)


def test_a_volume_stays_while_the_instance_has_its_files_in_it() -> None:
    on_volume = (*WITH_SNAPSHOT, SHARED, PREEMPTED, REPLACE, replace(RENTED_2, has_volume=True), BOOTED_2)
    assert state_after(*on_volume, HEALTHY_2).volume is not None
    assert state_after(*TO_COLD, PREEMPTED, PROMOTE, BOOTED_2, HEALTHY_2).volume is not None
