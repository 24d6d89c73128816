"""What holds for every sequence of wishes and news: twice is once, and one failover at a time."""

from __future__ import annotations

from hypothesis import strategies as st

from libs.spec.properties import every_command_twice_is_once
from proto.failover.commands import (
    AbandonFailover,
    AnswerInterruption,
    ExecuteFailover,
    ForgetMachineSettings,
    GiveUpRung,
    NoteClaimed,
    NoteCpuStandby,
    NotePool,
    NoteReady,
    NoteRungFailed,
    NoteVolume,
    ProtectNew,
    UpdateMachineSettings,
    UpdateSettings,
)
from proto.failover.words import CpuStandbySettings, GlobalPatch, GlobalSettings, MachinePatch, PoolSeen, WarmPoolPatch
from services.failover.decider import GUARD, SETTINGS
from services.failover.decider.guard import Guard
from tests.spec.failover.controls import ACCOUNT, INSTANCE_ID, NOW, READY_POOL

COMMON = {"now": st.just(NOW), "instance_id": st.just(INSTANCE_ID)}
FAILOVERS = st.sampled_from(["fo_1", "fo_2", "fo_3"])
MACHINES = st.sampled_from(["mach_1", "mach_2", "mach_3"])
OWNED = {**COMMON, "account_id": st.just(ACCOUNT)}
STRATEGIES = ["both", "all", "regional_volume", "disabled", None]
RUNG = st.sampled_from(["warm_pool", "regional_volume", "cpu_standby"])
BY_HAND = GlobalSettings(cpu_standby=CpuStandbySettings(auto_failover=False))
COMMANDS = st.one_of(
    st.builds(
        ExecuteFailover,
        **OWNED,
        failover_id=FAILOVERS,
        machine_id=MACHINES,
        force_strategy=st.sampled_from([None, "warm_pool", "cpu_standby", "disabled"]),
    ),
    st.builds(
        AnswerInterruption,
        **OWNED,
        failover_id=FAILOVERS,
        machine_id=MACHINES,
        reason=st.just("host_failure"),
        settings=st.sampled_from([GlobalSettings(), BY_HAND]),
    ),
    st.builds(NoteClaimed, **COMMON, failover_id=FAILOVERS, rung=RUNG, machine_id=MACHINES),
    st.builds(NoteRungFailed, **COMMON, failover_id=FAILOVERS, rung=RUNG, reason=st.just("x"), was_tried=st.booleans()),
    st.builds(NoteReady, **COMMON, machine_id=MACHINES, generation=st.integers(1, 9)),
    st.builds(NoteCpuStandby, **OWNED, machine_id=MACHINES, is_lost=st.booleans()),
    st.builds(
        ProtectNew,
        **OWNED,
        settings=st.sampled_from([GlobalSettings(), GlobalSettings(cpu_standby=CpuStandbySettings(auto_standby=True))]),
    ),
    st.builds(NotePool, **OWNED, pool=st.sampled_from([READY_POOL, READY_POOL, PoolSeen()])),
    st.builds(NoteVolume, **OWNED, volume_id=st.sampled_from(["vol_1", "vol_2"]), is_given_up=st.booleans()),
    st.builds(AbandonFailover, **OWNED, error=st.just("instance_stopped"), deleted=st.booleans()),
    st.builds(GiveUpRung, **COMMON, failover_id=FAILOVERS, rung=RUNG, due_at=st.just(NOW)),
    st.builds(
        UpdateMachineSettings,
        **OWNED,
        patch=st.builds(
            MachinePatch,
            use_global_settings=st.booleans(),
            strategy=st.sampled_from(STRATEGIES),
        ),
    ),
    st.builds(ForgetMachineSettings, **OWNED),
)


def a_failover_under_way_is_on_a_rung(guard: Guard) -> None:
    if guard.run is not None:
        assert guard.run.rung is not None, "a failover that is on no rung waits for nobody and never ends"
        assert guard.run.failover_id in guard.answered
        assert guard.run.give_up_at is not None
    assert len(guard.answered) == len(set(guard.answered)), "a failover began twice"


def test_every_wish_for_a_guard_twice_is_once() -> None:
    every_command_twice_is_once(GUARD, COMMANDS, invariant=a_failover_under_way_is_on_a_rung, steps_max=30)


def test_every_wish_for_settings_twice_is_once() -> None:
    patches = st.builds(
        GlobalPatch,
        default_strategy=st.sampled_from(["all", "both"]),
        notify_on_failover=st.booleans(),
        warm_pool=st.builds(WarmPoolPatch, health_check_interval_seconds=st.integers(9, 11)),
    )
    every_command_twice_is_once(
        SETTINGS, st.builds(UpdateSettings, now=st.just(NOW), account_id=st.just(ACCOUNT), patch=patches)
    )
