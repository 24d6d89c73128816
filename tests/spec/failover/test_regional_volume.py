"""The rung of the volume of the region: when it is climbed, why it is passed over, and what its settings ask for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.failover.commands import NoteRungFailed, NoteVolume, UpdateMachineSettings
from proto.failover.events import (
    FailoverCompleted,
    FailoverFailed,
    MachineSettingsUpdated,
    RegionalVolumeSucceeded,
    RungClaimed,
    RungSkipped,
    RungTried,
    VolumeNoted,
    VolumeWanted,
)
from proto.failover.words import (
    GlobalSettings,
    MachinePatch,
    MachineSettings,
    RegionalVolumePatch,
    RegionalVolumeSettings,
)
from services.failover.decider import GUARD, ladder
from tests.spec.failover.controls import ACCOUNT, CLAIMED, FAILOVER, INSTANCE_ID, LOST, NOW, READY, SNAPSHOT, seconds

RUNG = "regional_volume"
ON = GlobalSettings(default_strategy="all", regional_volume=RegionalVolumeSettings(enabled=True))
NOTED = NoteVolume(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, volume_id="vol_1")
NOT_THERE = NoteRungFailed(
    now=NOW, instance_id=INSTANCE_ID, failover_id=FAILOVER, rung=RUNG, reason="no_gpu_in_region", was_tried=False
)


def on_volume() -> Given:
    return spec(GUARD).given().when(NOTED).then_kinds(VolumeNoted)


def reasons(events: list) -> dict[str, str]:
    return {event.rung: event.reason for event in events if isinstance(event, RungSkipped)}


def test_the_volume_answers_a_loss_within_its_own_time_and_nothing_is_missing() -> None:
    own = replace(ON, regional_volume=RegionalVolumeSettings(enabled=True, failover_timeout_seconds=45))
    story = on_volume().when(replace(LOST, settings=own))
    tried = story.events[-1]
    assert isinstance(tried, RungTried)
    assert (tried.rung, tried.give_up_at) == (RUNG, seconds(45))
    climbing = Given(GUARD, story.state).when(replace(CLAIMED, rung=RUNG)).then_kinds(RungClaimed)
    done = climbing.when(READY)
    done.then_kinds(RegionalVolumeSucceeded, FailoverCompleted)
    completed = done.events[-1]
    assert isinstance(completed, FailoverCompleted)
    assert (completed.strategy, completed.data_loss_window_s) == (RUNG, 0)
    assert [phase.phase for phase in completed.phases] == ["regional_volume_check", "regional_volume_failover"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [(GlobalSettings(default_strategy="all"), "not_in_strategy"), (ON, "no_volume")],
)
def test_switched_off_or_without_a_volume_it_is_passed_over(settings: GlobalSettings, reason: str) -> None:
    assert reasons(spec(GUARD).given().when(replace(LOST, settings=settings)).events)[RUNG] == reason


def test_without_a_gpu_in_the_region_the_next_rung_is_tried_and_the_breaker_counts_nothing() -> None:
    climbing = Given(GUARD, on_volume().when(SNAPSHOT, replace(LOST, settings=ON)).state)
    story = climbing.when(NOT_THERE)
    assert reasons(story.events) == {RUNG: "no_gpu_in_region"}
    assert isinstance(story.events[-1], RungTried)
    assert story.events[-1].rung == "cloud_storage"
    assert not story.state.breakers


def test_a_volume_that_is_given_up_is_no_longer_counted_on() -> None:
    given_up = replace(NOTED, is_given_up=True)
    on_volume().when(replace(given_up, volume_id="vol_0")).then_nothing()
    story = on_volume().when(NOTED).then_nothing().when(given_up).then_kinds(VolumeNoted)
    failed = story.when(replace(LOST, settings=ON)).events
    assert isinstance(failed[-1], FailoverFailed)
    assert reasons(failed)[RUNG] == "no_volume"


def test_an_instance_s_own_settings_say_what_its_next_machine_is_to_have() -> None:
    """A merge patch onto the account's block; what comes to the same is not said again."""
    account = GlobalSettings(regional_volume=RegionalVolumeSettings(volume_size_gb=80, mount_path="/keep"))
    patch = MachinePatch(
        use_global_settings=False, strategy=RUNG, regional_volume=RegionalVolumePatch(volume_size_gb=90)
    )
    wish = UpdateMachineSettings(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, patch=patch, settings=account)
    story = spec(GUARD).given().when(wish)
    wanted = story.events[-1]
    assert isinstance(wanted, VolumeWanted)
    assert (wanted.size_gb, wanted.mount_path) == (90, "/keep")
    again = Given(GUARD, story.state)
    again.when(wish).then_nothing()
    again.when(replace(wish, patch=MachinePatch(strategy="all"))).then_kinds(MachineSettingsUpdated, VolumeWanted)


def test_new_machines_have_one_when_the_strategy_uses_it() -> None:
    own = MachineSettings()
    assert ladder.volume_wanted(own, GlobalSettings()) is None
    assert ladder.volume_wanted(own, GlobalSettings(default_strategy=RUNG)) == RegionalVolumeSettings()
    assert ladder.volume_wanted(own, ON) == ON.regional_volume
    off = replace(ON, regional_volume=RegionalVolumeSettings(enabled=True, auto_provision_volume=False))
    assert ladder.volume_wanted(own, off) is None
    chosen = ladder.new_machine("all", ON)
    assert (chosen.volume, chosen.warm_pool, chosen.cpu_standby) == (ON.regional_volume, None, ON.cpu_standby)
    beside = ladder.new_machine("all", off)
    assert (beside.volume, beside.warm_pool) == (None, off.warm_pool)
