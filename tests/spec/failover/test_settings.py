"""What a customer may choose, and what it comes to."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from libs.spec.given import spec
from proto.base import Heard
from proto.failover.commands import ForgetMachineSettings, ProtectNew, UpdateMachineSettings, UpdateSettings
from proto.failover.events import (
    CareChanged,
    CpuStandbyWanted,
    GuardClosed,
    MachineSettingsUpdated,
    PoolsChanged,
    PoolSwitched,
    SettingsUpdated,
)
from proto.failover.words import (
    CpuStandbyPatch,
    CpuStandbySettings,
    GlobalPatch,
    GlobalSettings,
    MachinePatch,
    MachineSettings,
    Strategy,
    WarmPoolPatch,
    WarmPoolSettings,
)
from proto.instance.events import InstanceCreated, InstanceInterrupted
from proto.instance.words import MachineSpec, Protection
from services.failover.decider import GUARD, SETTINGS, ladder
from services.failover.policy import react
from tests.spec.failover.controls import ACCOUNT, DELETED, INSTANCE_ID, NOW


def patch(**changes: object) -> UpdateSettings:
    return UpdateSettings(now=NOW, account_id=ACCOUNT, patch=GlobalPatch(**changes))


def machine(**changes: object) -> UpdateMachineSettings:
    return UpdateMachineSettings(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, patch=MachinePatch(**changes))


def test_a_loss_heard_twice_asks_for_one_failover_and_one_that_was_wished_is_its_own() -> None:
    lost = InstanceInterrupted(
        instance_id=INSTANCE_ID,
        account_id=ACCOUNT,
        name="n",
        gpu="RTX 4090",
        machine_id="mach_1",
        reason="host_failure",
    )
    first, again, other = (
        next(react(Heard(lost, event_id, INSTANCE_ID, NOW, "PUB", 1))).failover_id
        for event_id in ("cmt_1.0", "cmt_1.0", "cmt_2.0")
    )
    assert first == again != other
    wished = replace(lost, failover_id="fo_7")
    assert next(react(Heard(wished, "cmt_1.0", INSTANCE_ID, NOW, "PUB", 1))).failover_id == "fo_7"


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    first = patch(default_strategy="all", warm_pool=WarmPoolPatch(volume_size_gb=200))
    changed = GlobalSettings(default_strategy="all", warm_pool=WarmPoolSettings(volume_size_gb=200))
    told = PoolsChanged(account_id=ACCOUNT, volume_gb=200)
    story = spec(SETTINGS).given().when(first).then(SettingsUpdated(account_id=ACCOUNT, settings=changed), told)
    story = story.when(first).then_nothing()
    again = replace(changed, warm_pool=WarmPoolSettings(volume_size_gb=200, standby_mode="hot"))
    story.when(patch(warm_pool=WarmPoolPatch(standby_mode="hot"))).then(
        SettingsUpdated(account_id=ACCOUNT, settings=again), PoolsChanged(account_id=ACCOUNT, mode="hot")
    )


def test_a_channel_that_nothing_is_sent_by_is_refused_and_one_of_an_older_release_is_not_shown() -> None:
    spec(SETTINGS).given().when(patch(notify_channels=("email",))).refused("VALIDATION_ERROR", field="notify_channels")
    assert GlobalSettings(notify_channels=("email", "slack")).channels == GlobalSettings().channels == ("webhook",)
    spec(SETTINGS).given().when(patch(notify_channels=())).then_kinds(SettingsUpdated)


def test_how_machines_are_watched_and_replaced_is_said_when_it_comes_to_something_else() -> None:
    shorter = patch(warm_pool=WarmPoolPatch(health_check_interval_seconds=4, preferred_gpu_names=("A100",)))
    first = spec(SETTINGS).given().when(shorter)
    assert first.events[1:] == [CareChanged(account_id=ACCOUNT, health_check_s=4, gpu_names=("A100",))]
    story = first.then_kinds(SettingsUpdated, CareChanged)
    longer = CpuStandbyPatch(health_check_interval_seconds=60)  # the shorter of the two counts
    story = story.when(patch(cpu_standby=longer)).then_kinds(SettingsUpdated)
    patient = story.when(patch(warm_pool=WarmPoolPatch(health_check_interval_seconds=60, preferred_gpu_names=())))
    assert patient.events[1:] == [CareChanged(account_id=ACCOUNT, health_check_s=60, gpu_names=())]


def test_pools_are_told_what_was_changed_of_them_and_nothing_else() -> None:
    off = replace(patch(warm_pool=WarmPoolPatch(enabled=False, failover_timeout_seconds=60)), own_choice=("inst_9",))
    switched = spec(SETTINGS).given().when(off)
    assert switched.events[1:] == [PoolsChanged(account_id=ACCOUNT, is_enabled=False, own_choice=("inst_9",))]
    story = switched.then_kinds(SettingsUpdated, PoolsChanged)
    more = WarmPoolPatch(auto_reprovision_standby=False, volume_size_gb=300)
    told = story.when(replace(patch(warm_pool=more), own_choice=("inst_9",))).events[-1]
    assert told == PoolsChanged(account_id=ACCOUNT, auto_reprovision=False, volume_gb=300)
    story.when(patch(warm_pool=WarmPoolPatch(min_gpus_per_host=4))).then_kinds(SettingsUpdated)


def test_a_pool_is_told_when_its_instance_may_no_longer_have_one_and_when_it_may_again() -> None:
    off = machine(use_global_settings=False, warm_pool_enabled=False)
    switched = spec(GUARD).given().when(off)
    assert not switched.events[1].is_enabled
    story = switched.then_kinds(MachineSettingsUpdated, PoolSwitched).when(off).then_nothing()
    account = GlobalSettings(warm_pool=WarmPoolSettings(enabled=False))
    story.when(replace(machine(use_global_settings=True), settings=account)).then_kinds(MachineSettingsUpdated)
    again = story.when(machine(use_global_settings=True))
    again.then_kinds(MachineSettingsUpdated, PoolSwitched)
    assert again.events[-1].is_enabled


def test_a_machine_chooses_for_itself_and_forgets_it_again() -> None:
    own = MachineSettings(use_global_settings=False, strategy="warm_pool")
    wish = machine(use_global_settings=False, strategy="warm_pool")
    story = (
        spec(GUARD)
        .given()
        .when(wish)
        .then(MachineSettingsUpdated(instance_id=INSTANCE_ID, account_id=ACCOUNT, settings=own))
    )
    forget = ForgetMachineSettings(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT)
    story.when(wish).then_nothing().when(forget).then_kinds(MachineSettingsUpdated).when(forget).then_nothing()


def test_an_order_that_names_a_rung_twice_is_refused() -> None:
    wish = machine(strategy_order=("warm_pool", "warm_pool"))
    spec(GUARD).given().when(wish).refused("VALIDATION_ERROR", field="strategy_order")
    spec(GUARD).given().when(machine(strategy_order=("cpu_standby", "warm_pool"))).then_kinds(MachineSettingsUpdated)


@pytest.mark.parametrize(
    ("strategy", "warm_pool", "cpu_standby", "effective"),
    [
        ("both", True, True, "both"),
        ("both", True, False, "warm_pool"),
        ("both", False, True, "cpu_standby"),
        ("both", False, False, "disabled"),
        ("warm_pool", False, True, "disabled"),
        ("all", False, False, "all"),
        ("disabled", True, True, "disabled"),
    ],
)
def test_switched_off_blocks_are_taken_out_of_the_strategy(
    strategy: Strategy, warm_pool: bool, cpu_standby: bool, effective: Strategy
) -> None:
    own = MachineSettings(False, strategy, warm_pool, cpu_standby)
    assert ladder.effective_strategy(own, GlobalSettings()) == effective


@pytest.mark.parametrize(
    ("own", "account", "is_left_out"),
    [
        (MachineSettings(), GlobalSettings(), True),
        (MachineSettings(), GlobalSettings(default_strategy="all"), True),
        (MachineSettings(), GlobalSettings(default_strategy="cpu_standby"), False),  # it stands in for nothing
        (MachineSettings(use_global_settings=False), GlobalSettings(), False),  # its own choice
    ],
)
def test_a_cpu_standby_that_may_not_stand_in_for_a_warm_pool_is_left_out(
    own: MachineSettings, account: GlobalSettings, is_left_out: bool
) -> None:
    account = replace(account, warm_pool=WarmPoolSettings(fallback_to_cpu_standby=False))
    strategy = ladder.effective_strategy(own, account)
    assert ladder.is_fallback_off(strategy, own, account) is is_left_out
    assert ("cpu_standby" in ladder.allowed_rungs(strategy, own, account)) is not is_left_out
    without_pool = replace(account, warm_pool=replace(account.warm_pool, enabled=False))
    assert "cpu_standby" in ladder.allowed_rungs(strategy, own, without_pool)


def test_a_machines_own_order_comes_first_and_every_rung_appears_once() -> None:
    own = MachineSettings(use_global_settings=False, strategy_order=("cloud_storage", "warm_pool"))
    assert ladder.order_of(own) == ("cloud_storage", "warm_pool", "cpu_standby", "regional_volume")


def test_a_strategy_said_with_the_create_is_the_instances_own() -> None:
    created = InstanceCreated(
        instance_id=INSTANCE_ID, account_id=ACCOUNT, name="n", gpu="RTX 4090", spec=MachineSpec("RTX 4090", "image")
    )
    undecided = react(Heard(created, "cmt_1.0", ACCOUNT, NOW, "PUB", 1))
    assert [type(wish) for wish in undecided] == [ProtectNew]  # the account decides
    chosen = replace(created, protection=Protection(strategy="warm_pool"))
    (wish,) = react(Heard(chosen, "cmt_1.0", ACCOUNT, NOW, "PUB", 1))
    own = MachineSettings(use_global_settings=False, strategy="warm_pool")
    told = MachineSettingsUpdated(instance_id=INSTANCE_ID, account_id=ACCOUNT, settings=own)
    spec(GUARD).given().when(wish).then(told)


@pytest.mark.parametrize(
    ("settings", "is_wanted"),
    [
        (GlobalSettings(cpu_standby=CpuStandbySettings(auto_standby=True, sync_interval_seconds=7)), True),
        (GlobalSettings(), False),
        (GlobalSettings(cpu_standby=CpuStandbySettings(auto_standby=True, enabled=False)), False),
        (GlobalSettings(default_strategy="warm_pool", cpu_standby=CpuStandbySettings(auto_standby=True)), False),
        (GlobalSettings(default_strategy="all", cpu_standby=CpuStandbySettings(auto_standby=True)), True),
    ],
)
def test_a_new_instance_gets_a_cpu_standby_once_if_its_account_has_them_made(
    settings: GlobalSettings, is_wanted: bool
) -> None:
    wish = ProtectNew(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, settings=settings)
    seconds = settings.cpu_standby.sync_interval_seconds
    wanted = CpuStandbyWanted(instance_id=INSTANCE_ID, account_id=ACCOUNT, sync_interval_s=seconds)
    story = spec(GUARD).given().when(wish)
    if is_wanted:
        story = story.then(wanted).when(wish)
    story.then_nothing()
    deleted = machine(strategy="all"), replace(DELETED, now=NOW)
    spec(GUARD).given().when(*deleted).then_kinds(MachineSettingsUpdated, GuardClosed).when(wish).then_nothing()
