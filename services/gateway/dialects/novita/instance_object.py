"""The instance as seeds 001, 002 and 004 read it: one object for all (contract novita A5). Pure field map."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from libs.sealed_urls import shown
from proto.instance.queries import InstanceView
from proto.instance.words import JUPYTER_PORT, SSH_PORT, WEB_TERMINAL_PORT, Endpoint, InstanceStatus
from services.gateway.dialects import milliseconds, milliseconds_or_none, reachable, ssh_command, usd

StatusModel = Literal["full", "basic"]

# Words of the original (contract novita A7) where ours differ.
SHOWN: dict[InstanceStatus, str] = {
    "hibernating": "stopping",
    "hibernated": "stopped",
    "interrupted": "exited",
    "recovering": "migrating",
    "deleting": "terminated",
    "deleted": "terminated",
}
# For readers of seed 001, who know six words only.
BASIC: dict[str, str] = {
    "health_checking": "running",
    "ready": "running",
    "stopping": "running",
    "migrating": "starting",
    "terminated": "exited",
}
# `running` matches whatever a reader of seed 001 would call so; the rest is SHOWN backwards.
ASKED: dict[str, tuple[InstanceStatus, ...]] = {
    "creating": ("creating",),
    "starting": ("starting",),
    "running": ("running", "health_checking", "ready"),
    "health_checking": ("health_checking",),
    "ready": ("ready",),
    "stopping": ("stopping", "hibernating"),
    "stopped": ("stopped", "hibernated"),
    "failed": ("failed",),
    "exited": ("interrupted",),
    "migrating": ("migrating", "recovering"),
    "terminated": ("deleting", "deleted"),
}
# Seed 001 spells the type by what answers there; other ports keep upstream's word.
PORT_TYPES: dict[int, str] = {JUPYTER_PORT: "jupyter", SSH_PORT: "ssh"}


class NovitaPort(Struct, frozen=True):
    port: int
    endpoint: str
    type: str


class NovitaConnection(Struct, frozen=True, rename="camel"):
    """Present from `ready` on. A way in that the machine does not have is null."""

    ssh: str | None
    jupyter: str | None
    web_terminal: str | None


class NovitaInstance(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    id: str
    name: str
    status: str
    gpu_num: int
    region: str
    product_name: str
    port_mappings: list[NovitaPort]
    connection_details: NovitaConnection | None
    created_at: str
    ready_at: str | None
    novita_instance_id: str | None = None
    rootfs_size: int = 0
    billing_mode: str = ""
    price_per_hour: float | None = None
    webhook_url: str | None = None
    status_reason: str | None = None
    error_code: str | None = None
    last_used_at: str | None = None
    started_at: str | None = None
    stopped_at: str | None = None


def shown_status(status: InstanceStatus, model: StatusModel) -> str:
    word = SHOWN.get(status, status)
    return BASIC.get(word, word) if model == "basic" else word


def instance(view: InstanceView, model: StatusModel = "full") -> NovitaInstance:
    endpoints = reachable(view)
    return NovitaInstance(
        id=view.instance_id,
        name=view.name,
        status=shown_status(view.status, model),
        gpu_num=view.spec.gpu_count,
        region=view.region or view.spec.region,
        product_name=view.gpu,
        port_mappings=[_port(endpoint) for endpoint in endpoints],
        connection_details=_connection(endpoints),
        created_at=milliseconds(view.created_at),
        ready_at=milliseconds_or_none(view.ready_at),
        novita_instance_id=view.provider_machine_id or None,
        rootfs_size=view.spec.disk_gb,
        billing_mode="onDemand" if view.spec.billing == "on_demand" else "spot",
        price_per_hour=usd(view.price_usd_micros_per_hour) if view.price_usd_micros_per_hour else None,
        webhook_url=shown(view.webhook_url) or None,
        status_reason=view.status_reason or None,
        error_code=view.failure_code or None,
        last_used_at=milliseconds_or_none(view.last_used_at),
        started_at=milliseconds_or_none(view.started_at),
        stopped_at=milliseconds_or_none(view.stopped_at),
    )


def _port(endpoint: Endpoint) -> NovitaPort:
    kind = PORT_TYPES.get(endpoint.port, endpoint.protocol)
    scheme = {"ssh": "ssh", "tcp": "tcp"}.get(kind, "http")
    return NovitaPort(endpoint.port, f"{scheme}://{endpoint.host}:{endpoint.public_port}", kind)


def _connection(endpoints: tuple[Endpoint, ...]) -> NovitaConnection | None:
    if not endpoints:
        return None
    at = {endpoint.port: endpoint for endpoint in endpoints}
    ssh = at.get(SSH_PORT)
    return NovitaConnection(
        ssh=ssh_command(ssh),
        jupyter=_url(at.get(JUPYTER_PORT)),
        web_terminal=_url(at.get(WEB_TERMINAL_PORT)),
    )


def _url(endpoint: Endpoint | None) -> str | None:
    return f"http://{endpoint.host}:{endpoint.public_port}" if endpoint else None
