"""Wishes the instance service accepts on `cmd.instance.<tag>`.

The first group comes from the gateway, the second (Report…) from the service's own effects, the third from its policy
and its deadlines. `now`, fresh ids and market facts are fields, because deciders are pure.
"""

from __future__ import annotations

from datetime import datetime

from proto.instance.care import NoteCare
from proto.instance.cpu_commands import (
    DisableCpuStandby,
    EnableCpuStandby,
    PromoteCpuStandby,
    ReportSync,
    RequestCpuStandby,
    TryReturn,
    WantGpu,
)
from proto.instance.host_commands import (
    Blacklist,
    DestroyOrphan,
    RecordAttempt,
    ReportBill,
    ReportOrphan,
    ReportOrphanGone,
    Unblacklist,
)
from proto.instance.instance_command import InstanceCommand
from proto.instance.snapshot_commands import (
    GiveUpSnapshot,
    ReportRestored,
    ReportSnapshot,
    ReportSnapshotChecked,
    ReportSnapshotFailed,
    RequestSnapshot,
)
from proto.instance.volume_commands import ReportVolumeReleased, ReportVolumeShared, WishVolume
from proto.instance.words import (
    AttemptStage,
    Endpoint,
    HealthCheck,
    InterruptionReason,
    MachineSpec,
    Offer,
    Protection,
    StandbyMode,
    Volume,
    VolumeWish,
)


class CreateInstance(InstanceCommand, tag="create", frozen=True, kw_only=True):
    """Take on an instance. A repeat with the same `request_hash` changes nothing; another hash is refused.

    `offers` is filled by the owner (effects.with_offers) from the market as it stands, best first; when none fits,
    `no_offer` is the refusal code that says why.
    """

    account_id: str
    name: str
    spec: MachineSpec
    machine_id: str
    offer_id: str = ""  # exactly this offer; empty: the cheapest eligible
    webhook_url: str = ""
    health_check: HealthCheck = HealthCheck()
    auto_stop_minutes: int = 0
    request_hash: str = ""
    dialect: str = ""
    protection: Protection | None = None
    volume: VolumeWish | None = None
    skip_standby: bool = False  # no CPU standby by itself
    offers: tuple[Offer, ...] = ()
    no_offer: str = ""


class StartInstance(InstanceCommand, tag="start", frozen=True, kw_only=True):
    """Bring it up again. From stopped: the same machine. From failed or interrupted: a new one (`machine_id`)."""

    account_id: str
    machine_id: str
    health_check: HealthCheck | None = None
    webhook_url: str = ""
    offers: tuple[Offer, ...] = ()
    no_offer: str = ""


class StopInstance(InstanceCommand, tag="stop", frozen=True, kw_only=True):
    account_id: str
    reason: str = "user_request"


class HibernateInstance(InstanceCommand, tag="hibernate", frozen=True, kw_only=True):
    """Copy its files to storage and give its machine back, now. `has_storage` is filled by the owner."""

    account_id: str
    has_storage: bool = False


class SuspendInstance(InstanceCommand, tag="suspend", frozen=True, kw_only=True):
    """Nothing pays for it any more: hibernate it when that is possible and the money lasts for it, else stop it.

    Heard again while it hibernates: stop it once the balance is used up. `has_storage` is filled by the owner.
    """

    account_id: str
    reason: str
    balance_usd_micros: int
    has_storage: bool = False


class ExpireInstance(InstanceCommand, tag="expire", frozen=True, kw_only=True):
    """Its files are kept no longer: delete it if it is hibernated or stopped, else leave it alone."""

    account_id: str
    reason: str


class DeleteInstance(InstanceCommand, tag="delete", frozen=True, kw_only=True):
    account_id: str
    reason: str = "user_request"


class MarkUsed(InstanceCommand, tag="mark_used", frozen=True, kw_only=True):
    account_id: str
    used_at: datetime


class KeepAlive(InstanceCommand, tag="keep_alive", frozen=True, kw_only=True):
    account_id: str
    minutes: int


# --- what effects found out ---------------------------------------------------------------------------------------


class ReportRented(InstanceCommand, tag="report_rented", frozen=True, kw_only=True):
    machine_id: str
    provider: str
    provider_machine_id: str
    offer: Offer
    adopted: bool = False
    has_volume: bool = False
    volume: Volume | None = None
    rejected: tuple[Offer, ...] = ()


class ReportBooted(InstanceCommand, tag="report_booted", frozen=True, kw_only=True):
    machine_id: str
    endpoints: tuple[Endpoint, ...]


class ReportHealthy(InstanceCommand, tag="report_healthy", frozen=True, kw_only=True):
    machine_id: str


class ReportFailed(InstanceCommand, tag="report_failed", frozen=True, kw_only=True):
    """The machine will not come up: renting, booting or probing ended badly. `code` as in proto.codes."""

    machine_id: str
    stage: AttemptStage
    code: str
    reason: str
    offers: tuple[Offer, ...] = ()


