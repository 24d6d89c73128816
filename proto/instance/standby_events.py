"""Facts of the instance service about standby machines and agents that fall silent.

Part of the `instance` aggregate (see `events`, whose union has them).
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.instance.words import Endpoint, HealthCheck, InterruptionReason, MachineRole, StandbyMode


class InstanceRecovering(Event, tag="instance.recovering", kw_only=True, frozen=True):
    """Another machine is taking over: it is the primary now, and ready once it has the files and its probes pass."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    generation: int
    failover_id: str
    rung: str = "warm_pool"


class InstanceMigrated(Event, tag="instance.migrated", kw_only=True, frozen=True):
    """After a loss, another machine carries the instance (seed 001); its id stays. Said with `instance.ready`.

    `took_ms` counts from the moment the machine was chosen until its probes passed; `from_machine_id` was lost.
    """

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    from_machine_id: str
    generation: int
    endpoints: tuple[Endpoint, ...]
    reason: InterruptionReason
    took_ms: int
    region: str = ""
    on_cpu: bool = False  # a CPU standby carries it until there is a GPU again


class StandbyReady(Event, tag="instance.standby_ready", kw_only=True, frozen=True):
    """A standby machine is there: on the primary's host and with its workspace, or (`role` cpu_standby) anywhere and
    about to be kept in sync. A stopped one has been tried out."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    host_id: str
    volume_id: str
    mode: StandbyMode
    price_usd_micros_per_hour: int = 0
    volume_gb: int = 0
    role: MachineRole = "standby"


class StandbyFailed(Event, tag="instance.standby_failed", kw_only=True, frozen=True):
    """This standby machine is no more, or could not be had. `reason` is one word."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    reason: str
    detail: str = ""
    role: MachineRole = "standby"


class PromotionFailed(Event, tag="instance.promotion_failed", kw_only=True, frozen=True):
    """The machine that this failover chose does not carry the instance: it may not, or (`was_promoted`) it did not
    come up, and the instance is interrupted as before."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    failover_id: str
    reason: str
    was_promoted: bool = False
    rung: str = "warm_pool"


class AgentHeartbeatLost(Event, tag="agent.heartbeat_lost", kw_only=True, frozen=True):
    """The agent of the primary has missed several heartbeats (seed 000). Told once until it is heard again."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    last_seen_at: datetime
    missed: int


class MachinePromoted(Event, tag="machine.promoted", kw_only=True, frozen=True):
    """A standby has become the primary machine. `failover_id` is empty when the customer's start did it."""

    instance_id: str
    machine_id: str
    generation: int
    replaces: str
    failover_id: str
    promoted_at: datetime
    give_up_at: datetime
    health_check: HealthCheck = HealthCheck()
    restore: str = ""  # it has the files when its agent says so


class PromotionPlanned(Event, tag="machine.promotion_planned", kw_only=True, frozen=True):
    """A stopped standby is started first, because the machine it is to replace still works."""

    instance_id: str
    machine_id: str
    replaces: str
    failover_id: str
    give_up_at: datetime


class AgentHeartbeatRestored(Event, tag="agent.heartbeat_restored", kw_only=True, frozen=True):
    instance_id: str
    machine_id: str
    seen_at: datetime
