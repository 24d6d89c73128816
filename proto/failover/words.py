"""Closed word sets, settings and shared shapes of the failover service (contract dumont 3).

Words (services/failover/README.md): a *failover* (`fo_…`) is one way from a lost machine back to a ready instance; it
climbs the *ladder*, *rung* by rung; the *strategy* says which rungs an instance may use.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

Rung: TypeAlias = Literal["warm_pool", "cpu_standby", "regional_volume", "cloud_storage"]
Strategy: TypeAlias = Literal["warm_pool", "cpu_standby", "both", "regional_volume", "cloud_storage", "all", "disabled"]
FailoverStatus: TypeAlias = Literal["in_progress", "succeeded", "failed"]
AttemptOutcome: TypeAlias = Literal["succeeded", "failed", "skipped"]
StandbyMode: TypeAlias = Literal["stopped", "hot"]
# What the failover service has last heard of an instance's warm pool.
PoolReadiness: TypeAlias = Literal["none", "ready", "not_ready"]


# The order in which rungs are climbed unless an instance has an order of its own.
LADDER: tuple[Rung, ...] = ("warm_pool", "cpu_standby", "regional_volume", "cloud_storage")
RUNGS_OF: dict[Strategy, tuple[Rung, ...]] = {
    "warm_pool": ("warm_pool",),
    "cpu_standby": ("cpu_standby",),
    "both": ("warm_pool", "cpu_standby"),
    "regional_volume": ("regional_volume",),
    "cloud_storage": ("cloud_storage",),
    "all": LADDER,
    "disabled": (),
}


def as_strategy(word: str) -> Strategy:
    """The strategy that another service passes on. A name that is none of ours is a bug of this release."""
    for strategy in RUNGS_OF:
        if strategy == word:
            return strategy
    raise ValueError(f"{word!r} is not a strategy")


def as_rung(word: str) -> Rung:
    """The rung that another service names. A name that is none of ours is a bug of this release."""
    for rung in LADDER:
        if rung == word:
            return rung
    raise ValueError(f"{word!r} is not a rung")


Seconds = Annotated[int, Meta(ge=1, le=3_600)]
SizeGb = Annotated[int, Meta(ge=10, le=10_000)]
GpuNames = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=100)], ...], Meta(max_length=32)]
Word = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
Channels = Annotated[tuple[Literal["email", "slack", "webhook"], ...], Meta(max_length=3)]


class WarmPoolSettings(Struct, frozen=True, omit_defaults=True):
    """Defaults of contract dumont 3; `standby_mode` is ours (contract 4: a stopped standby keeps no GPU)."""

    enabled: bool = True
    min_gpus_per_host: int = 2
    volume_size_gb: int = 100
    auto_provision_standby: bool = True
    fallback_to_cpu_standby: bool = True
    preferred_gpu_names: tuple[str, ...] = ("RTX_4090", "RTX_3090", "A100")
    health_check_interval_seconds: int = 10
    failover_timeout_seconds: int = 120
    auto_reprovision_standby: bool = True
    standby_mode: StandbyMode = "stopped"


class CpuStandbySettings(Struct, frozen=True, omit_defaults=True):
    """The names are those of the contract; `auto_standby` is ours: new GPU instances get one by themselves.

    Without `auto_failover` a standby is kept in sync all the same, but takes over only when somebody says so: a
    failover whose strategy is named, or a start.
    """

    enabled: bool = True
    auto_standby: bool = False
    gcp_zone: str = "europe-west1-b"
    gcp_machine_type: str = "e2-medium"
    gcp_disk_size_gb: int = 100
    gcp_spot: bool = True
    sync_interval_seconds: int = 30
    health_check_interval_seconds: int = 10
    failover_threshold: int = 3
    auto_failover: bool = True
    auto_recovery: bool = True
    snapshot_to_cloud: bool = True


class RegionalVolumeSettings(Struct, frozen=True, omit_defaults=True):
    """`enabled` (or the strategy of that name): a new machine has its workspace on a volume of its region, unless
    `auto_provision_volume` is off, and after a loss a new machine there gets that volume. Not the default: a volume
    costs, and only one machine has it, so that there is no warm pool beside it."""

    enabled: bool = False
    volume_size_gb: int = 50
    preferred_regions: tuple[str, ...] = ()
    mount_path: str = "/data"
    auto_provision_volume: bool = True
    failover_timeout_seconds: int = 120


class GlobalSettings(Struct, frozen=True, omit_defaults=True):
    """What holds for every instance of an account that has no settings of its own."""

    default_strategy: Strategy = "both"
    auto_apply_to_new_machines: bool = True
    notify_on_failover: bool = True
    notify_channels: tuple[str, ...] = ("webhook",)
    warm_pool: WarmPoolSettings = WarmPoolSettings()
    cpu_standby: CpuStandbySettings = CpuStandbySettings()
    regional_volume: RegionalVolumeSettings = RegionalVolumeSettings()

    @property
    def channels(self) -> tuple[str, ...]:
        """Those in force. Events of older releases name others, of which nothing was ever sent."""
        return ("webhook",) if self.notify_channels else ()

    @property
    def is_quiet(self) -> bool:
        """No webhook is to tell of a failover."""
        return not (self.notify_on_failover and self.channels)


class MachineSettings(Struct, frozen=True, omit_defaults=True):
    """One instance's own choice. With `use_global_settings` the other fields are kept and ignored."""

    use_global_settings: bool = True
    strategy: Strategy = "both"
    warm_pool_enabled: bool = True
    cpu_standby_enabled: bool = True
    strategy_order: tuple[Rung, ...] = LADDER
    regional_volume: RegionalVolumeSettings | None = None  # None: the account's