class ReportStartRefused(InstanceCommand, tag="report_start_refused", frozen=True, kw_only=True):
    """A machine that was stopped cannot be turned on: its GPU is somebody else's. `requested_at`: of the start that is
    meant. `offers` is filled by the owner, those beside the instance's volume first."""

    machine_id: str
    requested_at: datetime
    offers: tuple[Offer, ...] = ()


class ReportStopped(InstanceCommand, tag="report_stopped", frozen=True, kw_only=True):
    """The provider says the machine is off. `requested`: this answers our own request, which may be over."""

    machine_id: str
    reason: InterruptionReason = "provider_lost"
    detail: str = ""
    requested: bool = False


class ReportDestroyed(InstanceCommand, tag="report_destroyed", frozen=True, kw_only=True):
    """The provider no longer has the machine. `requested` as in ReportStopped."""

    machine_id: str
    reason: InterruptionReason = "provider_lost"
    detail: str = ""
    requested: bool = False


class ReportSilence(InstanceCommand, tag="report_silence", frozen=True, kw_only=True):
    """The agent has missed several heartbeats. `is_lost`: for long enough, or the cloud says that it is off."""

    machine_id: str
    last_seen_at: datetime
    missed: int
    is_lost: bool
    detail: str = ""


class ReportHeard(InstanceCommand, tag="report_heard", frozen=True, kw_only=True):
    """An agent that was silent reports again."""

    machine_id: str
    seen_at: datetime


class ReportIdle(InstanceCommand, tag="report_idle", frozen=True, kw_only=True):
    """Fresh heartbeats say that nobody uses the machine: its GPU rests and nobody is logged in."""

    machine_id: str
    idle_since: datetime
    idle_s: int  # so long, before it may be hibernated
    notice_s: int  # and announced so long before


class ReportBusy(InstanceCommand, tag="report_busy", frozen=True, kw_only=True):
    """It is not seen idle any more, or not seen at all."""

    machine_id: str
    reason: str


class AbandonHibernation(InstanceCommand, tag="abandon_hibernation", frozen=True, kw_only=True):
    """The copy that it needs could not be made."""

    snapshot_id: str
    detail: str = ""


# --- what the warm pool said --------------------------------------------------------------------------------------


class RequestStandby(InstanceCommand, tag="request_standby", frozen=True, kw_only=True):
    """A standby for the primary, on its host. `offers` is filled by the owner with what that host has free."""

    machine_id: str
    primary_machine_id: str
    host_id: str
    mode: StandbyMode
    volume_gb: int
    offers: tuple[Offer, ...] = ()


class ReleaseStandby(InstanceCommand, tag="release_standby", frozen=True, kw_only=True):
    """Give a standby back. A machine that has become the primary is left alone."""

    machine_id: str


class PromoteMachine(InstanceCommand, tag="promote", frozen=True, kw_only=True):
    """Let the standby take over from the machine it replaces, whether that is lost or only to be given up."""

    machine_id: str
    replaces: str
    failover_id: str
    give_up_at: datetime


# --- time ---------------------------------------------------------------------------------------------------------


class ReplaceMachine(InstanceCommand, tag="replace", frozen=True, kw_only=True):
    """A new machine for the lost one: in the region of its volume (rung regional_volume), or anywhere and filled from
    the last snapshot (cloud_storage). `offers` is filled by the owner."""

    machine_id: str
    replaces: str
    failover_id: str
    give_up_at: datetime
    rung: str
    offers: tuple[Offer, ...] = ()
    no_offer: str = ""


class GiveUpMachine(InstanceCommand, tag="give_up_machine", frozen=True, kw_only=True):
    """The machine has had its time to come up (STARTUP_TIMEOUT, contract novita A7: 10 minutes)."""

    machine_id: str


class StopIfIdle(InstanceCommand, tag="stop_if_idle", frozen=True, kw_only=True):
    """Auto-stop: decided from the state's own last use, so an early or late deadline is harmless."""


AnyCommand = (
    CreateInstance
    | StartInstance
    | StopInstance
    | DeleteInstance
    | MarkUsed
    | KeepAlive
    | ReportRented
    | ReportBooted
    | ReportHealthy
    | ReportFailed
    | ReportStartRefused
    | ReportStopped
    | ReportDestroyed
    | ReportVolumeShared
    | ReportVolumeReleased
    | WishVolume
    | ReportSilence
    | ReportHeard
    | RequestStandby
    | ReleaseStandby
    | PromoteMachine
    | GiveUpMachine
    | ReplaceMachine
    | EnableCpuStandby
    | DisableCpuStandby
    | RequestCpuStandby
    | PromoteCpuStandby
    | WantGpu
    | TryReturn
    | ReportSync
    | RequestSnapshot
    | ReportSnapshot
    | ReportSnapshotFailed
    | GiveUpSnapshot
    | HibernateInstance
    | SuspendInstance
    | ExpireInstance
    | ReportIdle
    | ReportBusy
    | ReportSnapshotChecked
    | AbandonHibernation
    | ReportRestored
    | StopIfIdle
    | RecordAttempt
    | Blacklist
    | Unblacklist
    | ReportBill
    | ReportOrphan
    | DestroyOrphan
    | ReportOrphanGone
    | NoteCare
)
