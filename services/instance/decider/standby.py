"""Standby machines: asked for, given back, and promoted to carry the instance when its primary is lost.

Called by `wishes.decide` and `machine`. The rule that only one machine is ever primary is kept here: a promotion is
one commit that ends the old primary before it makes the new one, and every standby was given a generation above all
before it, so the old machine's agent is told to shut down from that commit on.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from proto.base import Event
from proto.instance.commands import (
    PromoteMachine,
    ReleaseStandby,
    ReportVolumeReleased,
    ReportVolumeShared,
    RequestStandby,
)
from proto.instance.events import (
    InstanceInterrupted,
    InstanceRecovering,
    MachineCancelled,
    MachineLost,
    MachinePromoted,
    MachineRequested,
    PromotionFailed,
    PromotionPlanned,
    StandbyFailed,
    StandbyReady,
    VolumeReleased,
    VolumeShared,
)
from proto.instance.words import MachineRole
from services.instance.decider import requests
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE, Machine

STANDBY_MINUTES_MAX = 10  # as long as any machine may take to come up
RELEASED = "released"
WARM_POOL = "warm_pool"


def request(state: Instance, command: RequestStandby) -> Sequence[Event]:
    """One standby at a time, for the primary that the wish means, while that is ready."""
    if state.machine(command.machine_id) is not None or command.machine_id in state.standbys_refused:
        return []
    primary = state.primary
    if state.status in ("deleting", "deleted"):
        return [failed(state, command.machine_id, "instance_deleted")]
    if state.status != "ready" or primary is None or primary.machine_id != command.primary_machine_id:
        return [failed(state, command.machine_id, "primary_not_ready")]
    if state.standbys:
        return [failed(state, command.machine_id, "standby_exists")]
    if state.volume is not None and state.volume.region:  # which only one machine can have
        return [failed(state, command.machine_id, "regional_volume")]
    if not command.offers:
        return [failed(state, command.machine_id, "no_gpu_on_host")]
    return [
        MachineRequested(
            instance_id=state.instance_id,
            account_id=state.account_id,
            machine_id=command.machine_id,
            role="standby",
            generation=state.generation + 1,
            spec=state.spec,
            offers=command.offers,
            requested_at=command.now,
            give_up_at=command.now + timedelta(minutes=STANDBY_MINUTES_MAX),
            exact=True,  # no other host has the volume
            mode=command.mode,
            volume_gb=command.volume_gb,
        )
    ]


def ready(state: Instance, machine: Machine) -> StandbyReady:
    assert machine.offer is not None, f"{machine.machine_id} is ready without a contract"
    return StandbyReady(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=machine.machine_id,
        host_id=machine.offer.host_id,
        volume_id=state.volume.volume_id if state.volume else "",
        mode=machine.mode or "hot",
        price_usd_micros_per_hour=machine.offer.price_usd_micros_per_hour,
        volume_gb=state.volume.size_gb if state.volume else 0,
        role=machine.role,
    )


def failed(
    state: Instance, machine_id: str, reason: str, detail: str = "", *, role: MachineRole = "standby"
) -> StandbyFailed:
    return StandbyFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=machine_id,
        reason=reason,
        detail=detail,
        role=role,
    )


def release(state: Instance, command: ReleaseStandby) -> Sequence[Event]:
    machine = state.machine(command.machine_id)
    if machine is None or machine not in state.standbys:
        return []
    if state.plan is None:
        return give_back(state, machine)
    return [*give_back(state, machine), *ended(state, machine, RELEASED, "")]


def is_on_cpu(state: Instance, primary: Machine) -> bool:
    """Whether a CPU standby carries an instance that is meant to have a GPU."""
    return primary.offer is not None and primary.offer.kind == "cpu" and state.spec.kind == "gpu"


def give_back(state: Instance, machine: Machine) -> Sequence[Event]:
    """What it takes to end one live standby."""
    ends: list[Event] = []
    if not machine.was_healthy:
        ends.append(MachineCancelled(instance_id=state.instance_id, machine_id=machine.machine_id, offer=machine.offer))
    if machine.has_contract:
        ends.append(requests.destroy(state, machine))
    return ends


def give_back_all(state: Instance, reason: str) -> Sequence[Event]:
    """The instance moves to a machine that none of its standbys can stand in for."""
    ends: list[Event] = []
    for machine in state.standbys:
        ends += [*give_back(state, machine), *ended(state, machine, reason, "")]
    return ends


def promote(state: Instance, command: PromoteMachine) -> Sequence[Event]:
    """Answered once per failover: with the promotion, or with why not."""
    is_planned = state.plan is not None and state.plan.failover_id == command.failover_id
    if state.has_answered(command.failover_id, WARM_POOL) or is_planned:
        return []
    machine = state.machine(command.machine_id)
    if machine is not None and machine.role == "primary" and machine.status in LIVE:
        return []  # the customer's start was first
    objection = _objection(state, command.replaces)
    if machine is None or machine != state.ready_standby:
        return [_declined(state, command.machine_id, command.failover_id, "standby_not_ready")]
    if objection:
        return [_declined(state, command.machine_id, command.failover_id, objection)]
    if state.primary is not None and machine.status == "stopped":
        planned = PromotionPlanned(
            instance_id=state.instance_id,
            machine_id=machine.machine_id,
            replaces=command.replaces,
            failover_id=command.failover_id,
            give_up_at=command.give_up_at,
        )
        return [planned, requests.start(state, machine, now=command.now, give_up_at=command.give_up_at)]
    return _promotion(state, machine, command.failover_id, command.now, command.give_up_at)


def planned_promotion(state: Instance, machine: Machine, now: datetime) -> Sequence[Event] | None:
    """The standby is up and healthy: now it may take over, if that was planned and is still wanted."""
    plan = state.plan
    if plan is None or plan.machine_id != machine.machine_id:
        return None
    objection = _objection(state, plan.replaces)
    if objection:
        return [_declined(state, machine.machine_id, plan.failover_id, objection)]
    return _promotion(state, machine, plan.failover_id, now, plan.give_up_at)


def _promotion(
    state: Instance, machine: Machine, failover_id: str, now: datetime, give_up_at: datetime
) -> Sequence[Event]:
    recovering = InstanceRecovering(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=machine.machine_id,
        generation=machine.generation,
        failover_id=failover_id,
    )
    taken = take_over(state, machine, failover_id=failover_id, now=now, give_up_at=give_up_at)
    return [*give_up_primary(state, failover_id), recovering, *taken]


def _objection(state: Instance, replaces: str) -> str:
    """Why this promotion may not be, empty when it may. A late wish must not take a healthy machine away."""
    if state.status not in ("interrupted", "ready"):
        return f"instance_{state.status}"
    current_id = state.primary.machine_id if state.primary else state.interrupted_id
    return "" if current_id == replaces else "already_replaced"


def _last_lost(state: Instance) -> Machine | None:
    """The primary that was lost last."""
    return next((m for m in reversed(state.machines) if m.role == "primary" and m.status != "failed"), None)


def give_up_primary(state: Instance, failover_id: str) -> Sequence[Event]:
    """A failover that somebody wished: the working machine is lost to the customer from this commit on."""
    primary = state.primary
    if primary is None:
        return []
    lost = MachineLost(instance_id=state.instance_id, machine_id=primary.machine_id, reason="user_test")
    interrupted = InstanceInterrupted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=primary.machine_id,
        reason="user_test",
        failover_id=failover_id,
        on_cpu=is_on_cpu(state, primary),
    )
    return [lost, interrupted, requests.destroy(state, primary)]


def take_over(
    state: Instance, machine: Machine, *, failover_id: str, now: datetime, give_up_at: datetime
) -> Sequence[Event]:
    """The standby becomes the primary; what lost machines left at the cloud is given back."""
    current = state.primary or _last_lost(state)
    events: list[Event] = [
        MachinePromoted(
            instance_id=state.instance_id,
            machine_id=machine.machine_id,
            generation=machine.generation,
            replaces=current.machine_id if current else "",
            failover_id=failover_id,
            promoted_at=now,
            give_up_at=give_up_at,
            health_check=state.health_check,
        )
    ]
    if machine.status == "stopped":
        events.append(requests.start(state, machine, now=now, give_up_at=give_up_at))
    return [*events, *requests.destroy_lost(state)]


def ended(state: Instance, machine: Machine, reason: str, detail: str) -> Sequence[Event]:
    """A standby is no more; a failover that waited for it is answered. A successor is `gpu_return`'s."""
    if machine.role == "successor":
        return []
    said: list[Event] = [failed(state, machine.machine_id, reason, detail, role=machine.role)]
    if state.plan is not None and state.plan.machine_id == machine.machine_id:
        said.append(_declined(state, machine.machine_id, state.plan.failover_id, reason))
    return said


def fell_back(state: Instance, machine: Machine, reason: str) -> PromotionFailed:
    """The promoted machine did not come up."""
    declined = _declined(state, machine.machine_id, state.last_promotion, reason)
    return replace(declined, was_promoted=True, rung=state.last_rung)


def _declined(state: Instance, machine_id: str, failover_id: str, reason: str) -> PromotionFailed:
    return PromotionFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=machine_id,
        failover_id=failover_id,
        reason=reason,
    )


def volume_shared(state: Instance, command: ReportVolumeShared) -> Sequence[Event]:
    if state.volume is not None and state.volume.volume_id == command.volume_id:
        return []
    return [
        VolumeShared(
            instance_id=state.instance_id,
            provider=command.provider,
            host_id=command.host_id,
            volume_id=command.volume_id,
            size_gb=command.size_gb,
        )
    ]


def volume_released(state: Instance, command: ReportVolumeReleased) -> Sequence[Event]:
    del command
    return [] if state.volume is None else [VolumeReleased(instance_id=state.instance_id)]
