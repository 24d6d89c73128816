"""Heartbeats: what agents said last, and what they are told to do.

Not facts: written to the live table, lost without harm. A machine that no longer carries its instance is told to shut
down, so that an old generation cannot go on serving (fencing, design 6).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec
from asyncpg import Record
from msgspec import Struct

from libs.config import Secret
from libs.postgres import Database
from proto.instance.queries import (
    AgentAnswer,
    AgentList,
    AgentReport,
    AgentView,
    ListAgents,
    ReceiveOrder,
    SnapshotOrder,
    SyncOrder,
)
from proto.instance.words import SSH_PORT, Endpoint
from services.instance.decider.cpu_standby import SOURCE
from services.instance.decider.machine_state import COMING_UP
from services.instance.queries import cares
from services.instance.queries.sync_keys import private_key

IDLE_GPU_PERCENT = 5.0  # contract dumont 11-20; an agent without a GPU reading is never idle: unknown is not zero
AGENTS_MAX = 1_000
STANDBY_HEARTBEAT_S = 2  # of who is to hear something soon
RETURN_INTERVAL_S = 1  # on the way back one copy follows the other
FILLED_BY_SYNC = ("cpu_standby", "successor")
STANDBY = "standby"  # of the warm pool
CPU_STANDBY_SOON = timedelta(
    seconds=60
)  # it is looked for every 10 s and boots; later ones are not waited for like that
STARTING = frozenset({"creating", "starting", "running", "health_checking"})
ENDED = frozenset({"destroying", "destroyed", "failed", "cancelled"})


class World(Protocol):
    """What a heartbeat needs of the outside."""

    @property
    def heartbeat_s(self) -> float: ...

    @property
    def poll_s(self) -> float: ...

    @property
    def secret(self) -> Secret: ...


class _CpuWish(Struct, frozen=True):
    sync_interval_s: int
    excludes: tuple[str, ...] = ()


class Columns(Protocol):
    """What is known of the machine that reports, by name."""

    def __getitem__(self, name: str, /) -> Any: ...


class Context(Protocol):
    """What the runtime hands to a signal beside the message."""

    @property
    def pool(self) -> Database: ...

    @property
    def world(self) -> World: ...


# $1 machine, $2 instance, $3 generation, $4 status, $5 agent version, $6 host name, $7 message, $8 GPU %, $9 memory %,
# $10 CPU %, $11 uptime s, $12 ssh sessions, $13 last activity, $14 received at, $15 idle below this GPU %
# $16 to $19: the newest whole copy of a CPU standby: its instant, files, bytes, and how many there were
# Idle is a GPU that rests and nobody logged in; after a silence of five minutes it counts anew.
# What an older generation says is not even remembered: another machine carries the instance.
_REPORT_SQL = """
with carried as (
    select m.status as machine_status, i.machine_id as current_machine_id, i.generation as current_generation,
           i.status as instance_status, i.ready_at, i.hibernate_at, s.snapshot_id, s.base_id,
           m.role, m.restore, m.restored_at,
           i.cpu, c.machine_id as standby_machine_id, c.status as standby_status, c.endpoints as standby_endpoints,
           e.health_check_s, r.stage as return_stage,
           g.machine_id as successor_machine_id, g.endpoints as successor_endpoints
    from instances i left join machines m on m.machine_id = $1
    left join snapshots s on s.machine_id = $1 and s.status = 'requested'
    left join machines c on c.instance_id = i.instance_id and c.role = 'cpu_standby'
        and c.status in ('requested', 'rented', 'booted', 'healthy')
    left join gpu_returns r on r.instance_id = i.instance_id
    left join cares e on e.account_id = i.account_id
    left join machines g on g.machine_id = r.machine_id and g.role = 'successor' and g.status = 'healthy'
    where i.instance_id = $2
), said as (
    insert into agents as a (machine_id, instance_id, generation, status, agent_version, hostname, message,
        gpu_utilization_percent, memory_used_percent, cpu_utilization_percent, uptime_s, ssh_sessions,
        last_activity_at, last_seen_at, copy_captured_at, copy_files, copy_bytes, copies, idle_since)
    select $1::text, $2::text, $3::bigint, $4::text, $5::text, $6::text, $7::text, $8::float8, $9::float8,
        $10::float8, $11::bigint, $12::bigint, $13::timestamptz, $14::timestamptz,
        $16::timestamptz, $17::bigint, $18::bigint, $19::bigint,
        case when $8::float8 < $15::float8 and $12::bigint = 0 then $14::timestamptz end
    where not exists (select from carried
                      where current_machine_id <> $1 and current_generation >= $3
                        and role not in ('cpu_standby', 'successor'))
    on conflict (machine_id) do update set
        generation = excluded.generation, status = excluded.status, agent_version = excluded.agent_version,
        hostname = excluded.hostname, message = excluded.message,
        gpu_utilization_percent = excluded.gpu_utilization_percent,
        memory_used_percent = excluded.memory_used_percent,
        cpu_utilization_percent = excluded.cpu_utilization_percent,
        uptime_s = excluded.uptime_s, ssh_sessions = excluded.ssh_sessions,
        last_activity_at = excluded.last_activity_at, last_seen_at = excluded.last_seen_at,
        copy_captured_at = excluded.copy_captured_at, copy_files = excluded.copy_files,
        copy_bytes = excluded.copy_bytes, copies = excluded.copies,
        idle_since = case when excluded.idle_since is null then null
                          when a.last_seen_at < excluded.last_seen_at - interval '5 minutes' then excluded.idle_since
                          else coalesce(a.idle_since, excluded.idle_since) end
    where a.last_seen_at <= excluded.last_seen_at
)
select * from carried
"""

# $1 account, $2 limit. Only machines that still carry something.
_LIST_SQL = """
select a.*, i.keep_alive_until, i.hibernate_at
from instances i
join agents a on a.instance_id = i.instance_id and a.machine_id = i.machine_id
where i.account_id = $1 and i.status <> 'deleted'
order by a.last_seen_at desc, a.machine_id limit $2
"""


async def agent_report(report: AgentReport, context: Context) -> AgentAnswer:
    """Remember the heartbeat and say what to do next."""
    copy = report.received
    row = await context.pool.fetchrow(
        _REPORT_SQL,
        report.machine_id,
        report.instance_id,
        report.generation,
        report.status,
        report.agent_version,
        report.hostname,
        report.message,
        report.gpu_utilization_percent,
        report.memory_used_percent,
        report.cpu_utilization_percent,
        report.uptime_s,
        report.ssh_sessions,
        report.last_activity_at,
        report.received_at,
        IDLE_GPU_PERCENT,
        *((None, None, None, None) if copy is None else (copy.captured_at, copy.files, copy.bytes, copy.copies)),
    )
    reason = shutdown_reason(report, row)
    order = None if row is None or not row["snapshot_id"] else SnapshotOrder(row["snapshot_id"], row["base_id"] or "")
    world = context.world
    check_s = None if row is None else row["health_check_s"]
    pace_s = int(cares.pace_s(check_s, heartbeat_s=world.heartbeat_s, poll_s=world.poll_s))
    if reason or row is None:
        return AgentAnswer("shutdown" if reason else "none", reason, pace_s)
    receive = _receive(report, row)
    if receive is not None or is_to_hear_soon(row, report.received_at):
        pace_s = min(pace_s, STANDBY_HEARTBEAT_S)
    is_to_sleep = row["instance_status"] == "hibernating" and receive is None
    return AgentAnswer(
        "prepare_hibernate" if is_to_sleep else "none",
        "",
        pace_s,
        snapshot=order,
        hibernate_at=row["hibernate_at"],
        sync=_sync(report, row, context.world.secret),
        receive=receive,
        carries=row["current_machine_id"] == report.machine_id and _has_files(row),
    )


def is_to_hear_soon(row: Columns, now: datetime) -> bool:
    """A standby of the pool may carry the instance any moment; a machine that hands over is asked to; one that is being
    hibernated is asked for two copies, and costs until it has made them; and a CPU standby that comes up, or is looked
    for, has no copy until the primary hears of it."""
    is_in_turn = row["role"] == STANDBY or row["instance_status"] == "hibernating"
    if is_in_turn or row["return_stage"] in ("filling", "handing_over"):
        return True
    if row["cpu"] is None or row["standby_status"] is not None:
        return row["standby_status"] in COMING_UP
    is_new = row["ready_at"] is not None and now - row["ready_at"] < CPU_STANDBY_SOON
    return is_new or row["instance_status"] in STARTING


def _has_files(row: Record) -> bool:
    return not row["restore"] or row["restored_at"] is not None


def _receive(report: AgentReport, row: Record) -> ReceiveOrder | None:
    """For a CPU standby, and for one that has become the primary until it has the files."""
    if row["role"] in FILLED_BY_SYNC:
        return ReceiveOrder(row["current_generation"] or 0)
    is_current = row["current_machine_id"] == report.machine_id
    if is_current and row["restore"] == SOURCE and not _has_files(row):
        return ReceiveOrder(row["current_generation"] or 0, takes_over=True)
    return None


def _sync(report: AgentReport, row: Record, secret: Secret) -> SyncOrder | None:
    """For the primary of a ready instance: to the GPU machine it is to hand over to, or to its CPU standby."""
    if row["current_machine_id"] != report.machine_id or row["instance_status"] != "ready":
        return None
    if row["successor_machine_id"] is not None:
        wish = _CpuWish(RETURN_INTERVAL_S)  # all files go back: here is where work was done
        target, endpoints = row["successor_machine_id"], row["successor_endpoints"]
    elif row["cpu"] is not None and row["standby_status"] == "healthy":
        wish = msgspec.json.decode(row["cpu"], type=_CpuWish)
        target, endpoints = row["standby_machine_id"], row["standby_endpoints"]
    else:
        return None
    found = msgspec.json.decode(endpoints, type=tuple[Endpoint, ...])
    ssh = next((endpoint for endpoint in found if endpoint.port == SSH_PORT), None)
    if ssh is None:
        return None
    return SyncOrder(
        standby_machine_id=target,
        generation=row["current_generation"],
        host=ssh.host,
        port=ssh.public_port,
        private_key=private_key(secret, target),
        interval_s=wish.sync_interval_s,
        excludes=wish.excludes,
        is_last=row["return_stage"] == "handing_over",
    )


def shutdown_reason(report: AgentReport, row: Record | None) -> str:
    """Why the machine must stop, empty when it may go on. An unknown instance is our delay, not its fault."""
    if row is None:
        return ""
    if row["machine_status"] in ENDED:
        return f"this machine is {row['machine_status']}"
    if row["instance_status"] == "deleted":
        return "the instance is deleted"
    is_current = row["current_machine_id"] == report.machine_id
    if row["role"] in FILLED_BY_SYNC:
        return ""  # it stays while primaries come and go
    if not is_current and (row["current_generation"] or 0) >= report.generation:
        return f"generation {row['current_generation']} carries the instance now"
    return ""


async def list_agents(query: ListAgents, context: Context) -> AgentList:
    """What the agents of an account's instances said last, newest first."""
    rows = await context.pool.fetch(_LIST_SQL, query.account_id, AGENTS_MAX)
    return AgentList([_agent(row) for row in rows])


def _agent(row: Record) -> AgentView:
    return AgentView(
        instance_id=row["instance_id"],
        machine_id=row["machine_id"],
        status=row["status"],
        last_seen_at=row["last_seen_at"],
        agent_version=row["agent_version"],
        hostname=row["hostname"],
        gpu_utilization_percent=row["gpu_utilization_percent"],
        memory_used_percent=row["memory_used_percent"],
        uptime_s=row["uptime_s"],
        idle_since=row["idle_since"],
        keep_alive_until=row["keep_alive_until"],
        hibernate_at=row["hibernate_at"],
    )
