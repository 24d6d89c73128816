"""Facts of the warm pool service. Aggregates: `pool` (the standby machine of one instance) and `account`
(whom a change of its settings concerns)."""

from __future__ import annotations

from datetime import datetime

from proto.base import Event
from proto.warmpool.words import StandbyMode

# --- public -------------------------------------------------------------------------------------------------------


class StandbyWanted(Event, tag="warmpool.standby_wanted", kw_only=True, frozen=True):
    """The pool needs a standby on the primary's host, sharing the primary's workspace as a volume.

    `is_replacement`: the one before has taken over.
    """

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    primary_machine_id: str
    host_id: str
    mode: StandbyMode
    volume_gb: int
    is_replacement: bool = False


class StandbyReleased(Event, tag="warmpool.standby_released", kw_only=True, frozen=True):
    """The pool no longer needs this standby: it may be given back."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    reason: str


class PoolProvisioned(Event, tag="warmpool.provisioned", kw_only=True, frozen=True):
    """The standby is there: losing the primary now costs seconds (seed 000)."""

    public = True
    instance_id: str
    account_id: str
    machine_id: str
    host_id: str
    volume_id: str
    mode: StandbyMode


class PoolDegraded(Event, tag="warmpool.degraded", kw_only=True, frozen=True):
    """The instance is not protected by its pool, and why (seed 000). `retry_at`: when another standby is tried.

    `heard_at`: when the instance said that it was stopped or failed, if that is the reason.
    """

    public = True
    instance_id: str
    account_id: str
    reason: str
    detail: str = ""
    retry_at: datetime | None = None
    heard_at: datetime | None = None


class PoolDisabled(Event, tag="warmpool.disabled", kw_only=True, frozen=True):
    public = True
    instance_id: str
    account_id: str
    reason: str = "user_request"


class StandbyClaimed(Event, tag="warmpool.claimed", kw_only=True, frozen=True):
    """This standby is set aside for exactly this failover, to replace `replaces`."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    machine_id: str
    replaces: str
    give_up_at: datetime


class StandbyNotAvailable(Event, tag="warmpool.not_available", kw_only=True, frozen=True):
    """The pool has nothing for this failover, and why."""

    public = True
    failover_id: str
    instance_id: str
    account_id: str
    reason: str


# --- private ------------------------------------------------------------------------------------------------------


class PoolRequested(Event, tag="warmpool.requested", kw_only=True, frozen=True):
    """The customer wants a pool. Empty `host_id`: the instance has no machine yet, so we wait for it."""

    instance_id: str
    account_id: str
    mode: StandbyMode
    volume_gb: int
    auto_reprovision: bool
    host_id: str = ""
    primary_machine_id: str = ""
    requested_at: datetime | None = None


class PoolAdjusted(Event, tag="warmpool.adjusted", kw_only=True, frozen=True):
    """The pool follows settings that were changed at `said_at`. Not `is_enabled`: it ends with its claim."""

    instance_id: str
    account_id: str
    mode: StandbyMode
    volume_gb: int
    auto_reprovision: bool
    said_at: datetime
    is_enabled: bool = True


class PrimarySeen(Event, tag="warmpool.primary_seen", kw_only=True, frozen=True):
    """The instance is carried by this machine now. `swapped`: it was our standby."""

    instance_id: str
    machine_id: str
    host_id: str
    seen_at: datetime
    swapped: bool = False


class PoolsTold(Event, tag="warmpool.pools_told", kw_only=True, frozen=True):
    """What an account changed (None: not this), and the pools that it concerns. `own_choice`: those that decide for
    themselves whether there is one."""

    account_id: str
    instance_ids: tuple[str, ...]
    said_at: datetime
    is_enabled: bool | None = None
    mode: StandbyMode | None = None
    volume_gb: int | None = None
    auto_reprovision: bool | None = None
    own_choice: tuple[str, ...] = ()


PoolEvent = (
    StandbyWanted
    | StandbyReleased
    | PoolProvisioned
    | PoolDegraded
    | PoolDisabled
    | StandbyClaimed
    | StandbyNotAvailable
    | PoolRequested
    | PoolAdjusted
    | PrimarySeen
)
AnyEvent = PoolEvent | PoolsTold
