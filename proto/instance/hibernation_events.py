"""Facts of the instance service about hibernation: announced, begun, done, called off, and ended by a start.

Part of the `instance` aggregate (see `events`, whose union has them). Rule: contract dumont 5.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event


class HibernationScheduled(Event, tag="instance.hibernation_scheduled", kw_only=True, frozen=True):
    """Nobody uses the instance: unless that changes, it will be hibernated then."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    idle_since: datetime
    will_hibernate_at: datetime


class HibernationCancelled(Event, tag="instance.hibernation_cancelled", kw_only=True, frozen=True):
    """The instance stays as it is. `reason` is one word (in_use, kept_alive, user_request, agent_silent,
    snapshot_failed, never_still); not announced again before `not_before`."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    reason: str
    not_before: datetime
    detail: str = ""


class InstanceHibernating(Event, tag="instance.hibernating", kw_only=True, frozen=True):
    """Its files are being copied. It still runs, and costs `price_usd_micros_per_hour`. `reason` is one word (idle,
    user_request, insufficient_balance); `wished`: it goes on even when the instance is in use."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    machine_id: str
    snapshot_id: str
    idle_since: datetime
    price_usd_micros_per_hour: int
    wished: bool = False
    reason: str = ""


class InstanceHibernated(Event, tag="instance.hibernated", kw_only=True, frozen=True):
    """Its files (`bytes` of them) are in storage, checked, and its machine is given back (seed 000), with the volume
    that was its workspace, if it had one. A start brings files and a machine back."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    snapshot_id: str
    idle_seconds: int
    price_usd_micros_per_hour: int
    hibernated_at: datetime
    reason: str = ""
    bytes: int = 0
    volume_id: str = ""
    on_cpu: bool = False  # a CPU standby carried it


class InstanceWaking(Event, tag="instance.waking", kw_only=True, frozen=True):
    """A start of a hibernated instance: a new machine will be filled from this snapshot."""

    public = True
    instance_id: str
    account_id: str
    name: str
    gpu: str
    snapshot_id: str
    waking_at: datetime


HibernationEvent = (
    HibernationScheduled | HibernationCancelled | InstanceHibernating | InstanceHibernated | InstanceWaking
)
