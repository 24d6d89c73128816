"""What effects and the watch need to know: machines at clouds, blocked hosts, orphans.

Called by `services.instance.effects` only. Rows may be a moment old; whatever matters is checked against the log
afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from libs.postgres import Database
from proto.instance.words import MachineSpec, MachineStatus, Offer, OrphanKind


class Contract(Struct, frozen=True):
    """One machine that a cloud has for us, as our rows say."""

    machine_id: str
    instance_id: str
    status: MachineStatus
    rented_at: datetime


class Blocked(NamedTuple):
    """A host, by provider and id, and until when it is to be avoided; None: until somebody says otherwise."""

    host: tuple[str, str]
    expires_at: datetime | None


class Wanted(Struct, frozen=True):
    """What an instance is to run on; `volume_host_id`, `volume_region`: the host, or the region, that has its files."""

    spec: MachineSpec
    volume_host_id: str
    account_id: str
    volume_region: str = ""

    @property
    def spec_beside_files(self) -> MachineSpec:
        """In the region of its volume, if it has one there."""
        return replace(self.spec, region=self.volume_region) if self.volume_region else self.spec


class Silent(Struct, frozen=True):
    """A machine whose agent is not heard of. `known_since`: since when the log says so."""

    machine_id: str
    instance_id: str
    provider: str
    provider_machine_id: str
    last_seen_at: datetime
    known_since: datetime | None
    pace_s: float
    misses_max: int

    @property
    def patience(self) -> timedelta:
        return timedelta(seconds=self.pace_s * self.misses_max)


class Patience(NamedTuple):
    """How agents are waited for where the account says nothing of it."""

    heartbeat_s: float
    misses_max: int
    poll_s: float


SILENT_MAX = 1_000  # in one look; the rest is met at the next

# $1 provider. The partial index holds exactly these.
_CONTRACTS_SQL = """
select provider_machine_id, machine_id, instance_id, status, rented_at from machines
where provider = $1 and not gone and provider_machine_id > $2 order by provider_machine_id limit $3
"""
CONTRACTS_PAGE = 1_000  # rows; a few milliseconds of decoding, between which commands are answered
_CONTRACT_SQL = """
select provider_machine_id, machine_id, instance_id, status, rented_at from machines
where provider = $1 and provider_machine_id = any($2)
"""
_INSTANCE_OF_MACHINE_SQL = "select instance_id from machines where machine_id = $1"
_LEFT_SQL = "select exists (select from machines where machine_id = $1 and status <> $2 and changed_at > $3)"
NO_CPU_STANDBY_MAX = 200  # in one look; the rest is met at the next
_NO_CPU_STANDBY_SQL = """
select instance_id from instances i
where i.status = 'ready' and i.cpu is not null and not exists (
    select from machines m where m.instance_id = i.instance_id
    and (m.machine_id = i.machine_id and m.offer->>'kind' = 'cpu'
         or m.role = 'cpu_standby' and m.status in ('requested', 'rented', 'booted', 'healthy')))
limit $1
"""
# $1 instance. The GPU machine that carried it last.
_LAST_GPU_SQL = """
select offer from machines where instance_id = $1 and role = 'primary' and coalesce(offer->>'kind', 'gpu') = 'gpu'
order by generation desc limit 1
"""
_REGION_SQL = "select region from instances where instance_id = $1"
_WANTED_SPEC_SQL = (
    "select spec, volume->>'host_id', account_id, volume->>'region' from instances where instance_id = $1"
)
# $1 now, $2 heartbeats every so many seconds, $3 misses that are a silence, $4 clouds are looked at every so many
# seconds (`cares.pace_s`), $5 limit. A machine counts from when it became healthy: its earlier heartbeats say nothing.
_SILENT_SQL = """
with heard as (
    select m.machine_id, m.instance_id, m.provider, m.provider_machine_id, m.silent_since,
           greatest(a.last_seen_at, m.changed_at) as seen_at,
           case when c.health_check_s > 0 and c.health_check_s < $4::float8
                then least($2::float8, c.health_check_s) else $2::float8 end as pace_s,
           coalesce(nullif(c.heartbeat_misses_max, 0), $3::bigint) as misses_max
    from machines m join agents a using (machine_id) left join cares c on c.account_id = m.account_id
    where m.role = 'primary' and m.status = 'healthy'
)
select machine_id, instance_id, provider, provider_machine_id, seen_at, silent_since, pace_s, misses_max
from heard
where seen_at < $1::timestamptz - make_interval(secs => pace_s * misses_max) or silent_since is not null
order by seen_at limit $5
"""
_AGENTS_SQL = """
select count(*) from machines m join agents a using (machine_id) where m.role = 'primary' and m.status = 'healthy'
"""
# $1 provider, $2 provider's machine id, $3 label
_WANTED_SQL = """
select exists (
    select from machines
    where (provider = $1 and provider_machine_id = $2 and not gone) or (machine_id = $3 and status = 'requested'))
