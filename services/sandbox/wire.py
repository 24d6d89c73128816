"""The sandbox cloud's HTTP words: what its API takes and gives. Used by `routes`, `cloud` and `market`.

A cloud of its own: nothing here is shared with the platform, whose adapter reads the same JSON with its own structs.
Prices are integer micro-dollars per hour for the whole machine; instants are unix seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

# creating: accepted, booting. exited: down by itself or taken away; `interruption` says why when it was taken.
MachineStatus = Literal["creating", "running", "stopping", "stopped", "exited", "failed"]
InterruptionReason = Literal["spot_preemption", "host_failure", "provider_lost"]
Protocol = Literal["tcp", "http"]
Kind = Literal["gpu", "cpu"]
Billing = Literal["spot", "on_demand"]

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")]
ShortText = Annotated[str, Meta(max_length=512)]
# One key without options or a second line: what comes before it is the cloud's to say.
InboxKey = Annotated[str, Meta(max_length=1_024, pattern=r"^ssh-[a-z0-9-]+ [A-Za-z0-9+/]+=*$")]
PortNumber = Annotated[int, Meta(ge=1, le=65_535)]
Variables = Annotated[
    dict[Annotated[str, Meta(max_length=256)], Annotated[str, Meta(max_length=8_192)]], Meta(max_length=128)
]


class OfferView(Struct, frozen=True, omit_defaults=True):
    """Something rentable now."""

    offer_id: str
    host_id: str
    gpu: str
    price_usd_micros_per_hour: int
    region: str
    gpu_count: int
    gpu_memory_gb: int
    cpu_cores: int
    memory_gb: int
    disk_gb: int
    download_mbps: int
    upload_mbps: int
    reliability_ppm: int
    verified: bool
    static_ip: bool
    cuda_version: str
    billing: str
    kind: str


class PortWish(Struct, frozen=True):
    """A port of the machine that should be reachable."""

    port: PortNumber
    protocol: Protocol = "http"


class EndpointView(Struct, frozen=True):
    """Where a port of the machine is reachable from outside."""

    port: int
    host: str
    public_port: int
    protocol: Protocol


class CreateBody(Struct, frozen=True, forbid_unknown_fields=True):
    """An order. The label is the client's token: the same label again gives the same machine."""

    label: Name
    offer_id: Name
    image: Annotated[str, Meta(min_length=1, max_length=512)]
    price_usd_micros_per_hour_max: Annotated[int, Meta(ge=0)] = 0  # 0: no limit
    disk_gb: Annotated[int, Meta(ge=1, le=6_144)] = 60
    ports: Annotated[tuple[PortWish, ...], Meta(max_length=16)] = ()
    env: Variables = {}
    agent_env: Variables = {}  # for the agent alone: shells do not see it
    start_command: Annotated[str, Meta(max_length=8_192)] = ""
    ssh_public_keys: Annotated[tuple[Annotated[str, Meta(max_length=8_192)], ...], Meta(max_length=16)] = ()
    inbox_public_keys: Annotated[tuple[InboxKey, ...], Meta(max_length=4)] = ()  # may hand files in, and nothing else
    volume_id: Annotated[str, Meta(max_length=128)] = ""
    mount_path: Annotated[str, Meta(max_length=64, pattern=r"^(/[A-Za-z0-9_-]+)?$")] = ""  # it again

    def __repr__(self) -> str:
        return f"CreateBody(label={self.label!r}, offer_id={self.offer_id!r})"


class MachineView(Struct, frozen=True, omit_defaults=True):
    """One machine as the API shows it; its environment never leaves."""

    machine_id: str
    label: str
    status: MachineStatus
    offer_id: str
    host_id: str
    gpu: str
    gpu_count: int
    region: str
    kind: str
    billing: str
    price_usd_micros_per_hour: int
    created_at: float
    endpoints: tuple[EndpointView, ...] = ()
    interruption: InterruptionReason | None = None
    detail: str = ""
    volume_id: str = ""
    ssh_key_path: str = ""


class InterruptBody(Struct, frozen=True, forbid_unknown_fields=True):
    """How a machine is taken away. `provider_lost` also makes the cloud forget it."""

    reason: InterruptionReason = "spot_preemption"


class VolumeBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A directory to be a workspace, and to outlive it. Exactly one of `host_id` (machines on that host share it) and
    `region` (any machine of the region, one at a time)."""

    name: Name
    host_id: Annotated[str, Meta(max_length=128)] = ""
    region: Annotated[str, Meta(max_length=128)] = ""
    size_gb: Annotated[int, Meta(ge=1, le=10_000)] = 50


class ShareBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine's own workspace becomes a volume of its host."""

    name: Name
    size_gb: Annotated[int, Meta(ge=1, le=10_000)] = 50

    def on(self, host_id: str) -> VolumeBody:
        return VolumeBody(self.name, host_id=host_id, size_gb=self.size_gb)


class VolumeView(Struct, frozen=True):
    volume_id: str
    name: str
    host_id: str
    size_gb: int
    attached_to: tuple[str, ...]
    region: str = ""


class GpusBody(Struct, frozen=True, forbid_unknown_fields=True):
    """How busy a machine's GPUs are, in percent, one number each."""

    utilizations: Annotated[tuple[Annotated[int, Meta(ge=0, le=100)], ...], Meta(max_length=64)]


class FaultBody(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What should go wrong next; fields that are absent stay as they are."""

    creates_timing_out: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # created, never answered
    creates_failing: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # 503, not created
    requests_limited: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # 429, plain text, no Retry-After
    boots_failing: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    boots_slow: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    boot_slow_ms: Annotated[int, Meta(ge=0, le=3_600_000)] | None = None
    list_lag_ms: Annotated[int, Meta(ge=0, le=3_600_000)] | None = None
    sold_out: Annotated[tuple[ShortText, ...], Meta(max_length=64)] | None = None  # GPU models without capacity
    boots_unwell: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # http ports answer 502 after boot …
    unwell_ms: Annotated[int, Meta(ge=0, le=3_600_000)] | None = None  # … for so long


class News(Struct, frozen=True):
    """Something happened to a machine. `seq` counts within one life of the daemon, `epoch` names that life."""

    epoch: str
    seq: int
    machine_id: str
    status: str  # the machine's status, or "gone"


class Problem(Struct, frozen=True):
    """Every refusal of the API."""

    code: str
    detail: str
