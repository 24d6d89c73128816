"""Dumont: /instances. Create, read, start, stop, delete (seed 000, Instances; contract dumont 1)."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct

from proto.failover.words import Strategy
from proto.instance.commands import CreateInstance, DeleteInstance, StartInstance, StopInstance
from proto.instance.queries import LIST_LIMIT_MAX, GetInstance, InstanceList, InstanceView, ListInstances
from proto.instance.words import SSH_PORT, InstanceStatus, MachineSpec, Port
from services.gateway.call import Answer, Call
from services.gateway.dialects import MICROS, milliseconds
from services.gateway.dialects.dumont import DIALECT, LIST_LIMIT_DEFAULT, ok, page
from services.gateway.dialects.dumont.instance_object import ASKED, DumontInstance, instance
from services.gateway.dialects.gpu_names import gpu_name
from services.gateway.dialects.holds import command_with_hold
from services.gateway.dialects.protection import protected
from services.gateway.dialects.receivers import receiver_url
from services.gateway.routing import Route
from services.gateway.validation import refuse

DEFAULT_IMAGE = "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime"
PORTS_MAX = 15  # contract novita B: the narrowest provider
READY_ESTIMATE_S = 240
WAIT_S_MAX = 60
WAIT_POLL_S = 0.1

Text = Annotated[str, Meta(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
Label = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Word = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")]
Url = Annotated[str, Meta(max_length=500, pattern=r"^https?://[^\s/?#]+[^\s]*$")]
PortNumber = Annotated[int, Meta(ge=1, le=65535)]


class CreateBody(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Exactly one of `gpu` (the cheapest eligible offer) and `offer_id` (that one).

    `failover_strategy` also makes the standbys it needs, the CPU standby unless `skip_standby`. `skip_validation` is
    the original's: what it skipped is not done here before a create.
    """

    gpu: Label | None = None
    offer_id: Word | None = None
    image: Text = DEFAULT_IMAGE
    disk_size: Annotated[int, Meta(ge=10, le=10_000)] = 100
    label: Label | None = None
    name: Label | None = None
    ports: Annotated[tuple[PortNumber, ...], Meta(max_length=PORTS_MAX)] = (8080,)
    onstart_cmd: Annotated[str, Meta(max_length=10_000)] = ""
    region: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    num_gpus: Annotated[int, Meta(ge=1, le=8)] = 1
    max_price: Annotated[float, Meta(gt=0, le=1000)] | None = None
    machine_type: Literal["on-demand", "interruptible"] = "interruptible"
    webhook_url: Url | None = None
    ssh_key: Annotated[str, Meta(max_length=10_000, pattern=r"^(ssh-|ecdsa-|sk-)\S+ \S+")] | None = None
    env: Annotated[dict[str, str], Meta(max_length=100)] = {}
    auto_stop_minutes: Annotated[int, Meta(ge=0, le=43_200)] = 0
    failover_enabled: bool | None = None
    failover_strategy: Strategy | None = None
    skip_standby: bool = False
    skip_validation: bool = False


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing needs to be said."""


class WaitQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`wait=20`: answer when the change is complete, or after that many seconds with how far it is."""

    wait: Annotated[int, Meta(ge=0, le=WAIT_S_MAX)] = 0


class ListQuery(Struct, frozen=True, forbid_unknown_fields=True):
    status: Literal[
        "creating", "starting", "running", "stopping", "stopped", "hibernating", "hibernated", "interrupted",
        "recovering", "migrating", "failed", "error", "deleting", "deleted",
    ] | None = None  # fmt: skip
    gpu: Annotated[str, Meta(max_length=100)] = ""
    label: Annotated[str, Meta(max_length=100)] = ""
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class DeleteQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`spot_interruption` is the original's spelling of `spot_preemption`; both come in."""

    destroy_standby: bool = True
    reason: Literal["user_request", "gpu_failure", "spot_interruption", "spot_preemption"] = "user_request"
    wait: Annotated[int, Meta(ge=0, le=WAIT_S_MAX)] = 0


