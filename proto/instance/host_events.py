"""Facts of the instance service about hosts (attempts, blacklist) and about machines that no instance owns (orphans).

Aggregates `host` and `orphan`.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.instance.words import AttemptOutcome, AttemptStage, BlacklistType, Offer, OrphanKind

# --- host ---------------------------------------------------------------------------------------------------------


class AttemptRecorded(Event, tag="host.attempt_recorded", kw_only=True, frozen=True):
    """One try to bring up one offer on this host (contract dumont 7).

    Totals include this attempt and leave cancelled ones out.
    """

    provider: str
    host_id: str
    attempt_id: str
    offer: Offer
    outcome: AttemptOutcome
    instance_id: str
    attempted_at: datetime
    stage: AttemptStage | None = None
    reason: str = ""
    took_ms: int = 0
    attempts_total: int = 0
    successes_total: int = 0


class HostBlacklisted(Event, tag="machine.blacklisted", kw_only=True, frozen=True):
    """`account_id` empty: platform-wide (automatic); else only that account avoids the host (manual)."""

    provider: str
    host_id: str
    kind: BlacklistType
    reason: str
    account_id: str = ""
    gpu: str = ""
    expires_at: datetime | None = None
    attempts_total: int = 0
    attempts_failed: int = 0
    last_failure: str = ""


class HostUnblacklisted(Event, tag="machine.unblacklisted", kw_only=True, frozen=True):
    provider: str
    host_id: str
    lifted_at: datetime
    account_id: str = ""


# --- orphan -------------------------------------------------------------------------------------------------------


class OrphanFound(Event, tag="machine.orphan_found", kw_only=True, frozen=True):
    """A machine or volume at the provider that the log does not know, or believes given back. `provider_machine_id` is
    the cloud's id of it, `label` the machine id that it bears."""

    provider: str
    provider_machine_id: str
    label: str
    destroy_after: datetime
    kind: OrphanKind = "machine"


class OrphanDestroyRequested(Event, tag="machine.orphan_destroy_requested", kw_only=True, frozen=True):
    provider: str
    provider_machine_id: str
    label: str = ""
    kind: OrphanKind = "machine"


class OrphanDestroyed(Event, tag="machine.orphan_destroyed", kw_only=True, frozen=True):
    """The orphan is no more: destroyed by us, gone by itself, or found to be owned after all."""

    provider: str
    provider_machine_id: str


HostEvent = AttemptRecorded | HostBlacklisted | HostUnblacklisted
OrphanEvent = OrphanFound | OrphanDestroyRequested | OrphanDestroyed


class MachineBilled(Event, tag="machine.billed", kw_only=True, frozen=True):
    """Its cloud charged us for a stretch of this machine, or volume: `machine_id` in either case. `number` counts the
    cloud's charges up."""

    public = True
    account_id: str
    instance_id: str
    machine_id: str
    provider: str
    charge_id: str
    number: int
    since: datetime
    until: datetime
    usd_micros: int
