"""Questions the instance service answers on `qry.instance.<tag>`, the heartbeat it hears on `sig.instance.<tag>`,
and the shapes of its answers. Prices are integer micro-dollars per hour; instants are UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from msgspec import Struct

from proto.base import Query, Signal
from proto.instance.copy_queries import (
    ListCpuStandbys,
    ListSnapshots,
    SignStorage,
)
from proto.instance.hibernation_queries import GetHibernationStats
from proto.instance.words import (
    BlacklistType,
    Endpoint,
    InstanceStatus,
    MachineRole,
    MachineSpec,
    MachineStatus,
    Offer,
    ReliabilityStatus,
    Volume,
)

LIST_LIMIT_MAX = 100  # contract dumont 0: pagination


class MachineView(Struct, frozen=True, omit_defaults=True):
    """One contract with a provider, past or present."""

    machine_id: str
    role: MachineRole
    status: MachineStatus
    generation: int
    provider: str = ""
    provider_machine_id: str = ""
    host_id: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    price_usd_micros_per_hour: int = 0


class InstanceView(Struct, frozen=True, omit_defaults=True):
    """An instance as its owner may see it. `price…` and `endpoints` are those of the primary machine."""

    instance_id: str
    account_id: str
    name: str
    status: InstanceStatus
    gpu: str
    spec: MachineSpec
    created_at: datetime
    generation: int = 1
    region: str = ""
    provider: str = ""
    provider_machine_id: str = ""
    host_id: str = ""
    price_usd_micros_per_hour: int = 0
    endpoints: tuple[Endpoint, ...] = ()
    webhook_url: str = ""
    status_reason: str = ""
    failure_code: str = ""
    auto_stop_minutes: int = 0
    ready_at: datetime | None = None
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    deleted_at: datetime | None = None
    last_used_at: datetime | None = None
    keep_alive_until: datetime | None = None
    offer: Offer | None = None
    volume: Volume | None = None  # its workspace, where that outlives the machine
    machines: tuple[MachineView, ...] = ()


class InstanceList(Struct, frozen=True):
    """`total` counts all that match, not just this page. Newest first."""

    items: list[InstanceView]
    total: int


class OfferView(Struct, frozen=True):
    """An offer with what our own attempts say about its host (seed 000, Machine History)."""

    offer: Offer
    is_blacklisted: bool
    blacklist_reason: str
    attempts_total: int
    success_ppm: int | None  # None: never tried
    reliability_status: ReliabilityStatus


class OfferList(Struct, frozen=True):
    items: list[OfferView]
    total: int


class HostView(Struct, frozen=True):
    """A host with free GPUs of one model. `gpus_free`: what its largest offer has."""

    provider: str
    host_id: str
    gpu: str
    region: str
    gpus_free: int
    price_usd_micros_per_gpu_hour: int
    reliability_ppm: int
    verified: bool
    can_create_warm_pool: bool
    offers: tuple[Offer, ...]


class HostList(Struct, frozen=True):
    items: list[HostView]
    total: int


class BlacklistEntry(Struct, frozen=True):
    provider: str
    host_id: str
    kind: BlacklistType
    reason: str
    account_id: str
    gpu: str
    blacklisted_at: datetime
    expires_at: datetime | None
    is_active: bool
    attempts_total: int
    attempts_failed: int
    last_failure: str


class BlacklistCheck(Struct, frozen=True):
    entry: BlacklistEntry | None  # the active entry, None when the host may be used


class HistorySummary(Struct, frozen=True):
    attempts_total: int
    successes: int
    failures: int
    failure_stages: dict[str, int]
    blacklisted_hosts: int


class AgentView(Struct, frozen=True):
    """What the agent of a machine said last. Absent numbers are None: unknown is not zero."""

    instance_id: str
    machine_id: str
    status: str
    last_seen_at: datetime
    agent_version: str
    hostname: str
    gpu_utilization_percent: float | None
    memory_used_percent: float | None
    uptime_s: int | None
    idle_since: datetime | None
    keep_alive_until: datetime | None
    hibernate_at: datetime | None = None


class AgentList(Struct, frozen=True):
    items: list[AgentView]


class InstanceStats(Struct, frozen=True):
    """For /api/metrics and /api/instances/auto-stop/stats. Counts are over all accounts unless one was asked for."""

    by_status: dict[str, int]
    work_pending: int
    work_running: int
    work_completed: int
    work_failed: int
    auto_stop_check_minutes: int
    auto_stop_default_minutes: int
    auto_stop_last_check_at: datetime | None
    auto_stopped_total: int


class GetInstance(Query, tag="get", frozen=True, kw_only=True):
    """A deleted instance is not found, unless `with_deleted`: whoever has just deleted it wants to see that."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = InstanceView
    instance_id: str
    account_id: str  # another account's instance is refused as INSTANCE_NOT_FOUND
    with_deleted: bool = False