async def list_instances(call: Call) -> Answer:
    query: ListQuery = call.query
    found: InstanceList = await call.ask(
        ListInstances(
            account_id=call.account_id,
            statuses=ASKED[query.status] if query.status else (),
            gpu=gpu_name(query.gpu),
            name=query.label,
            limit=query.limit,
            offset=query.offset,
        )
    )
    items = [instance(view) for view in found.items]
    return page(items, total=found.total, limit=query.limit, offset=query.offset)


async def create_instance(call: Call) -> Answer:
    body: CreateBody = call.body
    if (body.gpu is None) == (body.offer_id is None):
        refuse("gpu", "Exactly one of gpu and offer_id is required")
    if body.name and body.label and body.name != body.label:
        refuse("label", "name and label are the same field; send one of them")
    strategy = _chosen_strategy(is_enabled=body.failover_enabled, strategy=body.failover_strategy)
    instance_id = call.derived_id("inst")
    wish = _create_command(call, body, instance_id)
    wish = await protected(call, wish, strategy, skip_standby=body.skip_standby)
    await command_with_hold(call, wish)
    # A chosen offer says which GPU it is, and a repeated key may mean an instance that is there already.
    is_known = not (call.idempotency_key or wish.offer_id or call.query.wait)
    view = created_view(wish) if is_known else await _wait_for(call, instance_id, ("ready", "failed"), call.query.wait)
    call.replayed = view.created_at < call.now
    estimate = milliseconds(view.created_at + timedelta(seconds=READY_ESTIMATE_S))
    answer = ok(instance(view, estimate), 201)
    answer.headers["Location"] = f"/api/v1/instances/{instance_id}"
    return answer


def _chosen_strategy(*, is_enabled: bool | None, strategy: Strategy | None) -> Strategy | None:
    """None: the account's defaults hold."""
    if is_enabled is False:
        if strategy not in (None, "disabled"):
            refuse("failover_strategy", "Failover strategy contradicts failover_enabled false; send one of them")
        return "disabled"
    if is_enabled and strategy == "disabled":
        refuse("failover_strategy", "Failover strategy contradicts failover_enabled true; send one of them")
    return strategy


def created_view(wish: CreateInstance) -> InstanceView:
    """What a reader would see of an instance that has just been taken on: a read less per create."""
    return InstanceView(
        instance_id=wish.instance_id,
        account_id=wish.account_id,
        name=wish.name,
        status="creating",
        gpu=wish.spec.gpu,
        spec=wish.spec,
        created_at=wish.now,
        region=wish.spec.region,
        webhook_url=wish.webhook_url,
        auto_stop_minutes=wish.auto_stop_minutes,
    )


async def get_instance(call: Call) -> Answer:
    view = await call.ask(GetInstance(instance_id=call.path["id"], account_id=call.account_id))
    return ok(instance(view))


async def start_instance(call: Call) -> Answer:
    wish = StartInstance(
        now=call.now,
        instance_id=call.path["id"],
        account_id=call.account_id,
        machine_id=call.next_machine_id(call.path["id"]),
        request_id=call.wish_id("start"),
    )
    await command_with_hold(call, wish)
    return await settled(call, ("ready", "failed"), done=("ready", "running", "health_checking"))


async def stop_instance(call: Call) -> Answer:
    wish_id = call.wish_id("stop")
    await call.command(
        StopInstance(now=call.now, instance_id=call.path["id"], account_id=call.account_id, request_id=wish_id)
    )
    return await settled(call, ("stopped", "failed"), done=("stopped",))


async def delete_instance(call: Call) -> Answer:
    query: DeleteQuery = call.query
    reason = "spot_preemption" if query.reason == "spot_interruption" else query.reason
    await call.command(
        DeleteInstance(now=call.now, instance_id=call.path["id"], account_id=call.account_id, reason=reason)
    )
    view = await _wait_for(call, call.path["id"], ("deleted",), query.wait)
    return ok(instance(view))


