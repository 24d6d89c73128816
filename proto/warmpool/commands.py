"""Wishes the warm pool service accepts on `cmd.warmpool.<tag>`.

The first group comes from the gateway, which fills in what the instance's owner knows (its machine, its host, free
GPUs there); the second from what is heard of others; the third from deadlines.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from proto.base import Command
from proto.warmpool.words import StandbyMode


class PoolCommand(Command, frozen=True, kw_only=True):
    service: ClassVar[str] = "warmpool"
    aggregate: ClassVar[str] = "pool"
    instance_id: str

    @property
    def aggregate_id(self) -> str:
        return self.instance_id


class ProvisionPool(PoolCommand, tag="provision", frozen=True, kw_only=True):
    """`host_id` and `machine_id` are where the instance runs (empty: nowhere yet). `wanted_host_id`: the host the
    caller named; `host_gpus_free` None: that host is unknown. `is_new`: refuse when there is a pool already."""

    account_id: str
    machine_id: str = ""
    host_id: str = ""
    wanted_host_id: str = ""
    host_gpus_free: int | None = None
    mode: StandbyMode = "stopped"
    volume_gb: int = 100
    auto_reprovision: bool = True
    is_new: bool = False


class DisablePool(PoolCommand, tag="disable", frozen=True, kw_only=True):
    account_id: str
    reason: str = "user_request"
    # Heard, not wished (the instance is gone): a claim under way is no objection.
    forced: bool = False


class AdjustPool(PoolCommand, tag="adjust", frozen=True, kw_only=True):
    """The settings that the pool follows were changed at `now`; None: this one was not."""

    account_id: str
    is_enabled: bool | None = None
    mode: StandbyMode | None = None
    volume_gb: int | None = None
    auto_reprovision: bool | None = None


# --- what was heard -----------------------------------------------------------------------------------------------


class ClaimStandby(PoolCommand, tag="claim", frozen=True, kw_only=True):
    account_id: str
    failover_id: str
    replaces: str
    give_up_at: datetime


class NoteStandbyReady(PoolCommand, tag="note_standby_ready", frozen=True, kw_only=True):
    machine_id: str
    host_id: str
    volume_id: str


class NoteStandbyFailed(PoolCommand, tag="note_standby_failed", frozen=True, kw_only=True):
    machine_id: str
    reason: str
    detail: str = ""


class NotePromotionFailed(PoolCommand, tag="note_promotion_failed", frozen=True, kw_only=True):
    failover_id: str
    machine_id: str
    reason: str


class EndClaim(PoolCommand, tag="end_claim", frozen=True, kw_only=True):
    """The failover that claimed the standby is over without it."""

    failover_id: str
    reason: str


class NotePrimary(PoolCommand, tag="note_primary", frozen=True, kw_only=True):
    """The instance is ready on this machine."""

    machine_id: str
    host_id: str


class SuspendPool(PoolCommand, tag="suspend", frozen=True, kw_only=True):
    """The instance is being stopped: a standby would only cost money."""

    reason: str


# --- time ---------------------------------------------------------------------------------------------------------


class RetryStandby(PoolCommand, tag="retry_standby", frozen=True, kw_only=True):
    pass


class ChangePools(Command, tag="change_pools", frozen=True, kw_only=True):
    """An account has changed its settings at `now`. `instance_ids`: its pools, filled in by the owner (effects).
    `own_choice`: instances for which `is_enabled` says nothing."""

    service: ClassVar[str] = "warmpool"
    aggregate: ClassVar[str] = "account"
    account_id: str
    is_enabled: bool | None = None
    mode: StandbyMode | None = None
    volume_gb: int | None = None
    auto_reprovision: bool | None = None
    own_choice: tuple[str, ...] = ()
    instance_ids: tuple[str, ...] = ()

    @property
    def aggregate_id(self) -> str:
        return self.account_id


PoolWish = (
    ProvisionPool
    | DisablePool
    | AdjustPool
    | ClaimStandby
    | NoteStandbyReady
    | NoteStandbyFailed
    | NotePromotionFailed
    | EndClaim
    | NotePrimary
    | SuspendPool
    | RetryStandby
)
AnyCommand = PoolWish | ChangePools
