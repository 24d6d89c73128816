"""Takeover and return in any order, with losses and repeats at every step: twice is once, one primary, none forgotten.

Machines of the way back have ids that the decider makes, so a step names a machine by its part, and the state says
which that is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.spec.properties import EXAMPLES_MAX, twice_is_once
from proto.base import Command
from proto.instance.commands import (
    DeleteInstance,
    DisableCpuStandby,
    EnableCpuStandby,
    GiveUpMachine,
    PromoteCpuStandby,
    ReportBooted,
    ReportDestroyed,
    ReportFailed,
    ReportHealthy,
    ReportRented,
    ReportRestored,
    ReportStopped,
    ReportSync,
    RequestCpuStandby,
    StartInstance,
    StopInstance,
    TryReturn,
    WantGpu,
)
from services.instance.decider import INSTANCE
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE
from tests.spec.instance.controls import ACCOUNT, CREATE, ENDPOINTS, INSTANCE_ID, NOW, OFFER
from tests.spec.instance.test_cpu_standby import CPU_OFFER
from tests.spec.instance.test_properties import one_primary_and_no_contract_forgotten

Step = Callable[[Instance, datetime, int], Command]
PARTS = ("primary", "cpu_standby", "successor")
GAPS = [timedelta(0), timedelta(seconds=1), timedelta(seconds=31), timedelta(minutes=6)]
STEPS_MAX = 60


def named(state: Instance, part: str) -> str:
    """The live machine that plays a part, else the last that did."""
    mine = [machine for machine in state.machines if machine.role == part]
    alive = [machine for machine in mine if machine.status in LIVE]
    return [*mine, *alive][-1].machine_id if mine else "mach_none"


def rented(part: str) -> Step:
    def step(state: Instance, now: datetime, number: int) -> Command:
        machine_id = named(state, part)
        return ReportRented(
            now=now,
            instance_id=INSTANCE_ID,
            machine_id=machine_id,
            provider="sandbox",
            provider_machine_id=f"sb_{machine_id}",
            offer=CPU_OFFER if part == "cpu_standby" else OFFER,
        )

    return step


def about(kind: Callable[..., Command], part: str, **fields: object) -> Step:
    return lambda state, now, number: kind(now=now, instance_id=INSTANCE_ID, machine_id=named(state, part), **fields)


def plain(kind: Callable[..., Command], **fields: object) -> Step:
    return lambda state, now, number: kind(now=now, instance_id=INSTANCE_ID, **fields)


def with_machine(kind: Callable[..., Command], **fields: object) -> Step:
    return lambda state, now, number: kind(now=now, instance_id=INSTANCE_ID, machine_id=f"mach_{number}", **fields)


def synced(target: str, *, is_last: bool = False, ok: bool = True) -> Step:
    return lambda state, now, number: ReportSync(
        now=now,
        instance_id=INSTANCE_ID,
        machine_id=named(state, "primary"),
        standby_machine_id=named(state, target),
        cycle=number,
        ok=ok,
        took_ms=1,
        captured_at=now,
        is_last=is_last,
    )


def promote(state: Instance, now: datetime, number: int) -> Command:
    return PromoteCpuStandby(
        now=now,
        instance_id=INSTANCE_ID,
        replaces=state.interrupted_id,
        failover_id=f"fo_{number}",
        give_up_at=now + timedelta(minutes=10),
    )


def restored(state: Instance, now: datetime, number: int) -> Command:
    return ReportRestored(
        now=now,
        instance_id=INSTANCE_ID,
        machine_id=named(state, "primary"),
        source="standby",
        captured_at=now,
        files=1,
        bytes=1,
        took_ms=1,
    )


def coming_up(part: str) -> list[Step]:
    return [rented(part), about(ReportBooted, part, endpoints=ENDPOINTS), about(ReportHealthy, part)]


# The order in which it comes about; random steps go between and in its place.
USUAL: list[Step] = [
    *coming_up("primary"),
    plain(EnableCpuStandby, account_id=ACCOUNT, sync_interval_s=30),
    with_machine(RequestCpuStandby, offers=(CPU_OFFER,)),
    *coming_up("cpu_standby"),
    synced("cpu_standby"),
    about(ReportStopped, "primary", reason="spot_preemption"),
    promote,
    restored,
    about(ReportHealthy, "primary"),
    about(WantGpu, "primary"),
    plain(TryReturn, offers=(OFFER,)),
    *coming_up("successor"),
    synced("successor"),
    synced("successor", is_last=True),
    restored,
    about(ReportHealthy, "primary"),
]
RANDOM: list[Step] = [
    *(step for part in PARTS for step in coming_up(part)),
    *(about(ReportStopped, part) for part in PARTS),
    *(about(ReportDestroyed, part) for part in PARTS),
    *(about(ReportDestroyed, part, requested=True) for part in PARTS),
    *(about(ReportFailed, part, stage="connecting", code="X", reason="x") for part in PARTS),
    *(about(GiveUpMachine, part) for part in PARTS),
    synced("successor", ok=False),
    plain(TryReturn, no_offer="NO_AVAILABLE_PRODUCTS"),
    plain(WantGpu, account_id=ACCOUNT),
    plain(DisableCpuStandby, account_id=ACCOUNT),
    plain(StopInstance, account_id=ACCOUNT),
    with_machine(StartInstance, account_id=ACCOUNT, offers=(OFFER,)),
    plain(DeleteInstance, account_id=ACCOUNT),
    *USUAL,
]


def nobody_is_left_filling(state: Instance) -> None:
    """A GPU machine is filled only while a CPU machine carries the instance, and at most one."""
    one_primary_and_no_contract_forgotten(state)
    filled = [machine for machine in state.machines if machine.role == "successor" and machine.status in LIVE]
    assert len(filled) <= 1, f"two machines are filled: {filled}"
    if filled:
        assert state.way_back.machine_id == filled[0].machine_id, "a machine is filled and nobody waits for it"
        assert state.status == "ready", f"a machine is filled while the instance is {state.status}"
    if state.way_back.is_on_cpu:
        assert state.primary is not None
        assert state.primary.machine_id == state.way_back.cpu_machine_id


@settings(max_examples=EXAMPLES_MAX, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(GAPS), st.sampled_from(["usual"] * 6 + ["random"]), st.integers(0, 10_000)),
                min_size=len(USUAL), max_size=STEPS_MAX))  # fmt: skip
def test_takeover_and_return_twice_are_once_whatever_comes_between(steps: list[tuple[timedelta, str, int]]) -> None:
    state, now, usual = twice_is_once(INSTANCE, INSTANCE.initial, CREATE), NOW, 0
    for number, (gap, kind, chosen) in enumerate(steps):
        now += gap
        if kind == "usual":
            step, usual = USUAL[usual % len(USUAL)], usual + 1
        else:
            step = RANDOM[chosen % len(RANDOM)]
        state = twice_is_once(INSTANCE, state, step(state, now, number))
        nobody_is_left_filling(state)
