"""The way back: a GPU machine for an instance that a CPU machine carries, filled while that goes on, then handed to.

Called by `wishes.decide` (which lets `follow_up` add what every other wish means for the way back), by `cpu_standby`
(copies that arrive) and by `machine` (a GPU machine that is lost before it is ready). Until the handover the CPU
machine is the primary and the customer notices nothing. The handover is one commit: the CPU machine, held still since
the instant of its last copy, becomes the standby, and the GPU machine the primary.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from libs.ids import derive_id
from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import ReportSync, TryReturn, WantGpu
from proto.instance.events import (
    InstanceStarting,
    MachinePromoted,
    MachineRequested,
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
from services.instance.decider import standby
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE, Machine
from services.instance.decider.market import CANDIDATES_MAX

ROLE, CPU_ROLE = "successor", "cpu_standby"
SOURCE = "standby"
# Contract dumont 5: ten tries 30 s apart; then we go on at a pace that a dry market and a log can bear.
TRIES_QUICK, PAUSE_QUICK_S, PAUSE_SLOW_S = 10, 30, 300
READY_WAIT = timedelta(seconds=300)  # contract dumont 5: a GPU machine that is not up by then is given back
FILL_WAIT = timedelta(hours=1)  # as long as a machine may take that is filled from storage
HANDOVER_WAIT = timedelta(minutes=5)
STARTUP_WAIT = timedelta(minutes=10)  # as any machine that is to be ready
# Handed over is when little is left to send: a copy was quick, or more of them would not make it so.
COPY_QUICK_MS, COPIES_MAX = 3_000, 5


def want(state: Instance, command: WantGpu) -> Sequence[Event]:
    """Wished by the customer (`account_id`: refused when it cannot be) or by a failover that ended on a CPU."""
    cpu = _carrying_cpu(state)
    if command.account_id:
        if cpu is None:
            advice = "it can return to a GPU when a CPU standby carries it"
            raise Refused("INVALID_STATE", instance_id=state.instance_id, status=state.status, advice=advice)
    elif cpu is None or cpu.machine_id != command.machine_id:
        return []
    if state.way_back.is_wanted:
        return []
    return [_wanted(state, cpu, command.now, command.now)]


def _carrying_cpu(state: Instance) -> Machine | None:
    """The CPU machine that carries an instance meant for a GPU."""
    primary = state.primary
    return primary if primary is not None and standby.is_on_cpu(state, primary) else None


def _wanted(state: Instance, cpu: Machine, wanted_at: datetime, try_at: datetime) -> ReturnWanted:
    return ReturnWanted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=cpu.machine_id,
        wanted_at=wanted_at,
        try_at=try_at,
    )


def want_when_ready(state: Instance, cpu: Machine, now: datetime) -> Sequence[Event]:
    """The CPU machine is only starting: put off until it serves (`follow_up`)."""
    return [_wanted(state, cpu, now, now), ReturnAbandoned(instance_id=state.instance_id)]


def go_on(state: Instance, command: TryReturn) -> Sequence[Event]:
    """The deadline of the way back is due: the next try, or the end of one that takes too long."""
    way = state.way_back
    if way.due_at is None or command.now < way.due_at:
        return []
    if way.stage != "searching":
        return _give_up_try(state, "not_filled_in_time" if way.stage == "filling" else "handover_timeout", command.now)
    if not command.offers:
        return [_try_failed(state, (command.no_offer or "no_offer").lower(), command.now)]
    attempt = way.attempts_failed + 1
    generation = state.generation + 1  # no machine before had it, so no id is given twice
    machine_id = derive_id("mach", state.instance_id, "return", str(generation))
    returning = GpuReturning(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=way.cpu_machine_id,
        machine_id=machine_id,
        attempt=attempt,
        give_up_at=command.now + FILL_WAIT,
    )
    requested = MachineRequested(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=machine_id,
        role=ROLE,
        generation=generation,
        spec=state.spec,
        offers=command.offers[:CANDIDATES_MAX],
        requested_at=command.now,
        give_up_at=command.now + READY_WAIT,
        exact=True,  # these were looked for with the limits of the way back
        volume=state.volume_wish,
    )
    return [returning, requested]


def _give_up_try(state: Instance, reason: str, now: datetime) -> Sequence[Event]:
    return [*_give_back_successor(state), _try_failed(state, reason, now)]


def _give_back_successor(state: Instance) -> Sequence[Event]:
    machine = state.machine(state.way_back.machine_id)
    if machine is None or machine.status not in LIVE:
        return []
    return standby.give_back(state, machine)


def _try_failed(state: Instance, reason: str, now: datetime) -> ReturnTryFailed:
    way = state.way_back
    attempts = way.attempts_failed + 1
    pause_s = PAUSE_QUICK_S if attempts < TRIES_QUICK else PAUSE_SLOW_S
    return ReturnTryFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=way.cpu_machine_id,
        machine_id=way.machine_id,
        reason=reason,
        attempts=attempts,
        pause_s=pause_s,
        retry_at=now + timedelta(seconds=pause_s),
    )


def copied(state: Instance, command: ReportSync) -> Sequence[Event]:
    """The CPU machine says what it has sent to the GPU machine. The last copy, sent while held still, hands over."""
    way = state.way_back
    if not command.ok:
        return []  # it tries again; a try has its deadline
    if command.is_last:
        return _hand_over(state, command) if way.stage == "handing_over" else []
    if way.stage != "filling" or command.cycle <= way.cycle:
        return []
    copy = ReturnCopied(
        instance_id=state.instance_id,
        machine_id=way.machine_id,
        cycle=command.cycle,
        files=command.files,
        bytes=command.bytes,
        took_ms=command.took_ms,
    )
    if command.took_ms > COPY_QUICK_MS and way.copies + 1 < COPIES_MAX:
        return [copy]
    handover = HandoverRequested(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=way.cpu_machine_id,
        machine_id=way.machine_id,
        give_up_at=command.now + HANDOVER_WAIT,
    )
    return [copy, handover]


def _hand_over(state: Instance, command: ReportSync) -> Sequence[Event]:
    way, generation = state.way_back, state.generation + 1
    captured_at = command.captured_at or command.now
    handed_over = HandedOver(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=way.cpu_machine_id,
        machine_id=way.machine_id,
        generation=generation,
        captured_at=captured_at,
        files=command.files,
        bytes=command.bytes,
    )
    starting = InstanceStarting(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=way.machine_id,
    )
    promoted = _promotion(state, way.machine_id, way.cpu_machine_id, generation, command.now)
    return [handed_over, starting, promoted, *_in_sync(state, command, captured_at)]


def _in_sync(state: Instance, command: ReportSync, captured_at: datetime) -> Sequence[Event]:
    """The CPU machine has what it has sent: should the GPU be lost at once, it can take over again."""
    if state.cpu is None:
        return []
    completed = SyncCompleted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=state.way_back.cpu_machine_id,
        cycle=command.cycle,
        ok=True,
        duration_ms=command.took_ms,
        files=command.files,
        bytes=command.bytes,
        captured_at=captured_at,
    )
    return [completed]


def _promotion(state: Instance, machine_id: str, replaces: str, generation: int, now: datetime) -> MachinePromoted:
    return MachinePromoted(
        instance_id=state.instance_id,
        machine_id=machine_id,
        generation=generation,
        replaces=replaces,
        failover_id="",
        promoted_at=now,
        give_up_at=now + STARTUP_WAIT,
        health_check=state.health_check,
        restore=SOURCE,
    )


def fall_back(state: Instance, machine: Machine, reason: str, now: datetime) -> Sequence[Event] | None:
    """The GPU machine is no more before it was ready: the CPU machine, which has everything, carries on. None: it is
    not about that."""
    way = state.way_back
    cpu = state.machine(way.cpu_machine_id)
    if way.stage != "handed_over" or machine.machine_id != way.machine_id:
        return None
    if cpu is None or cpu.status != "healthy":
        return None
    promoted = _promotion(state, cpu.machine_id, machine.machine_id, state.generation + 1, now)
    return [promoted, _try_failed(state, reason, now)]


def is_short_of(state: Instance, machine: Machine, captured_at: datetime) -> bool:
    """Whether a machine that was handed the instance has an earlier copy than the last."""
    way = state.way_back
    is_meant = way.stage == "handed_over" and machine.machine_id == way.machine_id
    return is_meant and way.handed_over_at is not None and captured_at < way.handed_over_at


def follow_up(before: Instance, after: Instance, now: datetime) -> Sequence[Event]:
    """What a change of anything else means for the way back. `after`: as it is with that change."""
    way = after.way_back
    if way.stage == "none" and not way.is_wanted:
        return []
    cpu = _carrying_cpu(after)
    is_served = after.status == "ready" and cpu is not None
    if way.is_on_cpu and (not is_served or cpu is None or cpu.machine_id != way.cpu_machine_id):
        return [*_give_back_successor(after), ReturnAbandoned(instance_id=after.instance_id)]
    machine = after.machine(way.machine_id)
    match way.stage:
        case "none" if is_served and cpu is not None and before.status != "ready":
            return [_wanted(after, cpu, now, now + timedelta(seconds=PAUSE_QUICK_S))]
        case "filling" | "handing_over" if machine is None or machine.status not in LIVE:
            return [_try_failed(after, "machine_lost" if machine and machine.was_healthy else "not_started", now)]
        case "handed_over" if after.status == "ready":
            return _returned(after, now)
        case "handed_over" if after.status not in ("starting", "running", "health_checking"):
            return [ReturnAbandoned(instance_id=after.instance_id)]
        case _:
            return []


def _returned(state: Instance, now: datetime) -> Sequence[Event]:
    way = state.way_back
    returned = Returned(
        instance_id=state.instance_id,
        account_id=state.account_id,
        cpu_name=way.cpu_machine_id,
        machine_id=way.machine_id,
        total_ms=0 if way.wanted_at is None else max(0, (now - way.wanted_at) // timedelta(milliseconds=1)),
    )
    cpu = state.machine(way.cpu_machine_id)
    if cpu is None or cpu.role != CPU_ROLE or cpu.status not in LIVE:
        return [returned]
    if state.cpu is None:  # no CPU standby is wanted any more
        return [returned, *standby.give_back(state, cpu)]
    return [returned, standby.ready(state, cpu)]
