"""An instance that lives for months has had thousands of machines: it remembers those that matter, and works as if it
remembered all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.refusal import Refused
from libs.spec.given import fold
from proto.base import Command, Event
from proto.instance.commands import (
    DeleteInstance,
    PromoteMachine,
    ReportBooted,
    ReportDestroyed,
    ReportFailed,
    ReportHealthy,
    ReportRented,
    ReportStopped,
    RequestStandby,
    StartInstance,
)
from proto.instance.events import MachineRequested, VolumeReleaseRequested
from services.instance.decider import INSTANCE, machine_state
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import ENDED_REMEMBERED_MAX
from tests.spec.instance.controls import ACCOUNT, INSTANCE_ID, MACHINE, NOW, OFFER, PREEMPTED, TO_READY, minutes

MANY = 10 * ENDED_REMEMBERED_MAX


def after(state: Any, *commands: Command) -> Instance:
    for command in commands:
        state = fold(INSTANCE, state, INSTANCE.decide(state, command))
    return state


def standby(number: int) -> RequestStandby:
    return RequestStandby(
        now=NOW, instance_id=INSTANCE_ID, machine_id=f"mach_s{number}", primary_machine_id=MACHINE, host_id="host_1",
        mode="hot", volume_gb=50, offers=(OFFER,),
    )  # fmt: skip


def rejected(number: int) -> ReportFailed:
    return ReportFailed(
        now=NOW, instance_id=INSTANCE_ID, machine_id=f"mach_s{number}", stage="rejected", code="OFFER_UNAVAILABLE",
        reason="gone",
    )  # fmt: skip


@pytest.fixture(scope="module")
def old() -> Instance:
    """Ready, on a host that had no standby for it for days."""
    state = after(None, *TO_READY)
    for number in range(MANY):
        state = after(state, standby(number), rejected(number))
    return state


def test_of_machines_that_have_ended_the_newest_are_remembered(old: Instance) -> None:
    assert len(old.machines) <= ENDED_REMEMBERED_MAX + 2
    assert old.primary is not None and old.primary.machine_id == MACHINE
    assert old.machine(f"mach_s{MANY - 1}") is not None and old.machine("mach_s0") is None


def test_the_count_of_generations_goes_on(old: Instance) -> None:
    assert old.generation == MANY + 1
    [*_, requested] = INSTANCE.decide(old, standby(MANY))
    assert isinstance(requested, MachineRequested) and requested.generation == MANY + 2


def test_late_answers_about_a_forgotten_machine_change_nothing(old: Instance) -> None:
    about: dict[str, Any] = {"now": NOW, "instance_id": INSTANCE_ID, "machine_id": "mach_s0"}
    rented = ReportRented(**about, provider="sandbox", provider_machine_id="sb_9", offer=OFFER)
    for report in (rented, ReportHealthy(**about), ReportStopped(**about), ReportDestroyed(**about), rejected(0)):
        with pytest.raises(Refused, match="MACHINE_NOT_FOUND"):
            INSTANCE.decide(old, report)


def test_the_lost_primary_is_remembered_while_its_loss_is_answered(old: Instance) -> None:
    lost = after(old, replace(PREEMPTED, machine_id=MACHINE))
    gone = after(lost, ReportDestroyed(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE))
    start = StartInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id="mach_n", offers=(OFFER,))
    started = after(gone, start)
    assert started.machine(MACHINE) is not None
    assert INSTANCE.decide(started, start) == []


def test_volumes_of_forgotten_machines_are_given_back_with_the_instance(old: Instance) -> None:
    lost = after(old, PREEMPTED, ReportDestroyed(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE))
    for number in range(MANY):
        start = StartInstance(
            now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id=f"mach_n{number}", offers=(OFFER,)
        )
        failed = replace(rejected(0), machine_id=f"mach_n{number}", code="STARTUP_FAILED")
        lost = after(lost, start, failed)
    said = INSTANCE.decide(lost, DeleteInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT))
    assert any(isinstance(event, VolumeReleaseRequested) for event in said)
    assert lost.shared_from == (MACHINE,)


@contextmanager
def remembering(ended_max: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_state, "ENDED_REMEMBERED_MAX", ended_max)
        yield


def what_matters(state: Instance) -> Instance:
    """Everything but machines that have ended."""
    return replace(state, machines=tuple(machine for machine in state.machines if not machine.has_ended))


def next_commands(word: str, state: Instance, number: int) -> Sequence[Command]:
    """What the world may say next; wishes are about machines that are new."""
    about: dict[str, Any] = {"now": NOW, "instance_id": INSTANCE_ID}
    primary_id = state.primary.machine_id if state.primary else state.interrupted_id
    last = {**about, "machine_id": state.machines[-1].machine_id}
    match word:
        case "standby":
            return [replace(standby(number), primary_machine_id=primary_id)]
        case "up":
            rented = ReportRented(**last, provider="sandbox", provider_machine_id=f"sb_{number}", offer=OFFER)
            return [rented, ReportBooted(**last, endpoints=()), ReportHealthy(**last)]
        case "fails":
            return [ReportFailed(**last, stage="connecting", code="STARTUP_FAILED", reason="x")]
        case "lost":
            return [ReportStopped(**about, machine_id=primary_id, reason="spot_preemption")]
        case "gone":
            given_back = [m.machine_id for m in state.machines if m.status in ("lost", "destroying")]
            return [ReportDestroyed(**about, machine_id=machine_id, requested=True) for machine_id in given_back[:1]]
        case "start":
            return [StartInstance(**about, account_id=ACCOUNT, machine_id=f"mach_s{number}", offers=(OFFER,))]
        case _:
            wish = PromoteMachine(**last, replaces=primary_id, failover_id=f"fo_{number}", give_up_at=minutes(10_000))
            return [replace(wish, machine_id=m.machine_id) for m in state.standbys]


LIVES = st.lists(
    st.sampled_from(["standby", "standby", "up", "up", "fails", "lost", "gone", "start", "promote"]),
    min_size=10,
    max_size=60,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LIVES)
def test_what_is_forgotten_matters_to_nobody(words: Sequence[str]) -> None:
    """An instance that remembers no ended machine and one that remembers all decide the same and come to the same."""
    short = long = after(None, *TO_READY)
    for number, word in enumerate(words):
        for command in next_commands(word, short, number):
            said = [decided(state, command) for state in (short, long)]
            assert said[0] == said[1], f"{command!r}"
            with remembering(0):
                short = fold(INSTANCE, short, said[0])
            with remembering(1_000_000):
                long = fold(INSTANCE, long, said[1])
        assert what_matters(short) == what_matters(long)
        assert short.generation == long.generation


def decided(state: Instance, command: Command) -> Sequence[Event]:
    try:
        return INSTANCE.decide(state, command)
    except Refused:
        return []
