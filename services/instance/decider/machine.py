"""What follows from a report about one machine: it came up, failed, stopped, was lost or is gone.

Called by `wishes.decide`. Late and repeated reports change nothing, except that a contract made for a machine that
is no longer wanted is given back: nothing that costs money is forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import (
    GiveUpMachine,
    ReportBooted,
    ReportDestroyed,
    ReportFailed,
    ReportHealthy,
    ReportRented,
    ReportStopped,
)
from proto.instance.events import (
    InstanceDeleted,
    InstanceFailed,
    InstanceHealthChecking,
    InstanceInterrupted,
    InstanceReady,
    InstanceRunning,
    InstanceStarted,
    InstanceStarting,
    InstanceStopped,
    MachineBooted,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachineRented,
    MachineStopped,
)
from proto.instance.words import AttemptStage, InterruptionReason, MachineStatus, Offer
from services.instance.decider import gpu_return, requests, standby, volume
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import COMING_UP, ON, Machine
from services.instance.decider.migration import migrated

REASON_CHARS_MAX = 500  # contract dumont 7: failure_reason
# Where a machine stood when its time ran out.
_STAGE_OF: dict[MachineStatus, AttemptStage] = {"requested": "creating", "rented": "loading", "booted": "connecting"}


def rented(state: Instance, command: ReportRented) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if machine.provider_machine_id:
        return []
    contract = MachineRented(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        provider=command.provider,
        provider_machine_id=command.provider_machine_id,
        offer=command.offer,
        adopted=command.adopted,
        rejected=command.rejected,
        has_volume=command.has_volume,
        volume=command.volume,
    )
    if machine.status != "requested":
        give_back = MachineDestroyRequested(
            instance_id=state.instance_id,
            machine_id=machine.machine_id,
            provider=command.provider,
            provider_machine_id=command.provider_machine_id,
        )
        return [contract, give_back]
    if state.status != "creating" or machine.role != "primary":
        return [contract]  # a start has already said `starting`
    starting = InstanceStarting(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=machine.machine_id,
    )
    return [contract, starting]


def booted(state: Instance, command: ReportBooted) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if machine.status != "rented":
        return []
    about = {
        "instance_id": state.instance_id,
        "account_id": state.account_id,
        "name": state.name,
        "gpu": state.gpu,
        "machine_id": machine.machine_id,
    }
    up = MachineBooted(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        endpoints=command.endpoints,
        health_check=state.health_check,
    )
    if machine.role != "primary" or state.status == "recovering":
        return [up]
    return [up, InstanceRunning(**about), InstanceHealthChecking(**about)]


def healthy(state: Instance, command: ReportHealthy) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if machine.status != "booted" or is_being_restored(machine):
        return []
    offer = _offer(machine)
    healthy = MachineHealthy(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        provider=machine.provider,
        offer=offer,
        took_ms=machine.took_ms(command.now),
    )
    if machine.role != "primary":
        promotion = standby.planned_promotion(state, machine, command.now)
        if promotion is not None:
            return [healthy, *promotion]
        if machine.role == gpu_return.ROLE:
            return [healthy]
        next_step = requests.stop(state, machine) if machine.mode == "stopped" else standby.ready(state, machine)
        return [healthy, next_step]
    stop_at = auto_stop_at(
        minutes=state.auto_stop_minutes,
        ready_at=command.now,
        last_used_at=state.last_used_at,
        keep_alive_until=state.keep_alive_until,
    )
    on_cpu = standby.is_on_cpu(state, machine)
    return [
        healthy,
        *requests.destroy_lost(state),
        *volume.settle(state, machine),
        InstanceReady(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            machine_id=machine.machine_id,
            generation=machine.generation,
            endpoints=machine.endpoints,
            ready_at=command.now,
            auto_stop_at=stop_at,
            region=offer.region,
            price_usd_micros_per_hour=offer.price_usd_micros_per_hour,
            provider=machine.provider,
            host_id=offer.host_id,
            restored_at=machine.restored_at,
            on_cpu=on_cpu,
        ),
        InstanceStarted(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            endpoints=machine.endpoints,
        ),
        *migrated(state, machine, command.now, region=offer.region, on_cpu=on_cpu),
    ]


def is_being_restored(machine: Machine) -> bool:
    """Its files are not back yet: probes would prove nothing."""
    return bool(machine.restore) and machine.restored_at is None


def auto_stop_at(
    *, minutes: int, ready_at: datetime | None, last_used_at: datetime | None, keep_alive_until: datetime | None
) -> datetime | None:
    """When an idle instance is stopped; None: never. A use before it became ready does not count."""
    if minutes == 0 or ready_at is None:
        return None
    used_at = ready_at if last_used_at is None else max(ready_at, last_used_at)
    stop_at = used_at + timedelta(minutes=minutes)
    return stop_at if keep_alive_until is None else max(stop_at, keep_alive_until)


def failed(state: Instance, command: ReportFailed) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if machine.status not in COMING_UP:
        return []
    return fail(
        state,
        machine,
        stage=command.stage,
        code=command.code,
        reason=command.reason,
        offers=command.offers or _offers(machine),
        now=command.now,
    )


def fail_restored(state: Instance, machine: Machine, now: datetime) -> Sequence[Event]:
    """It has other files than were sent to it."""
    reason = "its files are not those of the last copy"
    offers = _offers(machine)
    return fail(state, machine, stage="loading", code="RESTORE_FAILED", reason=reason, offers=offers, now=now)


def give_up(state: Instance, command: GiveUpMachine) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if machine.status not in COMING_UP or command.now < machine.give_up_at:
        return []
    return fail(
        state,
        machine,
        stage=_STAGE_OF[machine.status],
        code="STARTUP_TIMEOUT",
        reason=f"not ready in time: still {machine.status}",
        offers=_offers(machine),
        now=command.now,
    )


def fail(
    state: Instance,
    machine: Machine,
    *,
    stage: AttemptStage,
    code: str,
    reason: str,
    offers: tuple[Offer, ...],
    now: datetime,
) -> Sequence[Event]:
    reason = reason[:REASON_CHARS_MAX]
    end = MachineFailed(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        stage=stage,
        reason=reason,
        offers=offers,
        took_ms=machine.took_ms(now),
    )
    given_back = [requests.destroy(state, machine)] if machine.has_contract else []
    if machine.role != "primary":
        return [end, *given_back, *standby.ended(state, machine, code.lower(), reason)]
    if state.status == "recovering":
        return [end, *given_back, standby.fell_back(state, machine, code.lower())]
    carried_on = gpu_return.fall_back(state, machine, code.lower(), now)
    if carried_on is not None:
        return [end, *given_back, *carried_on]
    verdict = InstanceFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        code=code,
        detail=reason,
    )
    if not machine.has_contract:
        return [end, verdict]
    if machine.was_healthy:
        return [end, requests.stop(state, machine), verdict]  # its disk may hold the customer's work
    return [end, *given_back, verdict]


def stopped(state: Instance, command: ReportStopped) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if machine.status == "stopping":
        off = MachineStopped(instance_id=state.instance_id, machine_id=machine.machine_id)
        if machine.role != "primary":
            return [off, standby.ready(state, machine)]
        return [off, _instance_stopped(state)] if state.status == "stopping" else [off]
    if command.requested or machine.status not in ON:
        return []
    return lose(state, machine, reason=command.reason, detail=command.detail, gone=False, now=command.now)


def destroyed(state: Instance, command: ReportDestroyed) -> Sequence[Event]:
    machine = _machine(state, command.machine_id)
    if not machine.has_contract:
        return []
    if machine.status == "destroying":
        end = MachineDestroyed(instance_id=state.instance_id, machine_id=machine.machine_id)
        others = [m for m in state.machines if m.has_contract and m.machine_id != machine.machine_id]
        return [end, _instance_deleted(state)] if state.status == "deleting" and not others else [end]
    if command.requested:
        return []
    if machine.status == "lost":
        return [MachineDestroyed(instance_id=state.instance_id, machine_id=machine.machine_id)]
    return lose(state, machine, reason=command.reason, detail=command.detail, gone=True, now=command.now)


def lose(
    state: Instance, machine: Machine, *, reason: InterruptionReason, detail: str, gone: bool, now: datetime
) -> Sequence[Event]:
    detail = detail[:REASON_CHARS_MAX]
    lost = MachineLost(
        instance_id=state.instance_id, machine_id=machine.machine_id, reason=reason, detail=detail, gone=gone
    )
    if machine.role != "primary":
        given_back = [] if gone else [requests.destroy(state, machine)]
        return [lost, *given_back, *standby.ended(state, machine, "standby_lost", detail)]
    if state.status == "recovering":  # the customer has been told that it is interrupted
        return [lost, standby.fell_back(state, machine, "standby_lost")]
    carried_on = gpu_return.fall_back(state, machine, "machine_lost", now)
    if carried_on is not None:
        return [lost, *([] if gone else [requests.destroy(state, machine)]), *carried_on]
    if state.status == "failed":
        return [lost]  # the customer has been told that it is down
    interrupted = InstanceInterrupted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=machine.machine_id,
        reason=reason,
        detail=detail,
        on_cpu=standby.is_on_cpu(state, machine),
    )
    return [lost, interrupted]


def _instance_stopped(state: Instance) -> InstanceStopped:
    return InstanceStopped(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        reason=state.reason,
    )


def _instance_deleted(state: Instance) -> InstanceDeleted:
    return InstanceDeleted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        reason=state.reason,
    )


def _machine(state: Instance, machine_id: str) -> Machine:
    machine = state.machine(machine_id)
    if machine is None:
        raise Refused("MACHINE_NOT_FOUND", instance_id=state.instance_id, machine_id=machine_id)
    return machine


def _offer(machine: Machine) -> Offer:
    assert machine.offer is not None, f"{machine.machine_id} came up without a contract"
    return machine.offer


def _offers(machine: Machine) -> tuple[Offer, ...]:
    return () if machine.offer is None else (machine.offer,)