"""
# Volumes of regions by id; and machines being rented, whose volume bears their id.
_WANTED_VOLUMES_SQL = """
select volume->>'volume_id' from instances where volume is not null and status <> 'deleted'
union all
select volume_id from machines
where volume_id <> '' and status in ('rented', 'booted', 'healthy', 'stopping', 'stopped')
union all
select machine_id from machines where status = 'requested'
"""
# $1 provider, $2 kind
_ORPHANS_SQL = """
select provider_machine_id from orphans where provider = $1 and coalesce(kind, 'machine') = $2 and status <> 'gone'
"""
# $1 account, $2 now
PLATFORM = ""  # the account of entries that everybody heeds
_BLOCKED_SQL = """
select provider, host_id, expires_at from blacklist
where account_id = any($1) and (expires_at is null or expires_at > $2)
"""


async def contracts_at(pool: Database, provider: str) -> dict[str, Contract]:
    """Every machine that a cloud should have for us, by the cloud's id."""
    found: dict[str, Contract] = {}
    after = ""
    while rows := await pool.fetch(_CONTRACTS_SQL, provider, after, CONTRACTS_PAGE):
        found |= {row[0]: Contract(row[1], row[2], row[3], row[4]) for row in rows}
        after = rows[-1][0]
    return found


async def contracts_of(pool: Database, provider: str, provider_machine_ids: Sequence[str]) -> dict[str, Contract]:
    """What the log knows of some of a cloud's machines, by the cloud's id."""
    rows = await pool.fetch(_CONTRACT_SQL, provider, list(provider_machine_ids))
    return {row[0]: Contract(row[1], row[2], row[3], row[4]) for row in rows}


async def instance_of_machine(pool: Database, machine_id: str) -> str:
    """Empty when the machine is unknown."""
    return await pool.fetchval(_INSTANCE_OF_MACHINE_SQL, machine_id) or ""


async def has_left(pool: Database, machine_id: str, status: MachineStatus, *, since: datetime) -> bool:
    """Whether the machine, in `status` since then, is so no more. A row that is older proves nothing: it is behind."""
    return bool(await pool.fetchval(_LEFT_SQL, machine_id, status, since))


async def region_of(pool: Database, instance_id: str) -> str:
    """Where its primary is; empty when that is unknown."""
    return await pool.fetchval(_REGION_SQL, instance_id) or ""


async def last_gpu_of(pool: Database, instance_id: str) -> Offer | None:
    """What its last GPU machine was rented as."""
    offer = await pool.fetchval(_LAST_GPU_SQL, instance_id)
    return None if offer is None else msgspec.json.decode(offer, type=Offer)


async def without_cpu_standby(pool: Database) -> list[str]:
    """Ready instances that are to have a CPU standby and have none."""
    return [row[0] for row in await pool.fetch(_NO_CPU_STANDBY_SQL, NO_CPU_STANDBY_MAX)]


async def wanted_of(pool: Database, instance_id: str) -> Wanted | None:
    """None when the instance is unknown, or not yet in the rows."""
    row = await pool.fetchrow(_WANTED_SPEC_SQL, instance_id)
    if row is None or row[0] is None:
        return None
    return Wanted(msgspec.json.decode(row[0], type=MachineSpec), row[1] or "", row[2], row[3] or "")


async def silent_agents(pool: Database, now: datetime, usual: Patience) -> list[Silent]:
    """Primary machines in use whose agent was not heard of for as long as its account waits, or was called silent."""
    return [Silent(*row) for row in await pool.fetch(_SILENT_SQL, now, *usual, SILENT_MAX)]


async def count_agents(pool: Database) -> int:
    """Primary machines in use that have an agent."""
    return await pool.fetchval(_AGENTS_SQL) or 0


async def is_wanted(pool: Database, provider: str, provider_machine_id: str, label: str) -> bool:
    """Whether some instance owns the machine or is just renting it."""
    return bool(await pool.fetchval(_WANTED_SQL, provider, provider_machine_id, label))


async def wanted_volumes(pool: Database) -> set[str]:
    """What is, or is about to be, the workspace of an instance: ids of volumes, and of machines they are made for."""
    return {row[0] for row in await pool.fetch(_WANTED_VOLUMES_SQL)}


async def open_orphans(pool: Database, provider: str, kind: OrphanKind = "machine") -> set[str]:
    return {row[0] for row in await pool.fetch(_ORPHANS_SQL, provider, kind)}


async def blocked_hosts(pool: Database, account_id: str, now: datetime) -> Sequence[Blocked]:
    """Hosts to avoid: the platform's entries and the account's own."""
    rows = await pool.fetch(_BLOCKED_SQL, [account_id, PLATFORM], now)
    return [Blocked((row[0], row[1]), row[2]) for row in rows]
