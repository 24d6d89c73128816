"""What is remembered of an instance's CPU standby: the wish for one, and what was last told of its syncs.

Used by `instance` (as a part of its state) and `cpu_standby`.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from proto.instance.cpu_events import CpuStandbyDisabled, CpuStandbyEnabled, CpuStandbyEvent, SyncCompleted, SyncStarted


class CpuStandby(Struct, frozen=True):
    """`synced_machine_id`: the standby that has had a whole copy; `told…`: the newest cycle that became a fact."""

    sync_interval_s: int
    excludes: tuple[str, ...] = ()
    synced_machine_id: str = ""
    told_machine_id: str = ""
    told_cycle: int = 0
    was_ok: bool = True


def evolve(cpu: CpuStandby | None, event: CpuStandbyEvent) -> CpuStandby | None:
    """Fold one fact."""
    match event:
        case CpuStandbyEnabled():
            if cpu is None:
                return CpuStandby(event.sync_interval_s, event.excludes)
            return replace(cpu, sync_interval_s=event.sync_interval_s, excludes=event.excludes)
        case CpuStandbyDisabled():
            return None
        case SyncStarted():
            return cpu
        case SyncCompleted():
            if cpu is None:
                return None
            told = replace(cpu, told_machine_id=event.cpu_name, told_cycle=event.cycle, was_ok=event.ok)
            return replace(told, synced_machine_id=event.cpu_name) if event.ok else told
