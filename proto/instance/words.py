"""Closed word sets and shared shapes of the instance service.

Words (services/instance/README.md): an *instance* is what the customer owns and keeps; a *machine* is one contract with
a provider that currently carries it; a *host* is the provider's hardware; an *offer* is a machine one could rent now.
"""

from __future__ import annotations

import shlex
from typing import Literal

from msgspec import Struct

# The customer's view, seeds 001/002 and contract dumont 1. `exited` of seed 001 is `interrupted` here; dialects map it.
InstanceStatus = Literal[
    "creating",
    "starting",
    "running",
    "health_checking",
    "ready",
    "stopping",
    "stopped",
    "hibernating",
    "hibernated",
    "interrupted",
    "recovering",
    "migrating",
    "failed",
    "deleting",
    "deleted",
]
# requested: we asked, no contract yet; rented: contract exists, booting; booted: reachable, not yet proven healthy;
# healthy: probes passed. stopping/stopped keep the disk; destroying/destroyed give it back; lost: taken from us;
# failed: would not come up; cancelled: no longer wanted before it came up.
MachineStatus = Literal[
    "requested",
    "rented",
    "booted",
    "healthy",
    "stopping",
    "stopped",
    "destroying",
    "destroyed",
    "lost",
    "failed",
    "cancelled",
]
# What a sync every 30 s should not carry and a restore does not need. `.git` and logs are work: they are kept.
SYNC_EXCLUDES = ("__pycache__", ".cache", ".mypy_cache", ".pytest_cache", "node_modules", ".venv", "venv", "*.tmp")
# successor: a GPU machine that is being filled, to take over from a CPU machine.
MachineRole = Literal["primary", "standby", "cpu_standby", "successor"]
MachineKind = Literal["gpu", "cpu"]
BillingMode = Literal["spot", "on_demand"]
# stopped: costs only its volume, and its GPU may be gone when it is needed; hot: runs all the time.
StandbyMode = Literal["stopped", "hot"]
# Why an instance was interrupted; seed 000 spells `spot_preemption`.
InterruptionReason = Literal["spot_preemption", "host_failure", "provider_lost", "heartbeat_lost", "user_test"]
# Where an attempt to bring up an offer ended (contract dumont 7).
AttemptStage = Literal["creating", "loading", "connecting", "rejected", "error"]
AttemptOutcome = Literal["success", "failure", "cancelled"]
BlacklistType = Literal["auto", "manual", "temporary"]
ReliabilityStatus = Literal["unknown", "excellent", "good", "fair", "poor"]
OrphanKind = Literal["machine", "volume"]
# How a port is spoken to; `tcp` ports are probed by connecting, `http` ones by GET.
PortProtocol = Literal["tcp", "http"]

SSH_PORT = 22
JUPYTER_PORT = 8888
WEB_TERMINAL_PORT = 7681


class Port(Struct, frozen=True, omit_defaults=True, gc=False):
    """A port the customer wants reachable inside the machine."""

    port: int
    protocol: PortProtocol = "http"


class Endpoint(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a port of the machine is reachable from outside."""

    port: int
    host: str
    public_port: int
    protocol: PortProtocol = "tcp"
    identity_file: str = ""  # a private key on the caller's own machine that logs in here (sandbox, no key ordered)


class HealthCheck(Struct, frozen=True, omit_defaults=True, gc=False):
    """How a booted machine is proven healthy (contract novita A3 `healthCheckConfig`; milliseconds as there)."""

    timeout_ms: int = 10_000
    retries_max: int = 3
    retry_delay_ms: int = 2_000
    wait_max_ms: int = 300_000
    target_port: int = 0  # 0: every endpoint must pass


SPEC_PURPOSE = "machine-spec"


class MachineSpec(Struct, frozen=True, omit_defaults=True, gc=False):
    """What to rent: enough for any provider, free of any provider's words.

    The values of `env` and `start_command` may hold what only the machine may know: the gateway seals them for the
    instance (`libs.sealing`, purpose SPEC_PURPOSE), and they are opened when a machine is ordered.
    """

    gpu: str
    image: str
    gpu_count: int = 1
    disk_gb: int = 60
    region: str = ""
    billing: BillingMode = "spot"
    kind: MachineKind = "gpu"
    ports: tuple[Port, ...] = ()
    env: dict[str, str] = {}
    start_command: str = ""
    ssh_public_key: str = ""
    price_usd_micros_per_hour_max: int = 0  # 0: no limit


class Protection(Struct, frozen=True, omit_defaults=True):
    """What a customer wants done when the machine is lost, said with the create. Heard by failover (`strategy`, a word
    of its own), by the warm pool (`pool_mode`; None: no pool) and here (`sync_interval_s`; 0: no CPU standby)."""

    strategy: str
    pool_mode: StandbyMode | None = None
    pool_volume_gb: int = 0
    pool_auto_reprovision: bool = True
    pool_host_gpus: int = 0  # a host with so many free GPUs is preferred: the standby is to be beside the machine
    sync_interval_s: int = 0
    sync_excludes: tuple[str, ...] = ()


class Offer(Struct, frozen=True, omit_defaults=True, gc=False):
    """A machine one could rent now, as the provider's market shows it. Sizes in GB, speed in Mbit/s."""

    offer_id: str
    provider: str
    host_id: str
    gpu: str
    price_usd_micros_per_hour: int
    region: str = ""
    gpu_count: int = 1
    gpu_memory_gb: int = 0
    cpu_cores: int = 0
    memory_gb: int = 0
    disk_gb: int = 0
    download_mbps: int = 0
    upload_mbps: int = 0
    reliability_ppm: int = 1_000_000  # parts per million, so that no float enters an event
    verified: bool = True
    static_ip: bool = False
    cuda_version: str = ""
    billing: BillingMode = "spot"
    kind: MachineKind = "gpu"


class Volume(Struct, frozen=True, omit_defaults=True):
    """A workspace that outlives its machine, as its cloud names it: of a host, or (`region`) of a region.

    Machines of the host share the former; one machine of the region at a time has the latter, at `mount_path` too.
    """

    volume_id: str
    provider: str
    host_id: str
    size_gb: int
    region: str = ""
    name: str = ""  # the machine that it was made for
    mount_path: str = ""

    def is_at(self, offer: Offer) -> bool:
        """Whether a machine rented by this offer could have it."""
        place = offer.region == self.region if self.region else offer.host_id == self.host_id
        return place and offer.provider == self.provider


class VolumeWish(Struct, frozen=True, omit_defaults=True):
    """Each new machine is to have its workspace on a volume of its region. `preferred_regions`: where the first one is
    looked for when the customer names no region (a provider's region or a continent)."""

    size_gb: int
    mount_path: str = ""
    preferred_regions: tuple[str, ...] = ()


def ssh_command(host: str, port: int, identity_file: str) -> str:
    """What the customer types to log in. A sandbox machine is new under an old address often: its key is taken as it is
    and not remembered, or ssh would refuse the next machine on that port."""
    command = f"ssh root@{host} -p {port}"
    if identity_file:
        command += (
            f" -i {shlex.quote(identity_file)} -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/dev/null"
        )
    return command
