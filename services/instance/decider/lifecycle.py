"""The customer's wishes for an instance: create, start, stop, delete, keep.

Called by `wishes.decide`. Reports about machines are decided in `machine`. Rules: contract dumont 1, novita A3-A7.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Event
from proto.instance.commands import (
    CreateInstance,
    DeleteInstance,
    InstanceCommand,
    KeepAlive,
    MarkUsed,
    StartInstance,
    StopIfIdle,
    StopInstance,
)
from proto.instance.events import (
    CpuStandbyEnabled,
    InstanceCreated,
    InstanceDeleted,
    InstanceDeleting,
    InstanceKeptAlive,
    InstanceStarting,
    InstanceStopping,
    InstanceUsed,
    MachineCancelled,
    MachineDestroyRequested,
    MachineRequested,
    VolumeReleaseRequested,
)
from proto.instance.words import MachineSpec, Offer, VolumeWish
from services.instance.decider import cpu_standby, hibernation, requests, standby, volume
from services.instance.decider import machine as machines
from services.instance.decider.instance import Instance, InstanceState
from services.instance.decider.machine_state import ON, Machine
from services.instance.decider.market import CANDIDATES_MAX

STARTUP_MINUTES_MAX = 10  # seed 001's STARTUP_TIMEOUT and seed 004's clients wait this long
KEEP_ALIVE_MINUTES_MAX = 1440  # contract dumont 6
LOST = ("interrupted", "failed")  # its last files are where they were copied to
IN_USE = ("ready", "hibernating")  # the customer's programs run


def create(state: InstanceState, command: CreateInstance) -> Sequence[Event]:
    if state is not None:
        if state.account_id != command.account_id:
            raise Refused("INSTANCE_NOT_FOUND", instance_id=state.instance_id)
        if state.request_hash != command.request_hash:
            raise Refused("IDEMPOTENCY_CONFLICT", instance_id=state.instance_id)
        return []
    _refuse_without_offers(command.offers, command.no_offer, command.spec, command.offer_id)
    return [
        InstanceCreated(
            instance_id=command.instance_id,
            account_id=command.account_id,
            name=command.name,
            gpu=command.spec.gpu,
            spec=command.spec,
            region=command.spec.region,
            webhook_url=command.webhook_url,
            health_check=command.health_check,
            auto_stop_minutes=command.auto_stop_minutes,
            request_hash=command.request_hash,
            dialect=command.dialect,
            protection=command.protection,
            volume=command.volume,
            skip_standby=command.skip_standby,
            created_at=command.now,
        ),
        *_accompanied(command),
        _request_machine(
            command,
            account_id=command.account_id,
            machine_id=command.machine_id,
            generation=1,
            spec=command.spec,
            offers=command.offers,
            exact=bool(command.offer_id),
            volume_wish=command.volume,
        ),
    ]


def _accompanied(command: CreateInstance) -> Sequence[Event]:
    """A CPU standby that was asked for with the create: rented once the instance is ready."""
    wanted = command.protection
    if wanted is None or not wanted.sync_interval_s:
        return []
    return [
        CpuStandbyEnabled(
            instance_id=command.instance_id,
            account_id=command.account_id,
            sync_interval_s=wanted.sync_interval_s,
            excludes=wanted.sync_excludes,
        )
    ]


def _refuse_without_offers(offers: Sequence[Offer], code: str, spec: MachineSpec, offer_id: str = "") -> None:
    if not offers:
        raise Refused(code or "NO_AVAILABLE_PRODUCTS", gpu=spec.gpu, region=spec.region, offer_id=offer_id)


def _request_machine(
    command: InstanceCommand,
    *,
    account_id: str,
    machine_id: str,
    generation: int,
    spec: MachineSpec,
    offers: Sequence[Offer],
    volume_wish: VolumeWish | None,
    exact: bool = False,
    restore: str = "",
) -> MachineRequested:
    return MachineRequested(
        instance_id=command.instance_id,
        account_id=account_id,
        machine_id=machine_id,
        role="primary",
        generation=generation,
        spec=spec,
        offers=tuple(offers[:CANDIDATES_MAX]),
        requested_at=command.now,
        give_up_at=_give_up_at(command.now),
        exact=exact,
        restore=restore,
        volume=volume_wish,
    )


def _give_up_at(now: datetime) -> datetime:
    return now + timedelta(minutes=STARTUP_MINUTES_MAX)


def start(state: Instance, command: StartInstance) -> Sequence[Event]:
    if state.status in ("creating", "starting", "running", "health_checking", "ready"):
        return []
    if state.status == "hibernating":
        return hibernation.cancel(state, "user_request", command.now)
    if state.status not in ("stopped", "failed", "interrupted", "hibernated"):
        raise _not_startable(state)
    primary = state.primary
    if primary is None:
        if state.machine(command.machine_id) is None and state.ready_standby is not None:
            return _start_on_standby(state, state.ready_standby, command)
        in_sync = cpu_standby.in_sync(state)
        is_best = state.status in LOST and not _is_volume_to_be_had(state, command)
        if state.machine(command.machine_id) is None and in_sync is not None and is_best:
            taken = cpu_standby.start_on(state, in_sync, now=command.now, give_up_at=_give_up_at(command.now))
            starting = _starting(state, command, in_sync.machine_id)
            return [replace(starting, on_standby=True, on_cpu=True), *taken]
        return _start_on_new_machine(state, command)
    if primary.status != "stopped":
        raise _not_startable(state)
    start_request = requests.start(state, primary, now=command.now, give_up_at=_give_up_at(command.now))
    return [_starting(state, command, primary.machine_id), start_request]


def _is_volume_to_be_had(state: Instance, command: StartInstance) -> bool:
    """The files themselves, not only a copy of them."""
    kept = state.volume
    is_beside = kept is not None and any(offer.host_id == kept.host_id for offer in command.offers)
    return is_beside or volume.of_region(state) is not None


def _not_startable(state: Instance) -> Refused:
    advice = {
        "stopping": "wait until it is stopped",
        "failed": "wait until its machine is stopped",
        "deleting": "create a new instance",
        "deleted": "create a new instance",
    }.get(state.status, "wait until this operation has ended")
    return Refused("INSTANCE_NOT_STARTABLE", instance_id=state.instance_id, status=state.status, advice=advice)


def _starting(state: Instance, command: StartInstance, machine_id: str) -> InstanceStarting:
    return InstanceStarting(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=machine_id,
        health_check=command.health_check,
        webhook_url=command.webhook_url,
    )


def _start_on_new_machine(state: Instance, command: StartInstance) -> Sequence[Event]:
    """A new generation. Files on a volume of a region bind the start to that region: an older copy elsewhere would lose
    what is there."""
    if state.machine(command.machine_id) is not None:
        return []  # a late repeat of a start whose machine has ended since
    bound_to = volume.of_region(state)
    offers = volume.offers_there(state, command.offers)
    place = state.spec if bound_to is None else replace(state.spec, region=bound_to.region)
    _refuse_without_offers(offers, command.no_offer, place)
    latest = state.vault.latest if bound_to is None else None
    standbys = standby.give_back_all(state, "primary_moved")
    request = _request_machine(
        command,
        account_id=state.account_id,
        machine_id=command.machine_id,
        generation=state.generation + 1,
        spec=state.spec,
        offers=offers,
        restore=latest.snapshot_id if latest else "",
        volume_wish=state.volume_wish if bound_to is None else None,
    )
    waking = hibernation.wake(state, command.now)
    return [*waking, _starting(state, command, command.machine_id), *requests.destroy_lost(state), *standbys, request]


def _start_on_standby(state: Instance, machine: Machine, command: StartInstance) -> Sequence[Event]:
    """The customer's own failover: the standby has the files."""
    starting = replace(_starting(state, command, machine.machine_id), on_standby=True)
    taken = standby.take_over(state, machine, failover_id="", now=command.now, give_up_at=_give_up_at(command.now))
    return [starting, *taken]


