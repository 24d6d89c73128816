"""The way back to a GPU: looked for in time, filled beside the working CPU machine, handed over in one commit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.instance.commands import (
    DeleteInstance,
    GiveUpMachine,
    ReportDestroyed,
    ReportFailed,
    ReportStopped,
    ReportSync,
    StopInstance,
    TryReturn,
    WantGpu,
)
from proto.instance.events import (
    InstanceInterrupted,
    InstanceReady,
    InstanceStarted,
    InstanceStarting,
    InstanceStopping,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachinePromoted,
    MachineRequested,
    MachineStopRequested,
    StandbyReady,
    SyncCompleted,
)
from proto.instance.return_events import (
    GpuReturning,
    HandedOver,
    HandoverRequested,
    ReturnAbandoned,
    ReturnCopied,
    Returned,
    ReturnTryFailed,
    ReturnWanted,
)
from proto.instance.words import Offer
from services.instance.decider import INSTANCE
from services.instance.decider.gpu_return import (
    COPIES_MAX,
    COPY_QUICK_MS,
    FILL_WAIT,
    PAUSE_QUICK_S,
    PAUSE_SLOW_S,
    TRIES_QUICK,
)
from services.instance.decider.gpu_search import choose_return
from services.instance.decider.market import Stock
from tests.spec.instance.controls import (
    ACCOUNT,
    INSTANCE_ID,
    OFFER,
    OTHER_ACCOUNT,
    SPEC,
    after,
    comes_up,
    minutes,
)
from tests.spec.instance.test_cpu_standby import CPU, DISABLE, IN_SYNC, ON_CPU
from tests.spec.instance.test_cpu_standby import RESTORED as RECEIVED

WANT = WantGpu(now=minutes(6), instance_id=INSTANCE_ID, machine_id=CPU)
WISH = replace(WANT, machine_id="", account_id=ACCOUNT)
TRY = TryReturn(now=minutes(6), instance_id=INSTANCE_ID, offers=(OFFER,))
NONE = replace(TRY, offers=(), no_offer="NO_AVAILABLE_PRODUCTS")


def state(*commands: object):
    folded = INSTANCE.initial
    for event in after(*commands):
        folded = INSTANCE.evolve(folded, event)
    return folded


def given(*commands: object) -> Given:
    return spec(INSTANCE).given(*after(*commands))


GPU = state(*ON_CPU, WANT, TRY).way_back.machine_id
COMES_UP = comes_up(minutes(6), GPU)
COPIED = ReportSync(
    now=minutes(7),
    instance_id=INSTANCE_ID,
    machine_id=CPU,
    standby_machine_id=GPU,
    cycle=500,
    ok=True,
    took_ms=40,
    files=4,
    bytes=4_000,
    captured_at=minutes(7),
)
LAST = replace(COPIED, now=minutes(8), cycle=501, captured_at=minutes(8), is_last=True)
RESTORED = replace(
    RECEIVED, now=minutes(8), machine_id=GPU, captured_at=LAST.captured_at, files=LAST.files, bytes=LAST.bytes
)
READY = replace(COMES_UP[2], now=minutes(9))
FILLED = (*ON_CPU, WANT, TRY, *COMES_UP, COPIED)
HANDED_OVER = (*FILLED, LAST)


def test_a_gpu_is_looked_for_once_the_cpu_machine_carries_the_instance() -> None:
    given(*ON_CPU).when(WANT).then_kinds(ReturnWanted).when(WANT).then()
    given(*ON_CPU).when(WISH).then_kinds(ReturnWanted)
    given(*ON_CPU).when(replace(WANT, machine_id="mach_other")).then()
    given(*ON_CPU).when(replace(WISH, account_id=OTHER_ACCOUNT)).refused("INSTANCE_NOT_FOUND")
    given(*IN_SYNC).when(WANT).then()
    given(*IN_SYNC).when(WISH).refused("INVALID_STATE")
    given(*ON_CPU[:-1]).when(WANT).then_kinds(ReturnWanted, ReturnAbandoned)  # put off until it serves


def test_without_a_gpu_it_is_tried_ten_times_in_five_minutes_and_then_every_five_minutes() -> None:
    past, now = [*ON_CPU, WANT], WANT.now
    for number in range(1, TRIES_QUICK + 3):
        (failed,) = INSTANCE.decide(state(*past), replace(NONE, now=now))
        assert isinstance(failed, ReturnTryFailed)
        assert (failed.attempts, failed.reason) == (number, "no_available_products")
        assert failed.pause_s == (PAUSE_QUICK_S if number < TRIES_QUICK else PAUSE_SLOW_S)
        given(*past, replace(NONE, now=now)).when(replace(NONE, now=now)).then()
        past.append(replace(NONE, now=now))
        now += timedelta(seconds=failed.pause_s)


def test_the_gpu_machine_is_rented_beside_the_cpu_machine_which_stays_the_primary() -> None:
    story = given(*ON_CPU, WANT).when(TRY).then_kinds(GpuReturning, MachineRequested)
    story.when(TRY).then()
    asked = INSTANCE.decide(state(*ON_CPU, WANT), TRY)[1]
    assert isinstance(asked, MachineRequested)
    assert (asked.role, asked.spec, asked.restore) == ("successor", SPEC, "")
    up = state(*ON_CPU, WANT, TRY, *COMES_UP)
    assert (up.status, up.primary.machine_id) == ("ready", CPU)
    given(*ON_CPU, WANT, TRY, *COMES_UP[:2]).when(COMES_UP[2]).then_kinds(MachineHealthy)


def test_it_is_held_still_only_when_little_is_left_to_send() -> None:
    filling = (*ON_CPU, WANT, TRY, *COMES_UP)
    given(*filling).when(COPIED).then_kinds(ReturnCopied, HandoverRequested).when(COPIED).then()
    slow = replace(COPIED, took_ms=COPY_QUICK_MS + 1)
    past = list(filling)
    for number in range(1, COPIES_MAX):
        copy = replace(slow, cycle=500 + number)
        given(*past).when(copy).then_kinds(ReturnCopied).when(copy).then()
        past.append(copy)
    given(*past).when(replace(slow, cycle=600)).then_kinds(ReturnCopied, HandoverRequested)
    given(*filling).when(replace(COPIED, ok=False)).then()
    given(*filling).when(LAST).then()


def test_the_last_copy_hands_over_in_one_commit() -> None:
    events = INSTANCE.decide(state(*FILLED), LAST)
    assert [type(event) for event in events] == [HandedOver, InstanceStarting, MachinePromoted, SyncCompleted]
    over = state(*HANDED_OVER)
    assert (over.primary.machine_id, over.machine(CPU).role) == (GPU, "cpu_standby")
    assert over.primary.generation > over.machine(CPU).generation
    given(*HANDED_OVER).when(LAST).then()  # its answer was lost
    given(*HANDED_OVER).when(replace(COPIED, cycle=502)).refused("MACHINE_FENCED")
    given(*HANDED_OVER).when(RESTORED).then_kinds(type(INSTANCE.decide(over, RESTORED)[0]))
    ready = given(*HANDED_OVER, RESTORED).when(READY)
    ready.then_kinds(MachineHealthy, InstanceReady, InstanceStarted, Returned, StandbyReady)
    home = state(*HANDED_OVER, RESTORED, READY)
    assert (home.status, home.way_back.stage, home.way_back.is_wanted) == ("ready", "none", False)


def test_a_cpu_machine_that_nobody_wants_any_more_is_given_back_after_the_return() -> None:
    past = (*HANDED_OVER, RESTORED)
    disabled = (*ON_CPU, DISABLE, WANT, TRY, *COMES_UP, COPIED, LAST, RESTORED)
    given(*disabled).when(READY).then_kinds(
        MachineHealthy, InstanceReady, InstanceStarted, Returned, MachineDestroyRequested
    )
    given(*past, READY).when(READY).then()


@pytest.mark.parametrize(
    "end",
    [
        ReportFailed(
            now=minutes(8), instance_id=INSTANCE_ID, machine_id=GPU, stage="connecting", code="X", reason="broken"
        ),
        replace(RESTORED, captured_at=minutes(7)),
        GiveUpMachine(now=minutes(100), instance_id=INSTANCE_ID, machine_id=GPU),
        ReportStopped(now=minutes(8), instance_id=INSTANCE_ID, machine_id=GPU, reason="spot_preemption"),
        ReportDestroyed(now=minutes(8), instance_id=INSTANCE_ID, machine_id=GPU, reason="spot_preemption"),
    ],
)
def test_a_gpu_machine_lost_before_it_is_ready_gives_the_instance_back_to_the_cpu_machine(end: object) -> None:
    events = INSTANCE.decide(state(*HANDED_OVER), end)
    assert {MachinePromoted, ReturnTryFailed} <= {type(event) for event in events}
    assert InstanceInterrupted not in {type(event) for event in events}
    back = state(*HANDED_OVER, end)
    assert back.primary.machine_id == CPU
    assert back.primary.generation > back.machine(GPU).generation
    restored = replace(RESTORED, machine_id=CPU)
    healthy = replace(READY, machine_id=CPU)
    given(*HANDED_OVER, end, restored).when(healthy).then_kinds(
        MachineHealthy, InstanceReady, InstanceStarted, ReturnWanted
    )


def test_a_try_that_does_not_come_about_is_followed_by_another() -> None:
    renting = (*ON_CPU, WANT, TRY)
    up = (*renting, *COMES_UP)
    failed = ReportFailed(
        now=minutes(7), instance_id=INSTANCE_ID, machine_id=GPU, stage="rejected", code="OFFER_UNAVAILABLE", reason="x"
    )
    given(*renting).when(failed).then_kinds(MachineFailed, ReturnTryFailed).when(failed).then()
    lost = ReportDestroyed(now=minutes(8), instance_id=INSTANCE_ID, machine_id=GPU, reason="spot_preemption")
    given(*renting, *COMES_UP).when(lost).then_kinds(MachineLost, ReturnTryFailed)
    reasons = [INSTANCE.decide(state(*past), end)[-1].reason for past, end in ((renting, failed), (up, lost))]
    assert reasons == ["not_started", "machine_lost"]
    late = replace(NONE, now=TRY.now + FILL_WAIT)
    given(*renting, *COMES_UP).when(late).then_kinds(MachineDestroyRequested, ReturnTryFailed).when(late).then()
    again = replace(TRY, now=minutes(9))
    second = INSTANCE.decide(state(*renting, failed), again)[1]
    assert isinstance(second, MachineRequested)
    assert second.machine_id != GPU


def test_what_ends_the_service_of_the_cpu_machine_ends_the_search_until_it_serves_again() -> None:
    stop = StopInstance(now=minutes(8), instance_id=INSTANCE_ID, account_id=ACCOUNT)
    given(*FILLED).when(stop).then_kinds(
        InstanceStopping, MachineStopRequested, MachineDestroyRequested, ReturnAbandoned
    )
    stopped = (*FILLED, stop)
    assert state(*stopped).way_back.is_wanted
    given(*stopped).when(replace(TRY, now=minutes(100))).then()
    delete = DeleteInstance(now=minutes(8), instance_id=INSTANCE_ID, account_id=ACCOUNT)
    gone = state(*FILLED, delete)
    assert gone.way_back.stage == "none"
    assert [machine.status for machine in gone.machines if machine.machine_id in (CPU, GPU)] == ["destroying"] * 2


def offer(name: str, **changes: object) -> Offer:
    return replace(OFFER, offer_id=name, host_id=f"host_{name}", **changes)


def test_the_wished_model_comes_first_then_what_is_as_large_and_no_dearer_in_the_order_of_regions() -> None:
    lost = replace(OFFER, gpu_memory_gb=24, price_usd_micros_per_hour=700_000)
    same = offer("same", price_usd_micros_per_hour=900_000)
    other = {"gpu": "A6000", "gpu_memory_gb": 48, "price_usd_micros_per_hour": 600_000, "billing": SPEC.billing}
    stock = Stock(
        (
            offer("us", **other | {"region": "US-CA-06"}),
            offer("jp", **other | {"region": "JP-1"}),
            offer("small", **other | {"gpu_memory_gb": 16}),
            offer("dear", **other | {"price_usd_micros_per_hour": 700_001}),
            offer("cpu", **other | {"kind": "cpu"}),
            offer("blocked", **other),
            same,
        )
    )
    blocked = {("sandbox", "host_blocked")}
    found = choose_return(SPEC, lost, stock, names=(), blocked=blocked, known_models=set())
    assert [one.offer_id for one in found.offers] == ["same", "jp", "us"]
    nothing = choose_return(SPEC, lost, Stock(()), names=(), blocked=set(), known_models={"RTX4090"})
    assert (nothing.offers, nothing.code) == ((), "NO_AVAILABLE_PRODUCTS")
