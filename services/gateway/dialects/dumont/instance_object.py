"""The instance as seed 000 shows it, with what the original's record adds (contract dumont 1). Pure field map."""

from __future__ import annotations

from msgspec import Struct

from libs.sealed_urls import shown
from proto.instance.queries import InstanceView
from proto.instance.words import SSH_PORT, Endpoint, InstanceStatus, MachineRole, MachineStatus
from services.gateway.dialects import milliseconds, milliseconds_or_none, reachable, ssh_command, usd
from services.gateway.dialects.dumont.volume_object import DumontVolume, volume

# In this dialect `running` means that the customer can work; what comes before that is `starting`.
SHOWN: dict[InstanceStatus, str] = {"running": "starting", "health_checking": "starting", "ready": "running"}
# What a filter on a shown status asks of the owner.
ASKED: dict[str, tuple[InstanceStatus, ...]] = {
    "creating": ("creating",),
    "starting": ("starting", "running", "health_checking"),
    "running": ("ready",),
    "stopping": ("stopping",),
    "stopped": ("stopped",),
    "hibernating": ("hibernating",),
    "hibernated": ("hibernated",),
    "interrupted": ("interrupted",),
    "recovering": ("recovering",),
    "migrating": ("migrating",),
    "failed": ("failed",),
    "error": ("failed",),
    "deleting": ("deleting",),
    "deleted": ("deleted",),
}

STANDBYS: frozenset[MachineRole] = frozenset({"standby", "cpu_standby"})
ON: frozenset[MachineStatus] = frozenset({"rented", "booted", "healthy"})
STANDING_BY: frozenset[MachineStatus] = frozenset({"requested", "rented", "booted", "healthy", "stopping", "stopped"})


class DumontStandbyMachine(Struct, frozen=True, kw_only=True):
    """The CPU machine that stands by; its copies are under `/standby/associations`."""

    name: str | None
    provider: str | None
    ip: str | None
    status: str
    dph_total: float | None


class DumontInstance(Struct, frozen=True, kw_only=True):
    """`status` is the customer's word, `actual_status` the platform's own. Money in USD, sizes in GB. `cost_per_hour`
    is the price of its machine, charged while it is `ready`: a stopped instance shows it and costs nothing;
    `total_dph` is that with the machines that stand by for it and are on."""

    id: str
    gpu: str
    status: str
    ip: str | None
    ssh_port: int | None
    cost_per_hour: float | None
    created_at: str
    actual_status: str
    name: str
    label: str
    gpu_name: str  # what its machine has: after a loss it may be another than the one asked for
    num_gpus: int
    gpu_ram: int | None
    cpu_cores: int | None
    cpu_ram: int | None
    disk_size: int
    disk_space: int
    image: str
    region: str
    provider: str | None
    provider_instance_id: str | None
    host_id: str | None
    machine_type: str
    dph_total: float | None
    total_dph: float | None
    cpu_standby: DumontStandbyMachine | None
    public_ipaddr: str | None
    ssh_host: str | None
    ssh_command: str | None
    ports: dict[str, int]
    generation: int
    status_reason: str
    failure_code: str | None
    webhook_url: str | None
    start_date: str | None
    ready_at: str | None
    stopped_at: str | None
    deleted_at: str | None
    last_used_at: str | None
    keep_alive_until: str | None
    volume: DumontVolume | None
    estimated_ready_at: str | None = None


def instance(view: InstanceView, estimated_ready_at: str | None = None) -> DumontInstance:
    endpoints = reachable(view)
    ssh = _ssh(endpoints)
    offer = view.offer
    price = usd(view.price_usd_micros_per_hour) if view.price_usd_micros_per_hour else None
    host = ssh.host if ssh else (endpoints[0].host if endpoints else None)
    return DumontInstance(
        id=view.instance_id,
        gpu=view.gpu,
        status=SHOWN.get(view.status, view.status),
        ip=host,
        ssh_port=ssh.public_port if ssh else None,
        cost_per_hour=price,
        created_at=milliseconds(view.created_at),
        actual_status=view.status,
        name=view.name,
        label=view.name,
        gpu_name=offer.gpu if offer and offer.kind == "gpu" else view.gpu,
        num_gpus=view.spec.gpu_count,
        gpu_ram=offer.gpu_memory_gb if offer else None,
        cpu_cores=offer.cpu_cores if offer else None,
        cpu_ram=offer.memory_gb if offer else None,
        disk_size=view.spec.disk_gb,
        disk_space=view.spec.disk_gb,
        image=view.spec.image,
        region=view.region or view.spec.region,
        provider=view.provider or None,
        provider_instance_id=view.provider_machine_id or None,
        host_id=view.host_id or None,
        machine_type="on-demand" if view.spec.billing == "on_demand" else "interruptible",
        dph_total=price,
        total_dph=_total(view),
        cpu_standby=_cpu_standby(view),
        public_ipaddr=host,
        ssh_host=ssh.host if ssh else None,
        ssh_command=ssh_command(ssh),
        ports={f"{endpoint.port}/tcp": endpoint.public_port for endpoint in endpoints},
        generation=view.generation,
        status_reason=view.status_reason,
        failure_code=view.failure_code or None,
        webhook_url=shown(view.webhook_url) or None,
        start_date=milliseconds_or_none(view.started_at),
        ready_at=milliseconds_or_none(view.ready_at),
        stopped_at=milliseconds_or_none(view.stopped_at),
        deleted_at=milliseconds_or_none(view.deleted_at),
        last_used_at=milliseconds_or_none(view.last_used_at),
        keep_alive_until=milliseconds_or_none(view.keep_alive_until),
        volume=volume(view),
        estimated_ready_at=estimated_ready_at,
    )


def _total(view: InstanceView) -> float | None:
    if not view.price_usd_micros_per_hour:
        return None
    beside = (one for one in view.machines if one.role in STANDBYS and one.status in ON)
    return usd(view.price_usd_micros_per_hour + sum(one.price_usd_micros_per_hour for one in beside))


def _cpu_standby(view: InstanceView) -> DumontStandbyMachine | None:
    machine = next((one for one in view.machines if one.role == "cpu_standby" and one.status in STANDING_BY), None)
    if machine is None:
        return None
    ssh = _ssh(machine.endpoints)
    return DumontStandbyMachine(
        name=machine.provider_machine_id or None,
        provider=machine.provider or None,
        ip=ssh.host if ssh else None,
        status=machine.status,
        dph_total=usd(machine.price_usd_micros_per_hour) if machine.price_usd_micros_per_hour else None,
    )


def _ssh(endpoints: tuple[Endpoint, ...]) -> Endpoint | None:
    for endpoint in endpoints:
        if endpoint.port == SSH_PORT:
            return endpoint
    return None