def stop(state: Instance, command: StopInstance) -> Sequence[Event]:
    if state.status in ("stopping", "stopped"):
        return []
    primary = state.primary
    if primary is None or primary.status not in ON:
        raise Refused(
            "INSTANCE_NOT_STOPPABLE",
            instance_id=state.instance_id,
            status=state.status,
            advice=_advice_instead_of_stop(state),
        )
    return stopping(state, primary, command.reason)


def _advice_instead_of_stop(state: Instance) -> str:
    match state.status:
        case "creating" | "starting":
            return "wait until its machine is rented, or delete it"
        case "failed" | "interrupted":
            return "start it again, or delete it"
        case _:
            return "nothing of it is running"


def stopping(state: Instance, primary: Machine, reason: str) -> Sequence[Event]:
    """Its disk is kept; a CPU standby, which nothing is copied to any more, is not."""
    return [
        InstanceStopping(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            reason=reason,
            on_cpu=standby.is_on_cpu(state, primary),
        ),
        requests.stop(state, primary),
        *cpu_standby.give_back(state, "instance_stopped"),
    ]


def delete(state: Instance, command: DeleteInstance) -> Sequence[Event]:
    if state.status in ("deleting", "deleted"):
        return []
    deleting = InstanceDeleting(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        reason=command.reason,
    )
    events: list[Event] = [deleting]
    for machine in state.machines:
        events += _give_back(state, machine)
    if state.volume is not None or state.shared_from:
        events.append(VolumeReleaseRequested(instance_id=state.instance_id))
    if not any(machine.has_contract for machine in state.machines):
        events.append(_deleted(state, command.reason))
    return events


