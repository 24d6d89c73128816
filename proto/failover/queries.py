"""Questions the failover service answers on `qry.failover.<tag>`, and the shapes of its answers."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from proto.base import Query
from proto.failover.words import (
    Attempt,
    CpuStandbySettings,
    FailoverStatus,
    GlobalSettings,
    MachineSettings,
    Phase,
    PoolSeen,
    RegionalVolumeSettings,
    Rung,
    Strategy,
    WarmPoolSettings,
)
from proto.health import GetHealth, GetMetrics

LIST_LIMIT_MAX = 100  # contract dumont 0: pagination


class FailoverView(Struct, frozen=True, omit_defaults=True):
    """One failover, running or over. `strategy_succeeded` is empty until one has."""

    failover_id: str
    instance_id: str
    account_id: str
    status: FailoverStatus
    strategy: Strategy
    reason: str
    original_machine_id: str
    started_at: datetime
    phase: str
    test: bool = False
    strategy_attempted: Rung | None = None
    strategy_succeeded: Rung | None = None
    machine_id: str = ""
    ended_at: datetime | None = None
    total_ms: int | None = None
    data_loss_window_s: int | None = None
    error: str = ""
    attempts: tuple[Attempt, ...] = ()
    phases: tuple[Phase, ...] = ()


class FailoverList(Struct, frozen=True):
    """Newest first. `mttr_ms` is the mean time of those that succeeded; numbers are over all that match."""

    items: list[FailoverView]
    total: int
    succeeded: int
    failed: int
    mttr_ms: int | None


class Blocker(Struct, frozen=True):
    """Why a rung, or every rung, would not be climbed now."""

    rung: Rung | None
    reason: str


class PlanStep(Struct, frozen=True):
    """One rung as it would go now."""

    rung: Rung
    is_ready: bool
    reason: str


class Readiness(Struct, frozen=True):
    """What would happen if the machine were lost now. Nothing is touched to find out."""

    instance_id: str
    effective_strategy: Strategy
    warm_pool_ready: bool
    is_ready: bool
    pool: PoolSeen
    blockers: list[Blocker]
    plan: list[PlanStep]
    failovers_24h: int
    failovers_24h_max: int
    open_breakers: list[Rung]
    regional_volume: RegionalVolumeSettings = RegionalVolumeSettings()  # as it holds for this instance


class MachineProtection(Struct, frozen=True):
    """One instance's settings with what they come to."""

    instance_id: str
    settings: MachineSettings
    effective_strategy: Strategy
    failover_count: int
    last_failover_at: datetime | None
    last_failover_strategy: Rung | None
    regional_volume: RegionalVolumeSettings = RegionalVolumeSettings()  # as it holds


class NewMachineProtection(Struct, frozen=True):
    """What a new instance of the account is created with. `volume` None: no volume of the region. The standbys are
    those of a strategy that was chosen with the create, and None without one."""

    volume: RegionalVolumeSettings | None
    warm_pool: WarmPoolSettings | None = None
    cpu_standby: CpuStandbySettings | None = None


class GetNewMachineProtection(Query, tag="new_machine_protection", frozen=True, kw_only=True):
    """`strategy`: chosen with the create; None: what the account's settings say."""

    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = NewMachineProtection
    account_id: str
    strategy: Strategy | None = None


class GetReadiness(Query, tag="readiness", frozen=True, kw_only=True):
    """`strategy` asks about another than the effective one."""

    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = Readiness
    instance_id: str
    account_id: str
    strategy: Strategy | None = None


class GetFailover(Query, tag="get", frozen=True, kw_only=True):
    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = FailoverView
    failover_id: str
    account_id: str


class ListFailovers(Query, tag="list", frozen=True, kw_only=True):
    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = FailoverList
    account_id: str
    instance_id: str = ""
    status: FailoverStatus | None = None
    limit: int = 50
    offset: int = 0


class GetSettings(Query, tag="settings", frozen=True, kw_only=True):
    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = GlobalSettings
    account_id: str


class GetProtection(Query, tag="protection", frozen=True, kw_only=True):
    """An instance that was never touched answers with the defaults; whether it exists is for its owner to say."""

    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = MachineProtection
    instance_id: str
    account_id: str


class ListProtections(Query, tag="protections", frozen=True, kw_only=True):
    """Instances with settings of their own or a failover behind them."""

    service: ClassVar[str] = "failover"
    reply: ClassVar[object] = list[MachineProtection]
    account_id: str


class GetFailoverHealth(GetHealth, tag="health", frozen=True):
    service: ClassVar[str] = "failover"


class GetFailoverMetrics(GetMetrics, tag="metrics", frozen=True):
    service: ClassVar[str] = "failover"


AnyQuery = (
    GetReadiness
    | GetFailover
    | ListFailovers
    | GetSettings
    | GetProtection
    | ListProtections
    | GetNewMachineProtection
    | GetFailoverHealth
    | GetFailoverMetrics
)
