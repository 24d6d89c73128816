"""Is an order one that this cloud can carry out? Used by `cloud`; owns the refusals and the form of a fresh record."""

from __future__ import annotations

import asyncssh

from services.sandbox.market import Lot, Market
from services.sandbox.records import Record, Volume
from services.sandbox.volumes import Volumes
from services.sandbox.wire import CreateBody, MachineView

# An image under this name cannot be pulled, so that a customer's mistake can be rehearsed.
IMAGE_MISSING_PREFIX = "missing/"


class Refusal(Exception):
    """The cloud says no; `routes` maps the code to a status."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def check_order(body: CreateBody, market: Market, volumes: Volumes) -> tuple[Lot, Volume | None]:
    """What is ordered. Raises Refusal."""
    lot = market.lot(body.offer_id)
    if lot is None:
        raise Refusal("offer_gone", f"there is no offer {body.offer_id}")
    if body.image.startswith(IMAGE_MISSING_PREFIX) or any(character.isspace() for character in body.image):
        raise Refusal("bad_image", f"image {body.image!r} cannot be pulled")
    wished = [wish.port for wish in body.ports]
    if len(set(wished)) != len(wished):
        raise Refusal("bad_ports", "a port is asked for twice")
    for key in (*body.ssh_public_keys, *body.inbox_public_keys):
        _check_key(key)
    if not body.volume_id:
        return lot, None
    volume = volumes.find(body.volume_id)
    if volume is None:
        raise Refusal("volume_unknown", f"there is no volume {body.volume_id}")
    if volume.region and volume.region != lot.host.region:
        raise Refusal("volume_elsewhere", f"volume {body.volume_id} is in {volume.region}")
    if not volume.region and volume.host_id != lot.host.host_id:
        raise Refusal("volume_elsewhere", f"volume {body.volume_id} is on {volume.host_id}")
    if volume.region and volumes.in_use(volume.volume_id):
        raise Refusal("volume_in_use", f"another machine has volume {body.volume_id}")
    return lot, volume


def record_of(
    body: CreateBody, lot: Lot, *, machine_id: str, price_usd_micros_per_hour: int, created_at: float, user_id: int
) -> Record:
    return Record(
        machine_id=machine_id,
        label=body.label,
        status="creating",
        wanted="running",
        offer_id=body.offer_id,
        host_id=lot.host.host_id,
        gpu=lot.host.model.name,
        gpu_count=lot.gpu_count if lot.host.kind == "gpu" else 0,
        region=lot.host.region,
        kind=lot.host.kind,
        billing=lot.billing,
        price_usd_micros_per_hour=price_usd_micros_per_hour,
        created_at=created_at,
        image=body.image,
        slots=lot.gpu_count,
        ports=body.ports,
        env=body.env,
        agent_env=body.agent_env,
        start_command=body.start_command,
        ssh_public_keys=body.ssh_public_keys,
        inbox_public_keys=body.inbox_public_keys,
        volume_id=body.volume_id,
        mount_path=body.mount_path,
        user_id=user_id,
    )


def view_of(record: Record, ssh_key_path: str) -> MachineView:
    """The machine as the API shows it."""
    return MachineView(
        machine_id=record.machine_id,
        label=record.label,
        status=record.status,
        offer_id=record.offer_id,
        host_id=record.host_id,
        gpu=record.gpu,
        gpu_count=record.gpu_count,
        region=record.region,
        kind=record.kind,
        billing=record.billing,
        price_usd_micros_per_hour=record.price_usd_micros_per_hour,
        created_at=record.created_at,
        endpoints=record.endpoints if record.status == "running" else (),
        interruption=record.interruption,
        detail=record.detail,
        volume_id=record.volume_id,
        ssh_key_path=ssh_key_path,
    )


def _check_key(key: str) -> None:
    try:
        asyncssh.import_authorized_keys(key)
    except ValueError as error:
        raise Refusal("bad_ssh_key", f"an ssh public key cannot be read: {error}") from error
