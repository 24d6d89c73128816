"""What the guard remembers of what rungs need: a pool, a CPU standby, a volume, a snapshot. Called by `climbing`."""

from __future__ import annotations

from collections.abc import Sequence

from proto.base import Event
from proto.failover.commands import NoteCpuStandby, NotePool, NoteSnapshot, NoteVolume, ProtectNew
from proto.failover.events import CpuStandbyNoted, CpuStandbyWanted, PoolNoted, SnapshotNoted, VolumeNoted
from services.failover.decider import ladder
from services.failover.decider.guard import Guard


def pool(state: Guard, command: NotePool) -> Sequence[Event]:
    if state.closed or state.pool == command.pool:
        return []
    return [PoolNoted(instance_id=command.instance_id, account_id=command.account_id, pool=command.pool)]


def protect(state: Guard, command: ProtectNew) -> Sequence[Event]:
    """Once, by the settings of the moment in which the instance was created."""
    cpu, own = command.settings.cpu_standby, state.settings
    allowed = ladder.allowed_rungs(ladder.effective_strategy(own, command.settings), own, command.settings)
    if state.closed or state.is_cpu_wanted or not cpu.auto_standby or "cpu_standby" not in allowed:
        return []
    return [
        CpuStandbyWanted(
            instance_id=command.instance_id,
            account_id=command.account_id,
            sync_interval_s=cpu.sync_interval_seconds,
        )
    ]


def cpu_standby(state: Guard, command: NoteCpuStandby) -> Sequence[Event]:
    """A later one takes the place of the one before; a loss of any other is no news, nor is a copy that is heard of
    again after a crash, when the machine has taken over meanwhile."""
    is_news = (command.machine_id == state.cpu_machine_id) == command.is_lost
    is_before = not command.is_lost and state.cpu_taken_at is not None and command.now <= state.cpu_taken_at
    if state.closed or not is_news or is_before:
        return []
    machine_id = "" if command.is_lost else command.machine_id
    return [CpuStandbyNoted(instance_id=command.instance_id, account_id=command.account_id, machine_id=machine_id)]


def snapshot(state: Guard, command: NoteSnapshot) -> Sequence[Event]:
    """Told once: the newest snapshot is never taken away."""
    if state.closed or state.has_snapshot:
        return []
    return [SnapshotNoted(instance_id=command.instance_id, account_id=command.account_id)]


def volume(state: Guard, command: NoteVolume) -> Sequence[Event]:
    """One takes the place of another; that any other is given up is no news."""
    is_news = (command.volume_id == state.volume_id) == command.is_given_up
    if state.closed or not is_news:
        return []
    volume_id = "" if command.is_given_up else command.volume_id
    return [VolumeNoted(instance_id=command.instance_id, account_id=command.account_id, volume_id=volume_id)]
