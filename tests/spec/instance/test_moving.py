"""A stopped machine that cannot be started again, and wishes that come again late."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.ids import derive_id
from libs.spec.given import spec
from proto.base import Event
from proto.instance.commands import ReportRestored, ReportStartRefused
from proto.instance.events import (
    InstanceFailed,
    InstanceReady,
    InstanceStarting,
    MachineDestroyRequested,
    MachineFailed,
    MachineLost,
    MachineRequested,
    MachineStopRequested,
)
from proto.instance.words import Offer
from services.instance.decider import INSTANCE
from services.instance.decider.instance import InstanceState
from tests.spec.instance.controls import (
    BOOTED,
    CREATE,
    DELETE,
    HEALTHY,
    INSTANCE_ID,
    MACHINE,
    NOW,
    OFFER,
    OFFER_2,
    RENTED,
    START,
    STOP,
    STOPPED,
    TO_STOPPED,
    after,
    comes_up,
    minutes,
)
from tests.spec.instance.test_snapshots import REQUEST, TAKEN
from tests.spec.instance.test_standby import SHARED

REFUSED = ReportStartRefused(
    now=minutes(1), instance_id=INSTANCE_ID, machine_id=MACHINE, requested_at=NOW, offers=(OFFER_2,)
)
STOPPED_AND_STARTED = (STOP, STOPPED, START)
WITH_COPY = (CREATE, RENTED, BOOTED, HEALTHY, REQUEST, TAKEN, *STOPPED_AND_STARTED)
MOVED = derive_id("mach", INSTANCE_ID, "moved", "2")
MOVED_COMES_UP = comes_up(NOW, MOVED, OFFER_2)[:2]


def state_after(*commands: object) -> InstanceState:
    state = INSTANCE.initial
    for event in after(*commands):
        state = INSTANCE.evolve(state, event)
    return state


def said(past: tuple[object, ...], command: object) -> list[Event]:
    return list(INSTANCE.decide(state_after(*past), command))


def test_with_a_snapshot_another_machine_is_rented_and_filled_from_it() -> None:
    lost, requested = said(WITH_COPY, REFUSED)
    assert isinstance(lost, MachineLost)
    assert (lost.machine_id, lost.gone) == (MACHINE, False)
    assert isinstance(requested, MachineRequested)
    assert (requested.machine_id, requested.generation, requested.role) == (MOVED, 2, "primary")
    assert (requested.restore, requested.offers, requested.exact) == (TAKEN.snapshot_id, (OFFER_2,), False)


def test_the_old_disk_is_given_back_only_when_the_new_machine_is_ready() -> None:
    past = (*WITH_COPY, REFUSED, *MOVED_COMES_UP)
    assert not any(isinstance(event, MachineDestroyRequested) for event in after(*past))
    restored = ReportRestored(
        now=NOW, instance_id=INSTANCE_ID, machine_id=MOVED, source=TAKEN.snapshot_id, captured_at=NOW, files=1,
        bytes=1, took_ms=1,
    )  # fmt: skip
    ready = said((*past, restored), replace(HEALTHY, machine_id=MOVED))
    assert any(isinstance(event, InstanceReady) for event in ready)
    given_back = [event for event in ready if isinstance(event, MachineDestroyRequested)]
    assert [event.machine_id for event in given_back] == [MACHINE]


@pytest.mark.parametrize(
    ("past", "offers", "words"),
    [
        ((*TO_STOPPED, START), (OFFER_2,), "no snapshot"),
        (WITH_COPY, (), "no other machine is to be had"),
    ],
)
def test_without_a_copy_or_an_offer_it_is_refused_and_the_disk_is_kept(
    past: tuple[object, ...], offers: tuple[Offer, ...], words: str
) -> None:
    failed, off, verdict = said(past, replace(REFUSED, offers=offers))
    assert isinstance(failed, MachineFailed)
    assert isinstance(off, MachineStopRequested), "kept, not destroyed"
    assert isinstance(verdict, InstanceFailed)
    assert verdict.code == "OFFER_UNAVAILABLE"
    assert words in verdict.detail
    assert "start it again later" in verdict.detail


def test_a_start_that_was_refused_may_be_wished_again_on_the_same_machine() -> None:
    past = (*TO_STOPPED, START, replace(REFUSED, offers=()), STOPPED)
    starting, _ = said(past, START)
    assert isinstance(starting, InstanceStarting)
    assert starting.machine_id == MACHINE


def test_without_a_snapshot_another_gpu_of_the_host_that_has_the_volume_will_do() -> None:
    past = (CREATE, RENTED, BOOTED, HEALTHY, SHARED, *STOPPED_AND_STARTED)
    beside = replace(OFFER, offer_id="offer_3", host_id=SHARED.host_id, provider=SHARED.provider)
    _, requested = said(past, replace(REFUSED, offers=(beside, OFFER_2)))
    assert isinstance(requested, MachineRequested)
    assert (requested.offers, requested.exact, requested.restore) == ((beside,), True, "")


@pytest.mark.parametrize(
    "late", [(replace(RENTED, provider_machine_id="x"), BOOTED), (DELETE,), (REFUSED,)], ids=["up", "deleted", "twice"]
)
def test_a_refusal_that_comes_late_changes_nothing(late: tuple[object, ...]) -> None:
    assert said((*WITH_COPY, *late), REFUSED) == []


def test_a_refusal_of_an_earlier_start_is_not_one_of_this_start() -> None:
    spec(INSTANCE).given(*after(*WITH_COPY)).when(replace(REFUSED, requested_at=minutes(-5))).then_nothing()
