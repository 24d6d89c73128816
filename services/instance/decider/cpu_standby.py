"""CPU standbys: a small machine anywhere that the primary's agent keeps in sync, and that takes over without a GPU.

Called by `wishes.decide`. Unlike a standby of the warm pool it shares nothing with the primary: it may be in another
region, and outlives the primary. What it has is known from its own agent, which reports it when it takes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import (
    DisableCpuStandby,
    EnableCpuStandby,
    PromoteCpuStandby,
    ReportSync,
    RequestCpuStandby,
)
from proto.instance.events import (
    CpuStandbyDisabled,
    CpuStandbyEnabled,
    InstanceRecovering,
    MachinePromoted,
    MachineRequested,
    PromotionFailed,
    SyncCompleted,
    SyncStarted,
)
from services.instance.decider import gpu_return, requests, standby
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE, Machine
from services.instance.decider.market import CANDIDATES_MAX

RUNG = "cpu_standby"
SOURCE = "standby"  # what a promoted standby is filled from: what it has received
STARTUP_MINUTES_MAX = 10
# At 30 s a fact every ten minutes: 144 a day and instance, not 2,880.
CYCLES_PER_FACT = 20


def enable(state: Instance, command: EnableCpuStandby) -> Sequence[Event]:
    if state.status in ("deleting", "deleted"):
        advice = "create a new instance"
        raise Refused("INVALID_STATE", instance_id=state.instance_id, status=state.status, advice=advice)
    enabled = CpuStandbyEnabled(
        instance_id=state.instance_id,
        account_id=state.account_id,
        sync_interval_s=command.sync_interval_s,
        excludes=command.excludes,
    )
    cpu = state.cpu
    is_same = cpu is not None and (cpu.sync_interval_s, cpu.excludes) == (command.sync_interval_s, command.excludes)
    return [] if is_same else [enabled]


def disable(state: Instance, command: DisableCpuStandby) -> Sequence[Event]:
    del command
    if state.cpu is None:
        return []
    disabled = CpuStandbyDisabled(instance_id=state.instance_id, account_id=state.account_id)
    return [disabled, *give_back(state, "released")]


def give_back(state: Instance, reason: str) -> Sequence[Event]:
    """The machine goes; whether the instance is to have one is another matter."""
    ends: list[Event] = []
    for machine in standbys(state):
        ends += [*standby.give_back(state, machine), *standby.ended(state, machine, reason, "")]
    return ends


def standbys(state: Instance) -> Sequence[Machine]:
    """Live CPU standbys, ready or not: at most one."""
    return [machine for machine in state.machines if machine.role == RUNG and machine.status in LIVE]


def request(state: Instance, command: RequestCpuStandby) -> Sequence[Event]:
    primary = state.primary
    if state.cpu is None or state.machine(command.machine_id) is not None or standbys(state):
        return []
    if state.status != "ready" or primary is None or not command.offers or _is_on_cpu(primary):
        return []
    spec = replace(state.spec, kind="cpu", gpu=command.offers[0].gpu, region="")
    return [
        MachineRequested(
            instance_id=state.instance_id,
            account_id=state.account_id,
            machine_id=command.machine_id,
            role=RUNG,
            generation=state.generation + 1,
            spec=spec,
            offers=command.offers[:CANDIDATES_MAX],
            requested_at=command.now,
            give_up_at=command.now + timedelta(minutes=STARTUP_MINUTES_MAX),
            exact=True,
        )
    ]


def _is_on_cpu(machine: Machine) -> bool:
    return machine.offer is not None and machine.offer.kind == "cpu"


def promote(state: Instance, command: PromoteCpuStandby) -> Sequence[Event]:
    """Answered once per failover. The lost primary has ended in the log before."""
    if state.has_answered(command.failover_id, RUNG):
        return []
    machine = _healthy(state)
    why = _objection(state, command, machine)
    if why or machine is None:
        return [_declined(state, command, why)]
    recovering = InstanceRecovering(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=machine.machine_id,
        generation=state.generation + 1,
        failover_id=command.failover_id,
        rung=RUNG,
    )
    taken = _take_over(
        state, machine, replaces=command.replaces, failover_id=command.failover_id, now=command.now,
        give_up_at=command.give_up_at,
    )  # fmt: skip
    return [recovering, *taken]


def start_on(state: Instance, machine: Machine, *, now: datetime, give_up_at: datetime) -> Sequence[Event]:
    """The customer's own failover, when none could help: a machine from a snapshot would lose what the standby has.
    A GPU is looked for as soon as it is ready."""
    taken = _take_over(state, machine, replaces=state.interrupted_id, failover_id="", now=now, give_up_at=give_up_at)
    return [*taken, *gpu_return.want_when_ready(state, machine, now)]


def _take_over(
    state: Instance, machine: Machine, *, replaces: str, failover_id: str, now: datetime, give_up_at: datetime
) -> Sequence[Event]:
    promoted = MachinePromoted(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        generation=state.generation + 1,
        replaces=replaces,
        failover_id=failover_id,
        promoted_at=now,
        give_up_at=give_up_at,
        health_check=state.health_check,
        restore=SOURCE,
    )
    return [promoted, *requests.destroy_lost(state), *standby.give_back_all(state, "primary_moved")]


def _healthy(state: Instance) -> Machine | None:
    return next((each for each in standbys(state) if each.status == "healthy"), None)


def in_sync(state: Instance) -> Machine | None:
    """The CPU standby, when it is up and has had a whole copy."""
    machine = _healthy(state)
    has_copy = machine is not None and state.cpu is not None and state.cpu.synced_machine_id == machine.machine_id
    return machine if has_copy else None


def _objection(state: Instance, command: PromoteCpuStandby, machine: Machine | None) -> str:
    if state.status != "interrupted":
        return f"instance_{state.status}"
    if state.interrupted_id != command.replaces:
        return "already_replaced"
    if machine is None:
        return "standby_not_ready"
    return "never_synced" if in_sync(state) is None else ""


def _declined(state: Instance, command: PromoteCpuStandby, reason: str) -> PromotionFailed:
    return PromotionFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id="",
        failover_id=command.failover_id,
        reason=reason,
        rung=RUNG,
    )


def synced(state: Instance, command: ReportSync) -> Sequence[Event]:
    """Of many cycles, few are facts (CYCLES_PER_FACT)."""
    primary, cpu = state.primary, state.cpu
    if command.is_last and any(each.machine_id == command.machine_id for each in standbys(state)):
        return []  # said again: it has handed over
    if primary is None or primary.machine_id != command.machine_id:
        raise Refused("MACHINE_FENCED", instance_id=state.instance_id, generation=state.generation)
    if state.way_back.machine_id == command.standby_machine_id:
        return gpu_return.copied(state, command)
    if cpu is None or all(each.machine_id != command.standby_machine_id for each in standbys(state)):
        return []
    completed = SyncCompleted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=command.standby_machine_id,
        cycle=command.cycle,
        ok=command.ok,
        duration_ms=command.took_ms,
        files=command.files,
        bytes=command.bytes,
        captured_at=command.captured_at,
        error=command.error,
    )
    if cpu.told_machine_id != command.standby_machine_id:
        started = SyncStarted(
            instance_id=state.instance_id,
            account_id=state.account_id,
            cpu_name=command.standby_machine_id,
            cycle=command.cycle,
        )
        return [started, completed]
    is_worth_telling = command.ok != cpu.was_ok or command.cycle - cpu.told_cycle >= CYCLES_PER_FACT
    return [completed] if is_worth_telling else []
