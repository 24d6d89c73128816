"""Facts of the failover service.

Aggregates: `guard` (one instance: its settings, limits, breakers and its failovers one after another, so that "one at a
time" is one decider's rule) and `settings` (one account's defaults).
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.failover.words import (
    Attempt,
    GlobalSettings,
    Limits,
    MachineSettings,
    Phase,
    PoolSeen,
    Rung,
    StandbyMode,
    Strategy,
)

# --- guard: public ------------------------------------------------------------------------------------------------


class FailoverStarted(Event, tag="failover.started", kw_only=True, frozen=True):
    """An instance is being brought back. `machine_id` is the machine that is replaced; `test`: somebody wished it."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    machine_id: str
    strategy: Strategy
    reason: str
    started_at: datetime
    gpu: str = ""
    test: bool = False
    is_quiet: bool = False  # its account wants no webhooks about failovers


class RungTried(Event, tag="failover.rung_tried", kw_only=True, frozen=True):
    """Whoever owns this rung is asked for a replacement of `machine_id`, ready by `give_up_at`."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    rung: Rung
    machine_id: str
    tried_at: datetime
    give_up_at: datetime


class WarmPoolSucceeded(Event, tag="failover.warm_pool_success", kw_only=True, frozen=True):
    """The standby of the warm pool carries the instance (seed 000)."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    machine_id: str
    took_ms: int
    test: bool = False
    is_quiet: bool = False


class CpuStandbySucceeded(Event, tag="failover.cpu_standby_success", kw_only=True, frozen=True):
    """The CPU standby serves, with checked files (seed 000)."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    machine_id: str
    took_ms: int
    test: bool = False
    is_quiet: bool = False


class CpuStandbyWanted(Event, tag="failover.cpu_standby_wanted", kw_only=True, frozen=True):
    """This new instance is to be kept in sync with a CPU machine, as its account has configured."""

    public = True
    instance_id: str
    account_id: str
    sync_interval_s: int


class CpuStandbyNoted(Event, tag="failover.cpu_standby_noted", kw_only=True, frozen=True):
    """Which CPU standby has a whole copy now; empty: none."""

    instance_id: str
    account_id: str
    machine_id: str = ""


class CloudStorageSucceeded(Event, tag="failover.cloud_storage_success", kw_only=True, frozen=True):
    """A new machine, filled from a snapshot, carries the instance."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    machine_id: str
    took_ms: int
    test: bool = False
    is_quiet: bool = False


class RegionalVolumeSucceeded(Event, tag="failover.regional_volume_success", kw_only=True, frozen=True):
    """A new machine in the region has the volume with the workspace. `failover.completed` follows."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    machine_id: str
    took_ms: int
    test: bool = False
    is_quiet: bool = False


class VolumeWanted(Event, tag="failover.volume_wanted", kw_only=True, frozen=True):
    """What the instance's settings come to: its next new machine is to have its workspace on a volume of its region, or
    (`size_gb` 0) not."""

    public = True
    instance_id: str
    account_id: str
    size_gb: int = 0
    mount_path: str = ""
    preferred_regions: tuple[str, ...] = ()


class PoolSwitched(Event, tag="failover.pool_switched", kw_only=True, frozen=True):
    """The instance's settings have come to allow it a warm pool, or (not `is_enabled`) to allow it none."""

    public = True
    instance_id: str
    account_id: str
    is_enabled: bool


class FailoverCompleted(Event, tag="failover.completed", kw_only=True, frozen=True):
    """The instance is ready again under its id. `data_loss_window_s`: at most so much work is missing."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    strategy: Rung
    reason: str
    original_machine_id: str
    machine_id: str
    generation: int
    total_ms: int
    data_loss_window_s: int
    phases: tuple[Phase, ...]
    attempts: tuple[Attempt, ...]
    completed_at: datetime
    gpu: str = ""
    test: bool = False
    is_quiet: bool = False
    on_cpu: bool = False  # without a GPU, until there is one again
    auto_recovery: bool = False  # a GPU is to be looked for at once


class FailoverFailed(Event, tag="failover.failed", kw_only=True, frozen=True):
    """Nothing brought the instance back. `error` is one word (disabled, limit_reached, every_rung_failed, …)."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    reason: str
    original_machine_id: str
    error: str
    total_ms: int
    attempts: tuple[Attempt, ...]
    failed_at: datetime
    phases: tuple[Phase, ...] = ()
    gpu: str = ""
    test: bool = False
    is_quiet: bool = False


# --- guard: private -----------------------------------------------------------------------------------------------


