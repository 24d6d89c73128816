"""Dumont: /agent. Heartbeats of machines in both documented payloads, and what they tell (contract dumont 6)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from proto.instance.commands import KeepAlive
from proto.instance.queries import (
    AgentAnswer,
    AgentList,
    AgentReport,
    AgentView,
    GetInstance,
    ListAgents,
    ReceivedReport,
    ReceiveOrder,
    SyncOrder,
)
from services.gateway.auth import AGENT, identify_agent
from services.gateway.call import Answer, Call
from services.gateway.dialects import milliseconds, milliseconds_or_none
from services.gateway.dialects.dumont import DIALECT, ok
from services.gateway.routing import Route
from services.gateway.validation import refuse

KEEP_ALIVE_MINUTES = 30
LEGACY_ID_PREFIX = "vast_"  # the original's agent puts it before the id
COMMANDS: dict[str, list[str]] = {"none": [], "prepare_hibernate": ["snapshot", "hibernate"], "shutdown": ["shutdown"]}

Percent = Annotated[float, Meta(ge=0, le=100)]
Note = Annotated[str, Meta(max_length=500)]


class GpuMetrics(Struct, frozen=True, kw_only=True):
    """Union of the shell agent's and the documentation's names. Absent is unknown, not zero."""

    utilization: Percent | None = None
    utilization_percent: Percent | None = None
    memory_used_mb: Annotated[float, Meta(ge=0)] | None = None
    memory_total_mb: Annotated[float, Meta(ge=0)] | None = None
    gpu_utilizations: Annotated[list[Percent], Meta(max_length=64)] | None = None
    gpu_memory_used: Annotated[list[Annotated[float, Meta(ge=0)]], Meta(max_length=64)] | None = None
    gpu_memory_total: Annotated[list[Annotated[float, Meta(ge=0)]], Meta(max_length=64)] | None = None


class ReceivedCopy(Struct, frozen=True, kw_only=True):
    """The newest whole copy that a CPU standby has. `copies`: how many it has taken in."""

    captured_at: datetime
    files: Annotated[int, Meta(ge=0, le=2**53)] = 0
    bytes: Annotated[int, Meta(ge=0, le=2**53)] = 0
    copies: Annotated[int, Meta(ge=0, le=2**53)] = 0


class HeartbeatBody(Struct, frozen=True, kw_only=True):
    """Tolerant: agents of several generations report here, and what they add is ignored."""

    instance_id: Annotated[str, Meta(min_length=1, max_length=128)] | int
    status: Note = "idle"
    message: Note | None = ""
    version: Note = ""
    agent_version: Note = ""
    hostname: Note = ""
    uptime: Annotated[float, Meta(ge=0, le=1e12)] | None = None
    gpu_metrics: GpuMetrics | None = None
    gpu_utilization: Percent | None = None
    cpu_utilization: Percent | None = None
    memory_used_percent: Percent | None = None
    active_users: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    ssh_sessions: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    last_activity: Any = None
    received: ReceivedCopy | None = None


class KeepAliveBody(Struct, frozen=True, forbid_unknown_fields=True):
    minutes: Annotated[int, Meta(ge=1, le=1440)] | None = None


class KeepAliveQuery(Struct, frozen=True, forbid_unknown_fields=True):
    minutes: Annotated[int, Meta(ge=1, le=1440)] | None = None


class DumontSnapshotOrder(Struct, frozen=True):
    """`base_id`: the snapshot that this one may add to, empty: none."""

    snapshot_id: str
    base_id: str


class DumontSyncOrder(Struct, frozen=True, kw_only=True):
    """Keep this CPU standby in sync. With the key files are handed into that machine's inbox, and nothing else."""

    standby_machine_id: str
    generation: int
    host: str
    port: int
    private_key: str
    interval_s: int
    excludes: list[str]
    is_last: bool


class DumontReceiveOrder(Struct, frozen=True, kw_only=True):
    generation: int
    takes_over: bool


class DumontHeartbeatAnswer(Struct, frozen=True, kw_only=True):
    """`carries`: the machine carries its instance and has the files, so the customer's command may run."""

    received: bool
    success: bool
    instance_id: str
    action: str
    message: str
    commands: list[str]
    hibernate_in_seconds: int | None
    next_heartbeat_in: int
    snapshot: DumontSnapshotOrder | None = None
    sync: DumontSyncOrder | None = None
    receive: DumontReceiveOrder | None = None
    carries: bool = False


class DumontAgent(Struct, frozen=True, kw_only=True):
    instance_id: str
    machine_id: str
    status: str
    hostname: str
    agent_version: str
    gpu_utilization: float | None
    memory_used_percent: float | None
    last_seen: str
    idle_since: str | None
    idle_seconds: int | None
    uptime_seconds: int | None
    keep_alive_until: str | None
    will_hibernate_at: str | None


class DumontKeptAlive(Struct, frozen=True, kw_only=True):
    success: bool
    instance_id: str
    hibernation_postponed_until: str
    new_hibernate_at: str
    message: str


async def heartbeat(call: Call) -> Answer:
    body: HeartbeatBody = call.body
    instance_id = str(body.instance_id).removeprefix(LEGACY_ID_PREFIX)
    identity = identify_agent(call.gateway, call.credential, instance_id)
    answer: AgentAnswer = await call.ask(_report(call, body, identity.machine_id, instance_id, identity.generation))
    order = answer.snapshot
    return ok(
        DumontHeartbeatAnswer(
            received=True,
            success=True,
            instance_id=instance_id,
            action=answer.action,
            message=answer.message,
            commands=COMMANDS[answer.action],
            hibernate_in_seconds=_hibernate_in_s(answer, call.now),
            next_heartbeat_in=answer.next_heartbeat_s,
            snapshot=None if order is None else DumontSnapshotOrder(order.snapshot_id, order.base_id),
            sync=_sync(answer.sync),
            receive=_receive(answer.receive),
            carries=answer.carries,
        )
    )


