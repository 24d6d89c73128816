"""The rooms of the instance service as one value: for its process, the rebuild command and the simulation."""

from __future__ import annotations

from pathlib import Path

from libs.runtime.service import Service
from proto.billing.events import BalanceStorageExpired, BalanceSuspended
from proto.failover.events import CareChanged, CpuStandbyWanted, FailoverCompleted, RungTried, VolumeWanted
from proto.instance.commands import AnyCommand
from proto.warmpool.events import StandbyClaimed, StandbyReleased, StandbyWanted
from services.instance import policy, projection
from services.instance.decider import AGGREGATES
from services.instance.effects import EFFECTS, INTAKE, TASKS
from services.instance.queries import QUERIES, SIGNALS

HEARS = (
    "pub.*.warmpool.standby_wanted",
    "pub.*.warmpool.standby_released",
    "pub.*.warmpool.claimed",
    "pub.*.failover.rung_tried",
    "pub.*.failover.completed",
    "pub.*.failover.cpu_standby_wanted",
    "pub.*.failover.volume_wanted",
    "pub.*.failover.care_changed",
    "pub.*.balance.suspended",
    "pub.*.balance.storage_expired",
)
HEARS_EVENTS = (
    StandbyWanted
    | StandbyReleased
    | StandbyClaimed
    | RungTried
    | FailoverCompleted
    | CpuStandbyWanted
    | VolumeWanted
    | CareChanged
    | BalanceSuspended
    | BalanceStorageExpired
)
ROOMS = Path(__file__).parent
SERVICE = Service(
    name="instance",
    aggregates=AGGREGATES,
    commands=AnyCommand,
    react=policy.react,
    project=projection.project,
    schema_sql=(ROOMS / "schema.sql").read_text(encoding="utf-8"),
    live_sql=(ROOMS / "live.sql").read_text(encoding="utf-8"),
    hears=HEARS,
    hears_events=HEARS_EVENTS,
    intake=INTAKE,
    effects=EFFECTS,
    queries=QUERIES,
    signals=SIGNALS,
    tasks=TASKS,
)