class ListInstances(Query, tag="list", frozen=True, kw_only=True):
    """Deleted instances are left out unless asked for by status."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = InstanceList
    account_id: str
    statuses: tuple[InstanceStatus, ...] = ()
    gpu: str = ""
    name: str = ""
    limit: int = 50
    offset: int = 0


class ListOffers(Query, tag="offers", frozen=True, kw_only=True):
    """Filters of contract dumont 1; 0 or empty means no filter."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = OfferList
    account_id: str
    gpu: str = ""
    gpu_count: int = 0
    gpu_memory_gb_min: int = 0
    cpu_cores_min: int = 0
    memory_gb_min: int = 0
    disk_gb_min: int = 0
    download_mbps_min: int = 0
    upload_mbps_min: int = 0
    price_usd_micros_per_hour_max: int = 0
    reliability_ppm_min: int = 0
    region: str = ""
    verified_only: bool = False
    static_ip: bool = False
    cuda_version: str = ""
    billing: Literal["", "spot", "on_demand"] = ""
    order_by: Literal["price", "gpu_memory", "reliability"] = "price"
    include_blacklisted: bool = False
    limit: int = 50


class ListHosts(Query, tag="hosts", frozen=True, kw_only=True):
    """Hosts that could carry a warm pool, or one host by its id. 0 or empty means no filter."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = HostList
    gpu: str = ""
    gpus_min: int = 2
    price_usd_micros_per_hour_max: int = 0
    verified_only: bool = False
    host_id: str = ""
    limit: int = 50
    preferred: tuple[str, ...] = ()  # models whose hosts are to come first, in this order


class ListBlacklist(Query, tag="blacklist", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = list[BlacklistEntry]
    account_id: str
    provider: str = ""
    kind: Literal["", "auto", "manual", "temporary"] = ""
    include_expired: bool = False


class CheckBlacklist(Query, tag="check_blacklist", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = BlacklistCheck
    account_id: str
    provider: str
    host_id: str


class SummarizeHistory(Query, tag="history_summary", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = HistorySummary
    provider: str = ""
    hours: int = 24


class ListAgents(Query, tag="agents", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = AgentList
    account_id: str


class GetStats(Query, tag="stats", frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = InstanceStats
    account_id: str = ""


class SnapshotOrder(Struct, frozen=True):
    """The agent is to copy the workspace; it may add to `base_id`, if it knows that one."""

    snapshot_id: str
    base_id: str = ""


class SyncOrder(Struct, frozen=True):
    """The primary's agent is to keep this CPU standby in sync. `private_key` opens that machine only: never log it.
    `is_last`: hold everything still, send what has changed since, and stay so."""

    standby_machine_id: str
    generation: int
    host: str
    port: int
    private_key: str
    interval_s: int
    excludes: tuple[str, ...] = ()
    is_last: bool = False

    def __repr__(self) -> str:
        return f"SyncOrder(standby_machine_id={self.standby_machine_id!r})"


class ReceiveOrder(Struct, frozen=True):
    """A CPU standby's agent takes in what this generation sends, nobody else. `takes_over`: it is the primary now."""

    generation: int
    takes_over: bool = False


class AgentAnswer(Struct, frozen=True):
    """What the agent should do next. `carries`: this machine carries the instance and has its files, so the customer's
    command may run."""

    action: Literal["none", "prepare_hibernate", "shutdown"]
    message: str
    next_heartbeat_s: int
    snapshot: SnapshotOrder | None = None
    hibernate_at: datetime | None = None
    sync: SyncOrder | None = None
    receive: ReceiveOrder | None = None
    carries: bool = False


class ReceivedReport(Struct, frozen=True):
    """The newest whole copy that a CPU standby has, as its own agent says."""

    captured_at: datetime
    files: int
    bytes: int
    copies: int


class AgentReport(Signal, tag="agent_report", frozen=True, kw_only=True):
    """A heartbeat, from the gateway. `machine_id` comes from the verified agent token, never from the payload."""

    service: ClassVar[str] = "instance"
    reply: ClassVar[object] = AgentAnswer
    machine_id: str
    instance_id: str
    generation: int
    received_at: datetime
    status: str
    agent_version: str = ""
    hostname: str = ""
    message: str = ""
    gpu_utilization_percent: float | None = None
    memory_used_percent: float | None = None
    cpu_utilization_percent: float | None = None
    uptime_s: int | None = None
    ssh_sessions: int | None = None
    last_activity_at: datetime | None = None
    received: ReceivedReport | None = None


AnyQuery = (
    GetInstance
    | ListInstances
    | ListOffers
    | ListHosts
    | ListBlacklist
    | CheckBlacklist
    | SummarizeHistory
    | ListAgents
    | GetStats
    | GetHibernationStats
    | ListSnapshots
    | ListCpuStandbys
    | SignStorage
)
