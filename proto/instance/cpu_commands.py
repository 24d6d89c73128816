"""Wishes about CPU standbys and about the way back from one to a GPU. Part of the instance's (see `commands`)."""

from __future__ import annotations

from datetime import datetime

from proto.instance.instance_command import InstanceCommand
from proto.instance.words import Offer


class EnableCpuStandby(InstanceCommand, tag="enable_cpu_standby", frozen=True, kw_only=True):
    account_id: str
    sync_interval_s: int
    excludes: tuple[str, ...] = ()


class DisableCpuStandby(InstanceCommand, tag="disable_cpu_standby", frozen=True, kw_only=True):
    account_id: str


class RequestCpuStandby(InstanceCommand, tag="request_cpu_standby", frozen=True, kw_only=True):
    """The CPU machine that is wanted and not there. `offers` is filled by the owner; none: looked for again later."""

    machine_id: str
    offers: tuple[Offer, ...] = ()


class PromoteCpuStandby(InstanceCommand, tag="promote_cpu_standby", frozen=True, kw_only=True):
    """Let the CPU standby carry the instance whose machine is lost."""

    replaces: str
    failover_id: str
    give_up_at: datetime


class WantGpu(InstanceCommand, tag="want_gpu", frozen=True, kw_only=True):
    """A CPU machine carries the instance: look for a GPU. Wished by its owner (`account_id`), or by our own policy
    for the machine that a failover ended on."""

    account_id: str = ""
    machine_id: str = ""


class TryReturn(InstanceCommand, tag="try_return", frozen=True, kw_only=True):
    """A deadline of the way back is due. `offers` is filled by the owner with what the market has within its limits."""

    offers: tuple[Offer, ...] = ()
    no_offer: str = ""


class ReportSync(InstanceCommand, tag="report_sync", frozen=True, kw_only=True):
    """The primary's agent has ended a cycle. Refused (MACHINE_FENCED) from any other machine. `is_last`: its machine
    has been held still since the instant of this copy, and stays so."""

    machine_id: str
    standby_machine_id: str
    cycle: int
    ok: bool
    took_ms: int
    files: int = 0
    bytes: int = 0
    captured_at: datetime | None = None
    error: str = ""
    is_last: bool = False
