"""The question the warm pool service answers on `qry.warmpool.<tag>`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from proto.base import Query
from proto.health import GetHealth, GetMetrics
from proto.warmpool.words import PoolStatus, StandbyMode, StandbyState


class PoolView(Struct, frozen=True, omit_defaults=True):
    """One instance's pool. `checked_at`: when the standby was last known to be there."""

    instance_id: str
    status: PoolStatus
    mode: StandbyMode = "stopped"
    host_id: str = ""
    volume_id: str = ""
    primary_machine_id: str = ""
    standby_machine_id: str = ""
    standby_state: StandbyState = "none"
    failover_count: int = 0
    last_failover_at: datetime | None = None
    error: str = ""
    retry_at: datetime | None = None
    changed_at: datetime | None = None


class GetPool(Query, tag="get", frozen=True, kw_only=True):
    """An instance without a pool answers `disabled`; whether it exists is for its owner to say."""

    service: ClassVar[str] = "warmpool"
    reply: ClassVar[object] = PoolView
    instance_id: str
    account_id: str


class GetWarmpoolHealth(GetHealth, tag="health", frozen=True):
    service: ClassVar[str] = "warmpool"


class GetWarmpoolMetrics(GetMetrics, tag="metrics", frozen=True):
    service: ClassVar[str] = "warmpool"


AnyQuery = GetPool | GetWarmpoolHealth | GetWarmpoolMetrics
