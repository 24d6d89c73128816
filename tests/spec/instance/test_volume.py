"""A workspace on a volume of its region: made with a machine, kept when that is lost, had by one machine at a time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.instance.commands import ReplaceMachine, RequestStandby, WishVolume
from proto.instance.events import (
    InstanceInterrupted,
    InstanceReady,
    InstanceRecovering,
    MachineDestroyRequested,
    MachineLost,
    MachineRequested,
    PromotionFailed,
    StandbyFailed,
    VolumeAttached,
    VolumeGivenUp,
    VolumeReleaseRequested,
    VolumeWished,
)
from proto.instance.words import Volume, VolumeWish
from services.instance.decider import INSTANCE
from tests.spec.instance.controls import (
    ACCOUNT,
    BOOTED,
    CREATE,
    DELETE,
    HEALTHY,
    INSTANCE_ID,
    MACHINE,
    MACHINE_2,
    NOW,
    OFFER,
    OFFER_2,
    OTHER_ACCOUNT,
    PREEMPTED,
    RENTED,
    START,
    after,
)

WISH = VolumeWish(50, "/data")
VOLUME = Volume("vol_1", "sandbox", "", 50, region=OFFER.region, name=MACHINE, mount_path="/data")
TO_ON_VOLUME = (
    replace(CREATE, volume=WISH),
    replace(RENTED, has_volume=True, volume=VOLUME),
    BOOTED,
    HEALTHY,
)
ELSEWHERE = replace(OFFER, offer_id="offer_9", host_id="host_9", region="EU-DE-01")
RUNG = ReplaceMachine(
    now=NOW,
    instance_id=INSTANCE_ID,
    machine_id=MACHINE_2,
    replaces=MACHINE,
    failover_id="fo_1",
    give_up_at=NOW + timedelta(seconds=120),
    rung="regional_volume",
    offers=(ELSEWHERE, OFFER_2),
)
RENTED_2 = replace(RENTED, machine_id=MACHINE_2, provider_machine_id="sb_2", offer=OFFER_2, has_volume=True)
BOOTED_2, HEALTHY_2 = replace(BOOTED, machine_id=MACHINE_2), replace(HEALTHY, machine_id=MACHINE_2)


def past(*commands: object) -> Given:
    return spec(INSTANCE).given(*after(*commands))


def said(given: Given, kind: type):
    return next((event for event in given.events if isinstance(event, kind)), None)


def test_the_first_machine_is_asked_for_with_the_volume_that_was_wished() -> None:
    requested = said(spec(INSTANCE).given().when(replace(CREATE, volume=WISH)), MachineRequested)
    assert requested is not None
    assert requested.volume == WISH


def test_the_volume_is_the_instances_once_that_is_ready_on_it() -> None:
    coming_up = past(*TO_ON_VOLUME[:3])
    assert coming_up.state.volume is None
    ready = coming_up.when(HEALTHY)
    attached = said(ready, VolumeAttached)
    assert attached is not None
    assert (attached.volume_id, attached.region, attached.machine_id) == ("vol_1", OFFER.region, MACHINE)
    assert ready.state.volume == VOLUME


def test_a_lost_machine_is_replaced_in_its_region_with_the_volume_and_no_copy() -> None:
    story = past(*TO_ON_VOLUME, PREEMPTED).when(RUNG)
    requested = said(story, MachineRequested)
    assert said(story, InstanceRecovering) is not None
    assert requested is not None
    assert (requested.offers, requested.restore, requested.volume) == ((OFFER_2,), "", None)
    past(*TO_ON_VOLUME, PREEMPTED, RUNG).when(RUNG).then_nothing()
    ready = past(*TO_ON_VOLUME, PREEMPTED, RUNG, RENTED_2, BOOTED_2).when(HEALTHY_2)
    told = said(ready, InstanceReady)
    assert told is not None
    assert (told.machine_id, told.restored_at) == (MACHINE_2, None)
    assert said(ready, VolumeAttached) is None
    assert said(ready, VolumeGivenUp) is None
    assert ready.state.volume == VOLUME


def test_a_working_machine_is_given_up_in_the_commit_that_asks_for_the_next() -> None:
    """Only one machine can have the volume, so the next cannot be brought up before."""
    story = past(*TO_ON_VOLUME).when(RUNG)
    kinds = [type(event) for event in story.events]
    assert kinds == [MachineLost, InstanceInterrupted, MachineDestroyRequested, InstanceRecovering, MachineRequested]
    interrupted = said(story, InstanceInterrupted)
    assert interrupted is not None
    assert (interrupted.reason, interrupted.failover_id) == ("user_test", "fo_1")


@pytest.mark.parametrize(
    ("commands", "wish", "reason"),
    [
        ((*TO_ON_VOLUME, PREEMPTED), replace(RUNG, offers=(ELSEWHERE,)), "no_gpu_in_region"),
        ((*TO_ON_VOLUME, PREEMPTED), replace(RUNG, no_offer="PROVIDER_UNAVAILABLE"), "provider_unavailable"),
        ((*TO_ON_VOLUME, PREEMPTED), replace(RUNG, replaces="mach_0"), "already_replaced"),
        ((CREATE, RENTED, BOOTED, HEALTHY, PREEMPTED), RUNG, "no_volume"),
        (TO_ON_VOLUME, replace(RUNG, offers=(ELSEWHERE,)), "no_gpu_in_region"),
    ],
)
def test_without_what_it_needs_the_rung_is_declined_and_nothing_is_given_up(
    commands: tuple[object, ...], wish: ReplaceMachine, reason: str
) -> None:
    story = past(*commands).when(wish)
    story.then_kinds(PromotionFailed)
    declined = said(story, PromotionFailed)
    assert declined is not None
    assert (declined.reason, declined.rung, declined.was_promoted) == (reason, "regional_volume", False)


def test_a_start_goes_where_the_files_are_and_nowhere_else() -> None:
    interrupted = past(*TO_ON_VOLUME, PREEMPTED)
    interrupted.when(replace(START, offers=(ELSEWHERE,))).refused("NO_AVAILABLE_PRODUCTS", region=OFFER.region)
    requested = said(interrupted.when(replace(START, offers=(ELSEWHERE, OFFER_2))), MachineRequested)
    assert requested is not None
    assert requested.offers == (OFFER_2,)


def test_a_volume_that_the_instance_leaves_is_given_back() -> None:
    own = replace(VOLUME, volume_id="vol_2", name=MACHINE_2, region=ELSEWHERE.region)
    moved = past(
        *TO_ON_VOLUME,
        PREEMPTED,
        RUNG,
        replace(RENTED_2, offer=ELSEWHERE, volume=own),
        BOOTED_2,
    ).when(HEALTHY_2)
    given_up, released = said(moved, VolumeGivenUp), said(moved, VolumeReleaseRequested)
    assert given_up is not None
    assert released is not None
    assert (given_up.volume_id, released.machine_ids) == ("vol_1", (MACHINE,))
    assert moved.state.volume == own


def test_a_volume_goes_with_its_instance() -> None:
    assert said(past(*TO_ON_VOLUME).when(DELETE), VolumeReleaseRequested) is not None
    assert said(past(*TO_ON_VOLUME[:2]).when(DELETE), VolumeReleaseRequested) is not None


def test_beside_a_volume_of_the_region_there_is_no_standby() -> None:
    wish = RequestStandby(
        now=NOW,
        instance_id=INSTANCE_ID,
        machine_id=MACHINE_2,
        primary_machine_id=MACHINE,
        host_id=OFFER.host_id,
        mode="hot",
        volume_gb=50,
        offers=(OFFER,),
    )
    failed = said(past(*TO_ON_VOLUME).when(wish), StandbyFailed)
    assert failed is not None
    assert failed.reason == "regional_volume"


def test_a_changed_wish_holds_for_the_next_machine_and_is_said_once() -> None:
    wish = WishVolume(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, volume=WISH)
    story = past(CREATE, RENTED, BOOTED, HEALTHY).when(wish).then_kinds(VolumeWished)
    story.when(wish).then_nothing()
    story.when(replace(wish, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")
    requested = said(past(CREATE, RENTED, BOOTED, HEALTHY, wish, PREEMPTED).when(START), MachineRequested)
    assert requested is not None
    assert requested.volume == WISH
