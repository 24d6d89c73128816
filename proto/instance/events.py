"""Facts of the instance service.

Aggregates: `instance` (the instance and all its machines, so that "exactly one primary" is one decider's rule),
`host` (attempts and blacklist of one provider host) and `orphan` (a provider machine that no instance owns).
Public facts carry `account_id` and what a receiver needs without asking back: name, gpu, status, endpoints.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.instance.care import CareNoted
from proto.instance.cpu_events import CpuStandbyDisabled, CpuStandbyEnabled, SyncCompleted, SyncStarted
from proto.instance.hibernation_events import (
    HibernationCancelled,
    HibernationScheduled,
    InstanceHibernated,
    InstanceHibernating,
    InstanceWaking,
)
from proto.instance.host_events import HostEvent, MachineBilled, OrphanEvent
from proto.instance.machine_events import (
    MachineBooted,
    MachineCancelled,
    MachineDestroyed,
    MachineDestroyRequested,
    MachineFailed,
    MachineHealthy,
    MachineLost,
    MachineRented,
    MachineRequested,
    MachineStartRequested,
    MachineStopped,
    MachineStopRequested,
)
from proto.instance.return_events import ReturnEvent
from proto.instance.snapshot_events import (
    MachineRestored,
    SnapshotCompleted,
    SnapshotFailed,
    SnapshotRequested,
    SnapshotsExpired,
)
from proto.instance.standby_events import (
    AgentHeartbeatLost,
    AgentHeartbeatRestored,
    InstanceMigrated,
    InstanceRecovering,
    MachinePromoted,
    PromotionFailed,
    PromotionPlanned,
    StandbyFailed,
    StandbyReady,
)
from proto.instance.volume_events import (
    VolumeAttached,
    VolumeGivenUp,
    VolumeOutdated,
    VolumeReleased,
    VolumeReleaseRequested,
    VolumeShared,
    VolumeWished,
)
from proto.instance.wish_events import InstanceKeptAlive, InstanceUsed, InstanceWishHeeded
from proto.instance.words import Endpoint, HealthCheck, InterruptionReason, MachineSpec, Protection, VolumeWish

# --- instance: public ---------------------------------------------------------------------------------------------


class InstanceCreated(Event, tag="instance.created", kw_only=True, frozen=True):
    """The customer asked for an instance and we took it on."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    spec: MachineSpec
    region: str = ""
    webhook_url: str = ""
    health_check: HealthCheck = HealthCheck()
    auto_stop_minutes: int = 0  # 0: never
    request_hash: str = ""  # of the request that carried the Idempotency-Key
    dialect: str = ""
    protection: Protection | None = None
    volume: VolumeWish | None = None  # its workspace is to be on a volume of the region
    skip_standby: bool = False
    created_at: datetime | None = None  # when it was asked for, as the answer said; the commit's instant if not given


class InstanceStarting(Event, tag="instance.starting", kw_only=True, frozen=True):
    """A machine is being brought up. `health_check` and `webhook_url` are set when this start changes them."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    health_check: HealthCheck | None = None
    webhook_url: str = ""
    on_standby: bool = False  # the machine was its standby until now
    on_cpu: bool = False  # and a CPU standby at that


class InstanceRunning(Event, tag="instance.running", kw_only=True, frozen=True):
    """The machine runs; nothing is proven yet."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str


class InstanceHealthChecking(Event, tag="instance.health_checking", kw_only=True, frozen=True):
    """Probes of the endpoints have begun."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str


class InstanceReady(Event, tag="instance.ready", kw_only=True, frozen=True):
    """Every probe passed: the endpoints serve. `auto_stop_at`: when it will be stopped if nobody uses it."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    generation: int
    endpoints: tuple[Endpoint, ...]
    ready_at: datetime
    auto_stop_at: datetime | None = None
    region: str = ""
    price_usd_micros_per_hour: int = 0
    provider: str = ""
    host_id: str = ""
    on_cpu: bool = False  # a CPU standby carries it until there is a GPU again
    restored_at: datetime | None = None  # its files are those of this instant; None: they never left it


class InstanceStarted(Event, tag="instance.started", kw_only=True, frozen=True):
    """Seed 000's word for the same moment as `instance.ready`: the customer can work."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    endpoints: tuple[Endpoint, ...]


class InstanceStopping(Event, tag="instance.stopping", kw_only=True, frozen=True):
    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    reason: str = "user_request"
    on_cpu: bool = False  # a CPU standby carried it


class InstanceStopped(Event, tag="instance.stopped", kw_only=True, frozen=True):
    """The machine is off; its disk is kept."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    reason: str = "user_request"


class InstanceDeleting(Event, tag="instance.deleting", kw_only=True, frozen=True):
    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    reason: str = "user_request"


class InstanceDeleted(Event, tag="instance.deleted", kw_only=True, frozen=True):
    """Every machine of the instance has been given back. The id is never used again."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    reason: str = "user_request"


class InstanceInterrupted(Event, tag="instance.interrupted", kw_only=True, frozen=True):
    """The machine was taken away while the customer wanted it (seed 000). One per loss.

    `failover_id`: this failover gave the machine up, with its replacement at hand (reason `user_test`).
    """

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    reason: InterruptionReason
    detail: str = ""
    failover_id: str = ""
    on_cpu: bool = False  # a CPU standby carried it


class InstanceFailed(Event, tag="instance.failed", kw_only=True, frozen=True):
    """The instance could not be brought up. `code` is a key of proto.codes; starting again is allowed."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    code: str
    detail: str = ""


# --- instance: private --------------------------------------------------------------------------------------------


InstanceEvent = (
    InstanceCreated
    | InstanceStarting
    | InstanceRunning
    | InstanceHealthChecking
    | InstanceReady
    | InstanceStarted
    | InstanceStopping
    | InstanceStopped
    | InstanceDeleting
    | InstanceDeleted
    | InstanceInterrupted
    | InstanceFailed
    | InstanceWishHeeded
    | InstanceUsed
    | InstanceKeptAlive
    | MachineRequested
    | MachineRented
    | MachineBooted
    | MachineHealthy
    | MachineFailed
    | MachineCancelled
    | MachineStopRequested
    | MachineStopped
    | MachineStartRequested
    | MachineDestroyRequested
    | MachineDestroyed
    | MachineLost
    | InstanceRecovering
    | InstanceMigrated
    | StandbyReady
    | StandbyFailed
    | PromotionFailed
    | MachinePromoted
    | PromotionPlanned
    | VolumeShared
    | VolumeReleaseRequested
    | VolumeOutdated
    | VolumeReleased
    | VolumeWished
    | VolumeAttached
    | VolumeGivenUp
    | AgentHeartbeatLost
    | AgentHeartbeatRestored
    | HibernationScheduled
    | HibernationCancelled
    | InstanceHibernating
    | InstanceHibernated
    | InstanceWaking
    | SnapshotRequested
    | SnapshotCompleted
    | SnapshotFailed
    | SnapshotsExpired
    | MachineRestored
    | CpuStandbyEnabled
    | CpuStandbyDisabled
    | SyncStarted
    | SyncCompleted
    | ReturnEvent
)
AnyEvent = InstanceEvent | HostEvent | OrphanEvent | MachineBilled | CareNoted
