"""Novita: /api/instances (seeds 001, 002, 004; contract novita A3, A4): one function per endpoint."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from libs.ids import derive_id
from libs.refusal import Refused
from proto.base import Position
from proto.instance.commands import CreateInstance, DeleteInstance, MarkUsed, StartInstance, StopInstance
from proto.instance.queries import LIST_LIMIT_MAX, GetInstance, InstanceList, InstanceView, ListInstances
from proto.instance.words import HealthCheck, MachineSpec
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds
from services.gateway.dialects.gpu_names import gpu_name
from services.gateway.dialects.holds import command_with_hold
from services.gateway.dialects.novita import DIALECT
from services.gateway.dialects.novita.instance_object import (
    ASKED,
    NovitaInstance,
    StatusModel,
    instance,
    shown_status,
)
from services.gateway.dialects.novita.templates import template
from services.gateway.dialects.protection import protected
from services.gateway.dialects.receivers import receiver_url
from services.gateway.routing import Route

LIST_LIMIT_DEFAULT = 50
CREATE_ESTIMATE_S = 240  # contract novita A3: the original says now + 4 min
START_ESTIMATE_S = 180
AUTO_STOP_MINUTES = 20  # contract novita A6-10: clients touch every 10 minutes
# A clock ahead of ours by more than this is wrong; "used in the future" would switch auto-stop off.
CLOCK_AHEAD_S_MAX = 300

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
Url = Annotated[str, Meta(max_length=500, pattern=r"^https?://[^\s/?#]+[^\s]*$")]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]
Region = Literal[
    "CN-HK-01", "AS-SGP-02", "AS-IN-01", "US-CA-06", "US-WEST-01", "EU-DE-01", "EU-WEST-01", "OC-AU-01"
]  # fmt: skip
UP = ("running", "health_checking", "ready")
RENAMES_START = {"INVALID_STATE": "INSTANCE_NOT_STARTABLE"}
RENAMES_STOP = {"INVALID_STATE": "INSTANCE_NOT_STOPPABLE"}
RENAMES_DELETE = {"INVALID_STATE": "INSTANCE_NOT_DELETABLE"}


class NovitaCreateBody(Struct, frozen=True, kw_only=True, rename="camel"):
    name: Name
    product_name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    template_id: Annotated[str, Meta(min_length=1, max_length=200)]
    gpu_num: Annotated[int, Meta(ge=1, le=8)] = 1
    rootfs_size: Annotated[int, Meta(ge=20, le=1000)] = 60
    region: Region = "CN-HK-01"
    webhook_url: Url | None = None
    billing_mode: Literal["spot", "onDemand"] = "spot"


class NovitaHealthCheck(Struct, frozen=True, kw_only=True, rename="camel"):
    timeout_ms: Annotated[int, Meta(ge=1_000, le=300_000)] = 30_000
    retry_attempts: Annotated[int, Meta(ge=0, le=10)] = 3
    retry_delay_ms: Annotated[int, Meta(ge=100, le=30_000)] = 2_000
    max_wait_time_ms: Annotated[int, Meta(ge=30_000, le=1_800_000)] = 600_000
    target_port: PortNumber | None = None


class NovitaStartBody(Struct, frozen=True, kw_only=True, rename="camel"):
    health_check_config: NovitaHealthCheck | None = None
    target_port: PortNumber | None = None
    webhook_url: Url | None = None


class NovitaStartByNameBody(NovitaStartBody, frozen=True, kw_only=True, rename="camel"):
    instance_name: Name


class NovitaNoBody(Struct, frozen=True):
    """Nothing needs to be said; the clients of seeds 002 and 004 send an empty body with a JSON content type."""


class NovitaStopByNameBody(Struct, frozen=True, kw_only=True, rename="camel"):
    instance_name: Name


class NovitaLastUsedBody(Struct, frozen=True, kw_only=True, rename="camel"):
    last_used_at: Annotated[datetime, Meta(tz=True)] | None = None


class NovitaListQuery(Struct, frozen=True, kw_only=True, rename="camel"):
    """`source` and the two flags of the original are understood: here every instance is ours and is in step."""

    status: Literal[
        "creating", "starting", "running", "health_checking", "ready", "stopping", "stopped", "failed", "exited",
        "migrating", "terminated",
    ] | None = None  # fmt: skip
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    status_model: StatusModel = "full"
    source: Literal["all", "local", "novita"] = "all"


class NovitaReadQuery(Struct, frozen=True, rename="camel"):
    status_model: StatusModel = "full"


class NovitaCreated(Struct, frozen=True, kw_only=True, rename="camel"):
    instance_id: str
    status: str
    message: str
    estimated_ready_time: str
    region: str


class NovitaInstances(Struct, frozen=True):
    instances: list[NovitaInstance]
    total: int
    limit: int
    offset: int


class NovitaOperation(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    instance_id: str
    novita_instance_id: str | None
    status: str
    message: str
    operation_id: str
    estimated_ready_time: str | None = None


class NovitaLastUsed(Struct, frozen=True, rename="camel"):
    instance_id: str
    last_used_at: str
    message: str


async def create_instance(call: Call) -> Answer:
    body: NovitaCreateBody = call.body
    instance_id = call.derived_id("inst")
    await command_with_hold(call, await protected(call, _create_command(call, body, instance_id)))
    status, created_at = "creating", call.now
    if call.idempotency_key:
        view = await _view(call, instance_id)
        status, created_at = shown_status(view.status, "full"), view.created_at
        call.replayed = created_at < call.now
    return Answer(
        201,
        NovitaCreated(
            instance_id=instance_id,
            status=status,
            message="Instance creation initiated",
            estimated_ready_time=milliseconds(created_at + timedelta(seconds=CREATE_ESTIMATE_S)),
            region=body.region,
        ),
        {"Location": f"/api/instances/{instance_id}"},
    )


async def list_instances(call: Call) -> Answer:
    query: NovitaListQuery = call.query
    found: InstanceList = await call.ask(
        ListInstances(
            account_id=call.account_id,
            statuses=ASKED[query.status] if query.status else (),
            limit=query.limit,
            offset=query.offset,
        )
    )
    items = [instance(view, query.status_model) for view in found.items]
    return Answer(200, NovitaInstances(items, found.total, query.limit, query.offset))


async def get_instance(call: Call) -> Answer:
    view = await call.ask(GetInstance(instance_id=call.path["instanceId"], account_id=call.account_id))
    return Answer(200, instance(view, call.query.status_model))


async def start_by_id(call: Call) -> Answer:
    return await _start(call, call.path["instanceId"])


async def start_by_name(call: Call) -> Answer:
    return await _start(call, await _id_of(call, call.body.instance_name))


async def stop_by_id(call: Call) -> Answer:
    return await _stop(call, call.path["instanceId"])


async def stop_by_name(call: Call) -> Answer:
    return await _stop(call, await _id_of(call, call.body.instance_name))


async def delete_instance(call: Call) -> Answer:
    instance_id = call.path["instanceId"]
    position = await call.command(DeleteInstance(now=call.now, instance_id=instance_id, account_id=call.account_id))
    view = await _view(call, instance_id)
    message = "Instance deleted" if view.status == "deleted" else "Instance deletion initiated"
    return Answer(200, _operation(view, message, position))


async def mark_used(call: Call) -> Answer:
    instance_id = call.path["instanceId"]
    used_at = (call.body.last_used_at or call.now).astimezone(UTC)
    used_at = min(used_at, call.now) if used_at <= call.now + timedelta(seconds=CLOCK_AHEAD_S_MAX) else None
    if used_at is None:
        reason = "Last used at must not be in the future"
        raise Refused("VALIDATION_ERROR", field="lastUsedAt", reason=reason)
    await call.command(MarkUsed(now=call.now, instance_id=instance_id, account_id=call.account_id, used_at=used_at))
    if call.body.last_used_at is not None:  # an instance that was used later stays so
        used_at = (await _view(call, instance_id)).last_used_at or used_at
    return Answer(200, NovitaLastUsed(instance_id, milliseconds(used_at), "Last used time updated"))


async def _start(call: Call, instance_id: str) -> Answer:
    body: NovitaStartBody = call.body
    position = await command_with_hold(
        call,
        StartInstance(
            now=call.now,
            instance_id=instance_id,
            account_id=call.account_id,
            machine_id=call.next_machine_id(instance_id),
            request_id=call.wish_id("start"),
            health_check=_health_check(body),
            webhook_url=receiver_url(call, "webhookUrl", body.webhook_url),
        ),
    )
    view = await _view(call, instance_id)
    if view.status in UP:
        return Answer(202, _operation(view, "Instance is already running", position))
    estimate = milliseconds(call.now + timedelta(seconds=START_ESTIMATE_S))
    return Answer(202, _operation(view, "Instance startup initiated", position, estimate))


async def _stop(call: Call, instance_id: str) -> Answer:
    wish = StopInstance(
        now=call.now, instance_id=instance_id, account_id=call.account_id, request_id=call.wish_id("stop")
    )
    position = await call.command(wish)
    view = await _view(call, instance_id)
    message = "Instance is stopped" if view.status == "stopped" else "Instance stop initiated"
    return Answer(200, _operation(view, message, position))


async def _view(call: Call, instance_id: str) -> InstanceView:
    """As a command has left it, which may be deleted."""
    return await call.ask(GetInstance(instance_id=instance_id, account_id=call.account_id, with_deleted=True))


async def _id_of(call: Call, name: str) -> str:
    """The one live instance of this name. Names are not unique (contract novita A7), so several are said to be so."""
    found: InstanceList = await call.ask(ListInstances(account_id=call.account_id, name=name, limit=LIST_LIMIT_MAX))
    ids = [view.instance_id for view in found.items if view.status != "deleting" and view.name == name]
    if not ids:
        raise Refused("INSTANCE_NOT_FOUND", instance_id=name)
    if len(ids) > 1:
        raise Refused("INSTANCE_NAME_AMBIGUOUS", name=name, instance_ids=ids)
    return ids[0]


def _operation(
    view: InstanceView, message: str, position: Position | None, estimated_ready_time: str | None = None
) -> NovitaOperation:
    where = (position.stream, str(position.seq)) if position else (view.instance_id, view.status)
    return NovitaOperation(
        instance_id=view.instance_id,
        novita_instance_id=view.provider_machine_id or None,
        status=shown_status(view.status, "full"),
        message=message,
        operation_id=derive_id("op", *where),
        estimated_ready_time=estimated_ready_time,
    )


def _health_check(body: NovitaStartBody) -> HealthCheck | None:
    asked = body.health_check_config
    if asked is None and body.target_port is None:
        return None
    asked = asked or NovitaHealthCheck()
    return HealthCheck(
        timeout_ms=asked.timeout_ms,
        retries_max=asked.retry_attempts,
        retry_delay_ms=asked.retry_delay_ms,
        wait_max_ms=asked.max_wait_time_ms,
        target_port=asked.target_port or body.target_port or 0,
    )


def _create_command(call: Call, body: NovitaCreateBody, instance_id: str) -> CreateInstance:
    chosen = template(body.template_id)
    return CreateInstance(
        now=call.now,
        instance_id=instance_id,
        account_id=call.account_id,
        name=body.name,
        spec=MachineSpec(
            gpu=gpu_name(body.product_name),
            image=chosen.image,
            gpu_count=body.gpu_num,
            disk_gb=body.rootfs_size,
            region=body.region,
            billing="on_demand" if body.billing_mode == "onDemand" else "spot",
            ports=chosen.ports,
        ),
        machine_id=call.first_machine_id(instance_id),
        webhook_url=receiver_url(call, "webhookUrl", body.webhook_url),
        auto_stop_minutes=AUTO_STOP_MINUTES,
        request_hash=call.request_hash(),
        dialect=DIALECT.name,
    )


READ, WRITE = "instances:read", "instances:write"
ROUTES = (
    Route("POST", "/api/instances", DIALECT, WRITE, "create", create_instance, "Create a GPU instance",
          body=NovitaCreateBody, reply=NovitaCreated, statuses=(201,),
          example={"name": "my-gpu-instance", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter",
                   "webhookUrl": "https://your-app.com/webhook"}),
    Route("GET", "/api/instances", DIALECT, READ, "read", list_instances, "List instances",
          query=NovitaListQuery, reply=NovitaInstances),
    Route("GET", "/api/instances/{instanceId}", DIALECT, READ, "read", get_instance, "Read an instance",
          query=NovitaReadQuery, reply=NovitaInstance),
    Route("DELETE", "/api/instances/{instanceId}", DIALECT, WRITE, "write", delete_instance, "Delete an instance",
          body=NovitaNoBody, reply=NovitaOperation, renames=RENAMES_DELETE),
    Route("POST", "/api/instances/{instanceId}/start", DIALECT, WRITE, "write", start_by_id, "Start an instance",
          body=NovitaStartBody, reply=NovitaOperation, statuses=(202,), renames=RENAMES_START),
    Route("POST", "/api/instances/start", DIALECT, WRITE, "write", start_by_name, "Start an instance by name",
          body=NovitaStartByNameBody, reply=NovitaOperation, statuses=(202,), renames=RENAMES_START,
          example={"instanceName": "my-instance"}),
    Route("POST", "/api/instances/{instanceId}/stop", DIALECT, WRITE, "write", stop_by_id, "Stop an instance",
          body=NovitaNoBody, reply=NovitaOperation, renames=RENAMES_STOP),
    Route("POST", "/api/instances/stop", DIALECT, WRITE, "write", stop_by_name, "Stop an instance by name",
          body=NovitaStopByNameBody, reply=NovitaOperation, renames=RENAMES_STOP,
          example={"instanceName": "my-instance"}),
    Route("PUT", "/api/instances/{instanceId}/last-used", DIALECT, WRITE, "write", mark_used,
          "Say that an instance is in use", body=NovitaLastUsedBody, reply=NovitaLastUsed),
)  # fmt: skip