def _give_back(state: Instance, machine: Machine) -> Sequence[MachineCancelled | MachineDestroyRequested]:
    """What it takes to end one machine of an instance that is being deleted."""
    ends: list[MachineCancelled | MachineDestroyRequested] = []
    if machine.status in ("requested", "rented", "booted") and not machine.was_healthy:
        ends.append(MachineCancelled(instance_id=state.instance_id, machine_id=machine.machine_id, offer=machine.offer))
    if machine.has_contract and machine.status != "destroying":
        ends.append(requests.destroy(state, machine))
    return ends


def _deleted(state: Instance, reason: str) -> InstanceDeleted:
    return InstanceDeleted(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        reason=reason,
    )


def mark_used(state: Instance, command: MarkUsed) -> Sequence[Event]:
    """Only forward, and not into the future: a clock ahead of ours must not keep an instance alive for ever."""
    _refuse_if_ending(state)
    used_at = min(command.used_at, command.now)
    if state.last_used_at is not None and used_at <= state.last_used_at:
        return []
    stop_at = _auto_stop_at(state, used_at, state.keep_alive_until) if state.status in IN_USE else None
    used = InstanceUsed(instance_id=state.instance_id, used_at=used_at, auto_stop_at=stop_at)
    return [used, *hibernation.cancel(state, "in_use", command.now)]


def keep_alive(state: Instance, command: KeepAlive) -> Sequence[Event]:
    if not 1 <= command.minutes <= KEEP_ALIVE_MINUTES_MAX:
        raise Refused("VALIDATION_ERROR", field="minutes", reason=f"must be 1 to {KEEP_ALIVE_MINUTES_MAX}")
    _refuse_if_ending(state)
    until = command.now + timedelta(minutes=command.minutes)
    if state.keep_alive_until is not None and until <= state.keep_alive_until:
        return []
    stop_at = _auto_stop_at(state, state.last_used_at, until) if state.status in IN_USE else None
    kept = InstanceKeptAlive(instance_id=state.instance_id, until=until, auto_stop_at=stop_at)
    is_in_time = state.sleep.will_at is None or state.sleep.will_at < until
    return [kept, *(hibernation.cancel(state, "kept_alive", command.now) if is_in_time else [])]


def _refuse_if_ending(state: Instance) -> None:
    if state.status in ("deleting", "deleted"):
        advice = "create a new instance"
        raise Refused("INVALID_STATE", instance_id=state.instance_id, status=state.status, advice=advice)


def stop_if_idle(state: Instance, command: StopIfIdle) -> Sequence[Event]:
    primary = state.primary
    if state.status != "ready" or primary is None:
        return []
    stop_at = _auto_stop_at(state, state.last_used_at, state.keep_alive_until)
    if stop_at is None or command.now < stop_at:
        return []
    return stopping(state, primary, "auto_stop")


def _auto_stop_at(state: Instance, last_used_at: datetime | None, keep_alive_until: datetime | None) -> datetime | None:
    """When idleness stops it: counted from the last use since it became ready; a keep-alive is a floor."""
    return machines.auto_stop_at(
        minutes=state.auto_stop_minutes,
        ready_at=state.ready_at,
        last_used_at=last_used_at,
        keep_alive_until=keep_alive_until,
    )
