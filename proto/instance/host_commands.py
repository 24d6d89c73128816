"""Wishes about hosts (attempts, blacklist) and orphans; accepted on `cmd.instance.<tag>` like those of `commands`."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command
from proto.instance.words import AttemptOutcome, AttemptStage, BlacklistType, Offer, OrphanKind


class HostCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    aggregate: ClassVar[str] = "host"
    provider: str
    host_id: str

    @property
    def aggregate_id(self) -> str:
        return host_key(self.provider, self.host_id)


def host_key(provider: str, host_id: str) -> str:
    """One subject token for (provider, host); both are checked by the gateway against [A-Za-z0-9_-]."""
    return f"{provider}-{host_id}"


class RecordAttempt(HostCommand, tag="record_attempt", frozen=True, kw_only=True):
    attempt_id: str
    offer: Offer
    outcome: AttemptOutcome
    instance_id: str
    stage: AttemptStage | None = None
    reason: str = ""
    took_ms: int = 0


class Blacklist(HostCommand, tag="blacklist", frozen=True, kw_only=True):
    account_id: str
    reason: str
    kind: BlacklistType = "manual"
    gpu: str = ""
    expires_at: datetime | None = None


class Unblacklist(HostCommand, tag="unblacklist", frozen=True, kw_only=True):
    account_id: str


class OrphanCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "instance"
    aggregate: ClassVar[str] = "orphan"
    provider: str
    provider_machine_id: str

    @property
    def aggregate_id(self) -> str:
        return host_key(self.provider, self.provider_machine_id)


class ReportOrphan(OrphanCommand, tag="report_orphan", frozen=True, kw_only=True):
    """`provider_machine_id` is the cloud's id of what was found, machine or volume."""

    label: str
    destroy_after: datetime
    kind: OrphanKind = "machine"


class DestroyOrphan(OrphanCommand, tag="destroy_orphan", frozen=True, kw_only=True):
    """The grace period is over (deadline)."""


class ReportOrphanGone(OrphanCommand, tag="report_orphan_gone", frozen=True, kw_only=True):
    pass


# --- bill ---------------------------------------------------------------------------------------------------------


class ReportBill(Command, tag="report_bill", frozen=True, kw_only=True):
    """The cloud charged us for a machine, or a volume, of ours (`machine_id`); `charge_id` is the cloud's own."""

    service: ClassVar[str] = "instance"
    aggregate: ClassVar[str] = "bill"
    machine_id: str
    account_id: str
    instance_id: str
    provider: str
    charge_id: str
    number: int
    since: datetime
    until: datetime
    usd_micros: int

    @property
    def aggregate_id(self) -> str:
        return self.machine_id
