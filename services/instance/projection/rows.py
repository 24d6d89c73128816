"""Rows of instances, machines, hosts and orphans, and which event goes where. Pure; called by the runtime.

Rows are keyed so that a replay is harmless. Structured columns are jsonb. A due deadline always leads to an event
that withdraws or moves it, because the decider computes the same instant from the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, cast, get_args

from libs.runtime.service import Row, deadline, no_deadline, wish
from proto.base import Event, Heard
from proto.instance.care import CareNoted
from proto.instance.commands import GiveUpMachine, StopIfIdle
from proto.instance.cpu_events import CpuStandbyDisabled, CpuStandbyEnabled, SyncCompleted, SyncStarted
from proto.instance.events import (
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
    HibernationCancelled,
    HibernationScheduled,
    InstanceCreated,
    InstanceDeleted,
    InstanceDeleting,
    InstanceFailed,
    InstanceHealthChecking,
    InstanceHibernated,
    InstanceHibernating,
    InstanceInterrupted,
    InstanceKeptAlive,
    InstanceReady,
    InstanceRecovering,
    InstanceRunning,
    InstanceStarting,
    InstanceStopped,
    InstanceStopping,
    InstanceUsed,
    InstanceWaking,
    MachineBooted,
    MachineCancelled,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachinePromoted,
    MachineRented,
    MachineRequested,
    MachineRestored,
    MachineStartRequested,
    MachineStopped,
    MachineStopRequested,
    PromotionFailed,
    SnapshotCompleted,
    SnapshotFailed,
    SnapshotRequested,
    SnapshotsExpired,
    VolumeAttached,
    VolumeGivenUp,
    VolumeOutdated,
    VolumeReleased,
    VolumeShared,
)
from proto.instance.host_commands import DestroyOrphan, host_key
from proto.instance.host_events import (
    AttemptRecorded,
    HostBlacklisted,
    HostUnblacklisted,
    MachineBilled,
    OrphanDestroyed,
    OrphanDestroyRequested,
    OrphanFound,
)
from proto.instance.return_events import ReturnEvent
from services.instance.projection import bills, cares, cpu_standbys, gpu_returns, hibernation, snapshots, volumes
from services.instance.projection.hibernation import AUTO_STOP

Route: TypeAlias = Callable[[Heard], Iterable[Row]]

AUTO_STOP_REASON = "auto_stop"
DESTROY_ORPHAN = "destroy_orphan"


def project(heard: Heard) -> Iterable[Row]:
    """Rows to merge for one event; nothing for events of no interest."""
    route = _ROUTES.get(type(heard.event))
    return () if route is None else route(heard)


def _instance(heard: Heard, **columns: Any) -> Row:
    return Row("instances", {"instance_id": heard.aggregate_id}, columns)


def _project_instance(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case InstanceCreated() as event:
            yield _instance(
                heard,
                account_id=event.account_id,
                name=event.name,
                status="creating",
                gpu=event.gpu,
                spec=event.spec,
                region=event.region,
                webhook_url=event.webhook_url,
                auto_stop_minutes=event.auto_stop_minutes,
                created_at=event.created_at or heard.at,
            )
        case InstanceStarting() as event:
            changed = {"webhook_url": event.webhook_url} if event.webhook_url else {}
            yield _instance(
                heard, status="starting", status_reason="", failure_code="", machine_id=event.machine_id, **changed
            )
        case InstanceRunning():
            yield _instance(heard, status="running", started_at=heard.at)
        case InstanceHealthChecking():
            yield _instance(heard, status="health_checking")
        case InstanceReady() as event:
            ready = {"ready_at": event.ready_at, "region": event.region, "machine_id": event.machine_id}
            yield _instance(heard, status="ready", status_reason="", **ready)
            yield from _auto_stop(heard, event)
        case InstanceRecovering():
            yield _instance(heard, status="recovering")
        case PromotionFailed(was_promoted=True):
            yield _instance(heard, status="interrupted")
        case InstanceUsed() as event:
            yield _instance(heard, last_used_at=event.used_at)
            yield from _auto_stop(heard, event)
        case InstanceKeptAlive() as event:
            yield _instance(heard, keep_alive_until=event.until)
            yield from _auto_stop(heard, event)
        case _:
            return


def _auto_stop(heard: Heard, event: InstanceReady | InstanceUsed | InstanceKeptAlive) -> Iterator[Row]:
    if event.auto_stop_at is not None:
        command = wish(StopIfIdle, instance_id=event.instance_id)
        yield deadline(heard.aggregate_id, AUTO_STOP, event.auto_stop_at, command)


def _project_ending(heard: Heard) -> Iterator[Row]:
    """The ways in which an instance ceases to be ready; each withdraws the auto-stop."""
    match heard.event:
        case InstanceStopping() as event:
            yield _instance(heard, status="stopping", status_reason=event.reason)
            if event.reason == AUTO_STOP_REASON:
                columns = {"instance_id": event.instance_id, "account_id": event.account_id, "stopped_at": heard.at}
                yield Row("auto_stops", {"event_id": heard.event_id}, columns)
        case InstanceStopped() as event:
            yield _instance(heard, status="stopped", status_reason=event.reason, stopped_at=heard.at)
        case InstanceInterrupted() as event:
            yield _instance(heard, status="interrupted", status_reason=event.reason)
        case InstanceFailed() as event:
            yield _instance(heard, status="failed", status_reason=event.detail, failure_code=event.code)
        case InstanceDeleting() as event:
            yield _instance(heard, status="deleting", status_reason=event.reason)
        case InstanceDeleted() as event:
            yield _instance(heard, status="deleted", status_reason=event.reason, deleted_at=heard.at)
        case _:
            return
    yield _instance(heard, hibernate_at=None, hibernation_wished=False)
    yield no_deadline(heard.aggregate_id, AUTO_STOP)


def _machine(heard: Heard, machine_id: str, status: str, **columns: Any) -> Row:
    return Row("machines", {"machine_id": machine_id}, {"status": status, "changed_at": heard.at, **columns})


def _give_up(heard: Heard, event: MachineRequested | MachineStartRequested | MachinePromoted) -> Row:
    command = wish(GiveUpMachine, instance_id=event.instance_id, machine_id=event.machine_id)
    return deadline(heard.aggregate_id, _give_up_name(event.machine_id), event.give_up_at, command)


def _give_up_name(machine_id: str) -> str:
    return f"give_up:{machine_id}"


def _project_machine(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case MachineRequested() as event:
            yield _machine(
                heard,
                event.machine_id,
                "requested",
                instance_id=event.instance_id,
                account_id=event.account_id,
                role=event.role,
                generation=event.generation,
                requested_at=event.requested_at,
                restore=event.restore,
            )
            if event.role == "primary":
                yield _instance(heard, machine_id=event.machine_id, generation=event.generation)
            yield _give_up(heard, event)
        case MachineRented() as event:
            yield _machine(
                heard,
                event.machine_id,
                "rented",
                provider=event.provider,
                provider_machine_id=event.provider_machine_id,
                host_id=event.offer.host_id,
                region=event.offer.region,
                price_usd_micros_per_hour=event.offer.price_usd_micros_per_hour,
                offer=event.offer,
                gone=False,
                rented_at=heard.at,
                volume_id=event.volume.volume_id if event.volume else "",
                **({"restore": ""} if event.has_volume and event.volume is None else {}),
            )
        case MachineRestored(machine_id=machine_id, captured_at=captured_at):
            yield Row("machines", {"machine_id": machine_id}, {"restored_at": captured_at})
        case MachineBooted() as event:
            yield _machine(heard, event.machine_id, "booted", endpoints=event.endpoints)
        case MachineStartRequested() as event:
            yield _machine(heard, event.machine_id, "rented", silent_since=None)
            yield _give_up(heard, event)
        case MachinePromoted() as event:
            filled = {"restore": event.restore, "restored_at": None} if event.restore else {}
            yield _machine(heard, event.machine_id, "booted", role="primary", generation=event.generation, **filled)
            yield _instance(heard, machine_id=event.machine_id, generation=event.generation)
            yield _give_up(heard, event)
        case AgentHeartbeatLost(machine_id=machine_id, last_seen_at=last_seen_at):
            yield Row("machines", {"machine_id": machine_id}, {"silent_since": last_seen_at})
        case AgentHeartbeatRestored(machine_id=machine_id):
            yield Row("machines", {"machine_id": machine_id}, {"silent_since": None})
        case _:
            return


def _project_machine_end(heard: Heard, event: MachineEnd, status: str) -> Iterator[Row]:
    """The ways in which a machine ceases to be coming up; each withdraws its give-up."""
    match event:
        case MachineDestroyed():
            yield _machine(heard, event.machine_id, status, gone=True)
        case MachineLost():
            yield _machine(heard, event.machine_id, status, gone=event.gone)
        case _:
            yield _machine(heard, event.machine_id, status)
    yield no_deadline(heard.aggregate_id, _give_up_name(event.machine_id))


def _project_host(heard: Heard) -> Iterator[Row]:
    event = heard.event
    assert isinstance(event, AttemptRecorded | HostBlacklisted | HostUnblacklisted)
    host = {"provider": event.provider, "host_id": event.host_id}
    match event:
        case AttemptRecorded():
            attempt = {
                **host,
                "instance_id": event.instance_id,
                "gpu": event.offer.gpu,
                "outcome": event.outcome,
                "stage": event.stage,
                "reason": event.reason,
                "took_ms": event.took_ms,
                "offer": event.offer,
                "attempted_at": event.attempted_at,
            }
            totals = {
                "attempts_total": event.attempts_total,
                "successes_total": event.successes_total,
                "last_attempt_at": event.attempted_at,
            }
            yield Row("attempts", {"attempt_id": event.attempt_id}, attempt)
            yield Row("hosts", host, totals)
        case HostBlacklisted():
            entry = {
                "kind": event.kind,
                "reason": event.reason,
                "gpu": event.gpu,
                "blacklisted_at": heard.at,
                "expires_at": event.expires_at,
                "attempts_total": event.attempts_total,
                "attempts_failed": event.attempts_failed,
                "last_failure": event.last_failure,
            }
            yield Row("blacklist", {**host, "account_id": event.account_id}, entry)
        case HostUnblacklisted():
            yield Row("blacklist", {**host, "account_id": event.account_id}, None)


def _project_orphan(heard: Heard) -> Iterator[Row]:
    event = heard.event
    assert isinstance(event, OrphanFound | OrphanDestroyRequested | OrphanDestroyed)
    orphan = {"provider": event.provider, "provider_machine_id": event.provider_machine_id}
    key = host_key(event.provider, event.provider_machine_id)
    match event:
        case OrphanFound():
            columns = {
                "kind": event.kind,
                "label": event.label,
                "status": "found",
                "found_at": heard.at,
                "destroy_after": event.destroy_after,
                "gone_at": None,
            }
            yield Row("orphans", orphan, columns)
            yield deadline(key, DESTROY_ORPHAN, event.destroy_after, wish(DestroyOrphan, **orphan))
        case OrphanDestroyRequested():
            yield Row("orphans", orphan, {"status": "destroying"})
            yield no_deadline(key, DESTROY_ORPHAN)
        case OrphanDestroyed():
            yield Row("orphans", orphan, {"status": "gone", "gone_at": heard.at})
            yield no_deadline(key, DESTROY_ORPHAN)


_BEGINNINGS = (
    InstanceCreated,
    InstanceStarting,
    InstanceRunning,
    InstanceHealthChecking,
    InstanceReady,
    InstanceRecovering,
    PromotionFailed,
    InstanceUsed,
    InstanceKeptAlive,
)
_ENDINGS = (
    InstanceStopping,
    InstanceStopped,
    InstanceInterrupted,
    InstanceFailed,
    InstanceDeleting,
    InstanceDeleted,
)
_HIBERNATION = (
    HibernationScheduled,
    HibernationCancelled,
    InstanceHibernating,
    InstanceHibernated,
    InstanceWaking,
)
_MACHINES = (
    MachineRequested,
    MachineRented,
    MachineBooted,
    MachineStartRequested,
    MachinePromoted,
    MachineRestored,
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
)
_VOLUMES = (VolumeShared, VolumeAttached, VolumeGivenUp, VolumeOutdated, VolumeReleased)
MachineEnd: TypeAlias = (
    MachineHealthy
    | MachineFailed
    | MachineCancelled
    | MachineStopRequested
    | MachineStopped
    | MachineDestroyRequested
    | MachineDestroyed
    | MachineLost
)
_MACHINE_ENDS: dict[type[MachineEnd], str] = {
    MachineHealthy: "healthy",
    MachineFailed: "failed",
    MachineCancelled: "cancelled",
    MachineStopRequested: "stopping",
    MachineStopped: "stopped",
    MachineDestroyRequested: "destroying",
    MachineDestroyed: "destroyed",
    MachineLost: "lost",
}


def _machine_end_to(status: str) -> Route:
    # The routes are by type, so the event is one of MachineEnd.
    return lambda heard: _project_machine_end(heard, cast(MachineEnd, heard.event), status)


# A replay asks a million times, so the way is looked up, not searched for. InstanceStarted says what InstanceReady has
# said and has none.
_ROUTES: dict[type[Event], Route] = {
    **dict.fromkeys(_BEGINNINGS, _project_instance),
    **dict.fromkeys(_ENDINGS, _project_ending),
    **dict.fromkeys(_MACHINES, _project_machine),
    **dict.fromkeys(_VOLUMES, volumes.project),
    **{kind: _machine_end_to(status) for kind, status in _MACHINE_ENDS.items()},
    **dict.fromkeys((AttemptRecorded, HostBlacklisted, HostUnblacklisted), _project_host),
    **dict.fromkeys((SnapshotRequested, SnapshotCompleted, SnapshotFailed, SnapshotsExpired), snapshots.project),
    **dict.fromkeys(_HIBERNATION, hibernation.project),
    MachineBilled: bills.project,
    CareNoted: cares.project,
    **dict.fromkeys((CpuStandbyEnabled, CpuStandbyDisabled, SyncStarted, SyncCompleted), cpu_standbys.project),
    **dict.fromkeys(get_args(ReturnEvent), gpu_returns.project),
    **dict.fromkeys((OrphanFound, OrphanDestroyRequested, OrphanDestroyed), _project_orphan),
}