class LadderPlanned(Event, tag="failover.planned", kw_only=True, frozen=True):
    """How this failover may go: every rung in order, those that may be climbed, and the limits of that moment.

    `withheld`: rungs that only a wish which names a strategy with them climbs (`auto_failover` off).
    """

    failover_id: str
    instance_id: str
    ladder: tuple[Rung, ...]
    allowed: tuple[Rung, ...]
    rung_timeout_s: int
    limits: Limits
    planned_at: datetime
    auto_recovery: bool = True
    volume_timeout_s: int = 120  # as `rung_timeout_s`, for the rung regional_volume
    withheld: tuple[Rung, ...] = ()
    no_fallback: bool = False  # the account wants no CPU standby in the place of a warm pool


class RungSkipped(Event, tag="failover.rung_skipped", kw_only=True, frozen=True):
    """This rung was passed over, and why: not_in_strategy, auto_failover_off, breaker_open, or what its owner says."""

    failover_id: str
    instance_id: str
    rung: Rung
    reason: str
    skipped_at: datetime


class RungClaimed(Event, tag="failover.rung_claimed", kw_only=True, frozen=True):
    """The rung's owner has set a replacement aside; the instance is being moved to it."""

    failover_id: str
    instance_id: str
    rung: Rung
    machine_id: str
    claimed_at: datetime


class RungFailed(Event, tag="failover.rung_failed", kw_only=True, frozen=True):
    failover_id: str
    instance_id: str
    rung: Rung
    reason: str
    failed_at: datetime


class InterruptionJoined(Event, tag="failover.interruption_joined", kw_only=True, frozen=True):
    """A machine was lost while its replacement was already under way: the same failover answers for both.

    `machine_id` is the machine lost now, which later rungs replace.
    """

    failover_id: str
    instance_id: str
    joined_id: str
    machine_id: str = ""


class PoolNoted(Event, tag="failover.pool_noted", kw_only=True, frozen=True):
    """What the warm pool has said about itself."""

    instance_id: str
    account_id: str
    pool: PoolSeen


class SnapshotNoted(Event, tag="failover.snapshot_noted", kw_only=True, frozen=True):
    """From now on there is a snapshot to restore from."""

    instance_id: str
    account_id: str


class VolumeNoted(Event, tag="failover.volume_noted", kw_only=True, frozen=True):
    """The volume of the region that has the workspace; empty: none."""

    instance_id: str
    account_id: str
    volume_id: str = ""


class MachineSettingsUpdated(Event, tag="failover.machine_settings_updated", kw_only=True, frozen=True):
    instance_id: str
    account_id: str
    settings: MachineSettings


class GuardClosed(Event, tag="failover.guard_closed", kw_only=True, frozen=True):
    """The instance is deleted: there is nothing left to guard."""

    instance_id: str
    account_id: str


# --- settings -----------------------------------------------------------------------------------------------------


class SettingsUpdated(Event, tag="failover.settings_updated", kw_only=True, frozen=True):
    account_id: str
    settings: GlobalSettings


class PoolsChanged(Event, tag="failover.pools_changed", kw_only=True, frozen=True):
    """What the account has changed for the warm pools that it has (None: not this). `own_choice`: instances that decide
    for themselves whether they have one, and have not switched it off."""

    public = True
    account_id: str
    is_enabled: bool | None = None
    mode: StandbyMode | None = None
    volume_gb: int | None = None
    auto_reprovision: bool | None = None
    own_choice: tuple[str, ...] = ()


class CareChanged(Event, tag="failover.care_changed", kw_only=True, frozen=True):
    """How the account wants its machines watched and replaced from now on; what it left at the default is 0 or None.

    `health_check_s`: a machine is looked at every so often at the latest. `heartbeat_misses_max`: so many missed
    heartbeats are a silence. `gpu_names`: what will do, in this order, when a machine's own model is not to be had.
    """

    public = True
    account_id: str
    health_check_s: int = 0
    heartbeat_misses_max: int = 0
    gpu_names: tuple[str, ...] | None = None  # None: the default


GuardEvent = (
    FailoverStarted
    | RungTried
    | WarmPoolSucceeded
    | CpuStandbySucceeded
    | CpuStandbyWanted
    | CpuStandbyNoted
    | CloudStorageSucceeded
    | RegionalVolumeSucceeded
    | VolumeWanted
    | VolumeNoted
    | PoolSwitched
    | FailoverCompleted
    | FailoverFailed
    | LadderPlanned
    | RungSkipped
    | RungClaimed
    | RungFailed
    | InterruptionJoined
    | PoolNoted
    | SnapshotNoted
    | MachineSettingsUpdated
    | GuardClosed
)
SettingsEvent = SettingsUpdated | PoolsChanged | CareChanged
AnyEvent = GuardEvent | SettingsEvent
