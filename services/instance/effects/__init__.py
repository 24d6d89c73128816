"""The outside world of the instance service: clouds, probes, background watch. Outcomes come back as commands.

Split by noun: `world` (what there is), `intake` (the market into wishes), `renting` (contracts), `sharing` (volumes),
`storing` (snapshots), `probing` (health), `watching` (differences and orphans), `silence` (agents that are not heard
of), `idleness` (hibernation), `accompanying` (CPU standbys). Wired by `__main__`; nothing here writes state.
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.runtime.service import Effect, Intake, Task
from proto.base import Command, Event
from proto.instance.commands import (
    CreateInstance,
    HibernateInstance,
    ReplaceMachine,
    ReportStartRefused,
    RequestCpuStandby,
    RequestSnapshot,
    RequestStandby,
    StartInstance,
    SuspendInstance,
    TryReturn,
)
from proto.instance.events import (
    InstanceDeleted,
    MachineBooted,
    MachineDestroyRequested,
    MachinePromoted,
    MachineRequested,
    MachineRestored,
    MachineStartRequested,
    MachineStopRequested,
    SnapshotCompleted,
    SnapshotFailed,
    SnapshotsExpired,
    VolumeReleaseRequested,
)
from proto.instance.host_events import OrphanDestroyRequested
from services.instance.effects import (
    accompanying,
    bills,
    idleness,
    intake,
    probing,
    renting,
    sharing,
    silence,
    storing,
    watching,
)
from services.instance.effects.world import World

__all__ = ["EFFECTS", "INTAKE", "TASKS", "World"]

# Giving back may take as long as the cloud is away: with a pause of 30 s that is two hours, then the census goes on.
GIVE_BACK_TRIES_MAX = 240

# Lanes: power changes of one instance in order; renting, probing and giving back beside them: each may take long.
EFFECTS: Mapping[type[Event], Effect] = {
    MachineRequested: Effect(
        renting.rent, lane="rent", exhausted=renting.not_rented, patient=renting.is_for_a_new_instance
    ),
    MachineStartRequested: Effect(renting.start, lane="power", exhausted=renting.not_started),
    MachineStopRequested: Effect(renting.stop, lane="power", tries_max=GIVE_BACK_TRIES_MAX),
    MachineDestroyRequested: Effect(renting.destroy, lane="give_back", tries_max=GIVE_BACK_TRIES_MAX),
    OrphanDestroyRequested: Effect(renting.destroy_orphan, lane="give_back", tries_max=GIVE_BACK_TRIES_MAX),
    VolumeReleaseRequested: Effect(sharing.release_volumes, lane="give_back_volumes", tries_max=GIVE_BACK_TRIES_MAX),
    MachineBooted: Effect(probing.probe, lane="probe"),
    MachinePromoted: Effect(probing.probe, lane="probe"),
    MachineRestored: Effect(probing.probe, lane="probe"),
    SnapshotCompleted: Effect(idleness.check_copy, lane="storage"),
    SnapshotFailed: Effect(storing.forget_failed, lane="storage"),
    SnapshotsExpired: Effect(storing.forget_expired, lane="storage"),
    InstanceDeleted: Effect(storing.forget_all, lane="storage"),
}
INTAKE: Mapping[type[Command], Intake] = {
    CreateInstance: intake.with_offers,
    StartInstance: intake.with_offers_for_start,
    ReportStartRefused: intake.with_offers_elsewhere,
    RequestStandby: intake.with_offers_on_host,
    ReplaceMachine: intake.with_offers_for_replacement,
    RequestSnapshot: intake.with_storage,
    HibernateInstance: intake.with_storage,
    SuspendInstance: intake.with_storage,
    RequestCpuStandby: intake.with_cpu_offers,
    TryReturn: intake.with_offers_for_return,
}
TASKS: tuple[Task, ...] = (
    watching.watch_providers,
    silence.watch_agents,
    storing.keep_bucket,
    storing.take_in_time,
    idleness.watch_idleness,
    bills.follow_bills,
    accompanying.keep_cpu_standbys,
)