class WarmPoolPatch(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A merge patch: only what is present changes."""

    enabled: bool | UnsetType = UNSET
    min_gpus_per_host: Annotated[int, Meta(ge=2, le=64)] | UnsetType = UNSET
    volume_size_gb: SizeGb | UnsetType = UNSET
    auto_provision_standby: bool | UnsetType = UNSET
    fallback_to_cpu_standby: bool | UnsetType = UNSET
    preferred_gpu_names: GpuNames | UnsetType = UNSET
    health_check_interval_seconds: Seconds | UnsetType = UNSET
    failover_timeout_seconds: Seconds | UnsetType = UNSET
    auto_reprovision_standby: bool | UnsetType = UNSET
    standby_mode: StandbyMode | UnsetType = UNSET


class CpuStandbyPatch(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A merge patch: only what is present changes."""

    enabled: bool | UnsetType = UNSET
    auto_standby: bool | UnsetType = UNSET
    gcp_zone: Word | UnsetType = UNSET
    gcp_machine_type: Word | UnsetType = UNSET
    gcp_disk_size_gb: SizeGb | UnsetType = UNSET
    gcp_spot: bool | UnsetType = UNSET
    sync_interval_seconds: Seconds | UnsetType = UNSET
    health_check_interval_seconds: Seconds | UnsetType = UNSET
    failover_threshold: Annotated[int, Meta(ge=1, le=100)] | UnsetType = UNSET
    auto_failover: bool | UnsetType = UNSET
    auto_recovery: bool | UnsetType = UNSET
    snapshot_to_cloud: bool | UnsetType = UNSET


class RegionalVolumePatch(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A merge patch: only what is present changes."""

    enabled: bool | UnsetType = UNSET
    volume_size_gb: SizeGb | UnsetType = UNSET
    preferred_regions: Annotated[tuple[Word, ...], Meta(max_length=32)] | UnsetType = UNSET
    mount_path: Annotated[str, Meta(max_length=64, pattern=r"^/[A-Za-z0-9_-]+$")] | UnsetType = UNSET
    auto_provision_volume: bool | UnsetType = UNSET
    failover_timeout_seconds: Seconds | UnsetType = UNSET


class GlobalPatch(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A merge patch: only what is present changes, block by block."""

    default_strategy: Strategy | UnsetType = UNSET
    auto_apply_to_new_machines: bool | UnsetType = UNSET
    notify_on_failover: bool | UnsetType = UNSET
    notify_channels: Channels | UnsetType = UNSET
    warm_pool: WarmPoolPatch | UnsetType = UNSET
    cpu_standby: CpuStandbyPatch | UnsetType = UNSET
    regional_volume: RegionalVolumePatch | UnsetType = UNSET


class MachinePatch(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A merge patch: only what is present changes. `strategy` null: back to `both`."""

    use_global_settings: bool | UnsetType = UNSET
    strategy: Strategy | UnsetType | None = UNSET
    warm_pool_enabled: bool | UnsetType = UNSET
    cpu_standby_enabled: bool | UnsetType = UNSET
    strategy_order: Annotated[tuple[Rung, ...], Meta(min_length=1, max_length=4)] | UnsetType = UNSET
    regional_volume: RegionalVolumePatch | UnsetType = UNSET


class Limits(Struct, frozen=True, omit_defaults=True):
    """How often an instance may fail over, and how long one answer may take (contract dumont 3, constants)."""

    failovers_per_day_max: int = 5
    spacing_s: int = 300
    breaker_failures_max: int = 3
    breaker_open_s: int = 300


class Attempt(Struct, frozen=True, omit_defaults=True):
    """One rung of one failover, as it went. `reason` says why it was skipped or failed."""

    rung: Rung
    outcome: AttemptOutcome
    started_at: datetime
    ended_at: datetime
    reason: str = ""

    @property
    def took_ms(self) -> int:
        return milliseconds_between(self.started_at, self.ended_at)


class Phase(Struct, frozen=True, omit_defaults=True):
    """A stretch of a failover. `phase` is a word of the contract: detecting, warm_pool_check, warm_pool_failover."""

    phase: str
    started_at: datetime
    ended_at: datetime
    outcome: AttemptOutcome = "succeeded"
    rung: Rung | None = None

    @property
    def took_ms(self) -> int:
        return milliseconds_between(self.started_at, self.ended_at)


class PoolSeen(Struct, frozen=True, omit_defaults=True):
    """An instance's warm pool as the failover service has last heard of it."""

    readiness: PoolReadiness = "none"
    machine_id: str = ""
    host_id: str = ""
    mode: StandbyMode = "stopped"
    reason: str = "not_configured"


def milliseconds_between(start: datetime, end: datetime) -> int:
    """Never negative: two machines' clocks may disagree by a little."""
    return max(0, round((end - start).total_seconds() * 1000))