def _hibernate_in_s(answer: AgentAnswer, now: datetime) -> int | None:
    if answer.action == "prepare_hibernate":
        return 0
    return None if answer.hibernate_at is None else max(0, int((answer.hibernate_at - now).total_seconds()))


def _sync(order: SyncOrder | None) -> DumontSyncOrder | None:
    return None if order is None else msgspec.convert(msgspec.structs.asdict(order), DumontSyncOrder)


def _receive(order: ReceiveOrder | None) -> DumontReceiveOrder | None:
    return None if order is None else DumontReceiveOrder(generation=order.generation, takes_over=order.takes_over)


async def list_agents(call: Call) -> Answer:
    found: AgentList = await call.ask(ListAgents(account_id=call.account_id))
    return ok([_agent(view, call.now) for view in found.items])


async def keep_alive(call: Call) -> Answer:
    """Minutes come in the query (the original) or in the body; two different numbers are an error."""
    asked = {minutes for minutes in (call.query.minutes, call.body.minutes) if minutes is not None}
    if len(asked) > 1:
        refuse("minutes", "minutes differ between query and body")
    minutes = asked.pop() if asked else KEEP_ALIVE_MINUTES
    instance_id = call.path["id"]
    await call.command(KeepAlive(now=call.now, instance_id=instance_id, account_id=call.account_id, minutes=minutes))
    view = await call.ask(GetInstance(instance_id=instance_id, account_id=call.account_id))
    until = milliseconds(view.keep_alive_until or call.now + timedelta(minutes=minutes))
    return ok(
        DumontKeptAlive(
            success=True,
            instance_id=instance_id,
            hibernation_postponed_until=until,
            new_hibernate_at=until,
            message=call.say(
                f"Hibernation postponed by at least {minutes} minutes",
                f"Hibernação adiada por pelo menos {minutes} minutos",
            ),
        )
    )


def _report(call: Call, body: HeartbeatBody, machine_id: str, instance_id: str, generation: int) -> AgentReport:
    gpu = body.gpu_metrics or GpuMetrics()
    return AgentReport(
        machine_id=machine_id,
        instance_id=instance_id,
        generation=generation,
        received_at=call.now,
        status=body.status,
        agent_version=body.agent_version or body.version,
        hostname=body.hostname,
        message=body.message or "",
        gpu_utilization_percent=_first(
            _mean(gpu.gpu_utilizations), gpu.utilization, gpu.utilization_percent, body.gpu_utilization
        ),
        memory_used_percent=_first(body.memory_used_percent, _memory_percent(gpu)),
        cpu_utilization_percent=body.cpu_utilization,
        uptime_s=None if body.uptime is None else int(body.uptime),
        ssh_sessions=body.ssh_sessions if body.ssh_sessions is not None else body.active_users,
        last_activity_at=_instant(body.last_activity),
        received=None if body.received is None else _received(body.received),
    )


def _received(copy: ReceivedCopy) -> ReceivedReport | None:
    """A copy of an instant in no time zone is not believed."""
    if copy.captured_at.tzinfo is None:
        return None
    return ReceivedReport(copy.captured_at, copy.files, copy.bytes, copy.copies)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _mean(values: list[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _memory_percent(gpu: GpuMetrics) -> float | None:
    used, total = gpu.memory_used_mb, gpu.memory_total_mb
    if used is None or not total:
        used, total = sum(gpu.gpu_memory_used or ()), sum(gpu.gpu_memory_total or ())
    return min(100.0, used / total * 100) if total else None


def _instant(value: Any) -> datetime | None:
    """RFC 3339 or unix seconds, as agents send it; anything else says nothing."""
    try:
        instant = msgspec.convert(value, datetime, strict=False) if value is not None else None
    except msgspec.ValidationError:
        return None
    return instant if instant is None or instant.tzinfo is not None else None


def _agent(view: AgentView, now: datetime) -> DumontAgent:
    idle_s = None if view.idle_since is None else max(0, int((now - view.idle_since).total_seconds()))
    return DumontAgent(
        instance_id=view.instance_id,
        machine_id=view.machine_id,
        status=view.status,
        hostname=view.hostname,
        agent_version=view.agent_version,
        gpu_utilization=view.gpu_utilization_percent,
        memory_used_percent=view.memory_used_percent,
        last_seen=milliseconds(view.last_seen_at),
        idle_since=milliseconds_or_none(view.idle_since),
        idle_seconds=idle_s,
        uptime_seconds=view.uptime_s,
        keep_alive_until=milliseconds_or_none(view.keep_alive_until),
        will_hibernate_at=milliseconds_or_none(view.hibernate_at),
    )


ROUTES = (
    Route("POST", "/api/v1/agent/status", DIALECT, AGENT, "agent", heartbeat, "Report a heartbeat (agent token)",
          body=HeartbeatBody, reply=DumontHeartbeatAnswer),
    Route("GET", "/api/v1/agent/instances", DIALECT, "agent:read", "read", list_agents, "List machines with an agent",
          reply=list[DumontAgent]),
    Route("POST", "/api/v1/agent/instances/{id}/keep-alive", DIALECT, "agent:write", "write", keep_alive,
          "Postpone hibernation", body=KeepAliveBody, query=KeepAliveQuery, reply=DumontKeptAlive),
)  # fmt: skip