async def settled(call: Call, ends: tuple[InstanceStatus, ...], done: tuple[InstanceStatus, ...]) -> Answer:
    """202 while it is under way, 200 when it is as wished (contract dumont 11.6)."""
    view = await _wait_for(call, call.path["id"], ends, call.query.wait)
    return ok(instance(view), 200 if view.status in done else 202)


async def _wait_for(call: Call, instance_id: str, ends: tuple[InstanceStatus, ...], wait_s: int) -> InstanceView:
    """The instance in one of `ends`, or as it is when the time is up."""
    clock = call.gateway.clock
    until_s = clock.monotonic_s() + wait_s
    while True:
        view = await _view(call, instance_id)
        if view.status in ends or clock.monotonic_s() >= until_s:
            return view
        await clock.sleep(WAIT_POLL_S)


async def _view(call: Call, instance_id: str) -> InstanceView:
    """As a command has left it, which may be deleted."""
    return await call.ask(GetInstance(instance_id=instance_id, account_id=call.account_id, with_deleted=True))


def _create_command(call: Call, body: CreateBody, instance_id: str) -> CreateInstance:
    return CreateInstance(
        now=call.now,
        instance_id=instance_id,
        account_id=call.account_id,
        name=body.label or body.name or instance_id,
        spec=MachineSpec(
            gpu=gpu_name(body.gpu or ""),  # with `offer_id` the offer says which
            image=body.image,
            gpu_count=body.num_gpus,
            disk_gb=body.disk_size,
            region=body.region,
            billing="on_demand" if body.machine_type == "on-demand" else "spot",
            ports=_ports(body.ports),
            env={name: call.gateway.specs.seal_field(value, owner=instance_id) for name, value in body.env.items()},
            start_command=call.gateway.specs.seal_field(body.onstart_cmd, owner=instance_id),
            ssh_public_key=body.ssh_key or "",
            price_usd_micros_per_hour_max=round((body.max_price or 0) * MICROS),
        ),
        machine_id=call.first_machine_id(instance_id),
        offer_id=body.offer_id or "",
        webhook_url=receiver_url(call, "webhook_url", body.webhook_url),
        auto_stop_minutes=body.auto_stop_minutes,
        skip_standby=body.skip_standby,
        request_hash=call.request_hash(),
        dialect=DIALECT.name,
    )


def _ports(numbers: tuple[int, ...]) -> tuple[Port, ...]:
    """SSH always comes along: `ip` and `ssh_port` are the seed's way in."""
    others = (Port(number) for number in dict.fromkeys(numbers) if number != SSH_PORT)
    return (Port(SSH_PORT, "tcp"), *others)


ROUTES = (
    Route("GET", "/api/v1/instances", DIALECT, "instances:read", "read", list_instances, "List machines",
          query=ListQuery, reply=list[DumontInstance], has_meta=True),
    Route("POST", "/api/v1/instances", DIALECT, "instances:write", "create", create_instance, "Create a machine",
          body=CreateBody, query=WaitQuery, reply=DumontInstance, statuses=(201,),
          example={"gpu": "RTX 4090", "image": "pytorch:2.0-cuda12", "disk_size": 100}),
    Route("GET", "/api/v1/instances/{id}", DIALECT, "instances:read", "read", get_instance, "Read a machine",
          reply=DumontInstance),
    Route("DELETE", "/api/v1/instances/{id}", DIALECT, "instances:write", "write", delete_instance,
          "Delete a machine", body=NoBody, query=DeleteQuery, reply=DumontInstance),
    *(
        Route("POST", f"/api/v1/instances/{{id}}/{verb}", DIALECT, "instances:write", "write", handle, summary,
              body=NoBody, query=WaitQuery, reply=DumontInstance, statuses=(202, 200))
        for verb, handle, summary in (
            ("start", start_instance, "Start a machine"),
            ("resume", start_instance, "Start a machine (alias)"),
            ("wake", start_instance, "Start a machine (alias)"),
            ("stop", stop_instance, "Stop a machine"),
            ("pause", stop_instance, "Stop a machine (alias)"),
        )
    ),
)  # fmt: skip
