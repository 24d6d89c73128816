"""The instance service's database as the simulation has it: statements of its effects over a MemoryStore.

Stands in for `libs.postgres.Database` (`pool` of the instance service's World). It knows exactly the statements of
`services.instance.queries` (`contracts`, `cares`); any other is an error, so a new one cannot be forgotten here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from libs.refusal import Transient
from libs.runtime.memory_store import MemoryStore
from libs.sim.life import Life
from services.instance.decider.machine_state import LIVE
from services.instance.queries import cares, contracts

Row = tuple[Any, ...]


class RowsDatabase:
    """`fetch`, `fetchrow` and `fetchval` of one life; fails as often as the rest of its database."""

    def __init__(self, store: MemoryStore, life: Life) -> None:
        self._store = store
        self._life = life

    async def fetch(self, sql: str, *arguments: Any) -> list[Row]:
        await self._life.step()
        if self._life.draws.happens(self._life.draws.faults.store_fails):
            raise Transient("the database did not answer")
        return STATEMENTS[sql](self._store, *arguments)

    async def fetchrow(self, sql: str, *arguments: Any) -> Row | None:
        rows = await self.fetch(sql, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *arguments: Any) -> Any:
        row = await self.fetchrow(sql, *arguments)
        return row[0] if row else None


def _contracted(store: MemoryStore, provider: str) -> list[dict[str, Any]]:
    return [row for row in store.rows("machines") if row.get("provider") == provider]


def _contracts(store: MemoryStore, provider: str, after: str = "", limit: int | None = None) -> list[Row]:
    found = [
        (m["provider_machine_id"], m["machine_id"], m["instance_id"], m["status"], m["rented_at"])
        for m in _contracted(store, provider)
        if m["gone"] is False and m["provider_machine_id"] > after
    ]
    return sorted(found)[:limit]


def _contract(store: MemoryStore, provider: str, provider_machine_ids: list[str]) -> list[Row]:
    return [
        (m["provider_machine_id"], m["machine_id"], m["instance_id"], m["status"], m["rented_at"])
        for m in _contracted(store, provider)
        if m["provider_machine_id"] in provider_machine_ids
    ]


def _instance_of_machine(store: MemoryStore, machine_id: str) -> list[Row]:
    return [(m["instance_id"],) for m in store.rows("machines") if m["machine_id"] == machine_id]


def _left(store: MemoryStore, machine_id: str, status: str, since: Any) -> list[Row]:
    machines = [m for m in store.rows("machines") if m["machine_id"] == machine_id]
    return [(any(m["status"] != status and m["changed_at"] > since for m in machines),)]


def _spec(store: MemoryStore, instance_id: str) -> list[Row]:
    return [
        (
            msgspec.json.encode(row["spec"]).decode(),
            (row.get("volume") or {}).get("host_id"),
            row["account_id"],
            (row.get("volume") or {}).get("region"),
        )
        for row in store.rows("instances")
        if row["instance_id"] == instance_id and row.get("spec") is not None
    ]


def _wanted(store: MemoryStore, provider: str, provider_machine_id: str, label: str) -> list[Row]:
    owned = any(row[0] == provider_machine_id for row in _contracts(store, provider))
    asked = any(m["machine_id"] == label and m["status"] == "requested" for m in store.rows("machines"))
    return [(owned or asked,)]


def _volumes_wanted(store: MemoryStore) -> list[Row]:
    instances = [row for row in store.rows("instances", "volume", "status") if row.get("volume") is not None]
    machines = store.rows("machines", "volume_id", "status")
    return [
        *((row["volume"]["volume_id"],) for row in instances if row["status"] != "deleted"),
        *((m["volume_id"],) for m in machines if m.get("volume_id") and m["status"] in LIVE),
        *((m["machine_id"],) for m in machines if m["status"] == "requested"),
    ]


def _orphans(store: MemoryStore, provider: str, kind: str) -> list[Row]:
    return [
        (row["provider_machine_id"],)
        for row in store.rows("orphans")
        if row["provider"] == provider and row["kind"] == kind and row["status"] != "gone"
    ]


def _blocked(store: MemoryStore, accounts: list[str], now: Any) -> list[Row]:
    return [
        (row["provider"], row["host_id"], row["expires_at"])
        for row in store.rows("blacklist")
        if row["account_id"] in accounts and (row["expires_at"] is None or row["expires_at"] > now)
    ]


def _without_cpu_standby(store: MemoryStore, limit: int) -> list[Row]:
    instances = store.rows("instances", "cpu", "status")
    wanting = {row["instance_id"] for row in instances if row.get("cpu") is not None and row.get("status") == "ready"}
    if not wanting:
        return []
    served = {
        m["instance_id"]
        for m in store.rows("machines", "instance_id", "role", "status", "offer")
        if m["status"] in ("requested", "rented", "booted", "healthy")
        and (m["role"] == "cpu_standby" or (m.get("offer") or {}).get("kind") == "cpu")
    }
    return [(instance_id,) for instance_id in sorted(wanting - served)[:limit]]


def _region(store: MemoryStore, instance_id: str) -> list[Row]:
    return [(row.get("region") or "",) for row in store.rows("instances") if row["instance_id"] == instance_id]


def _last_gpu(store: MemoryStore, instance_id: str) -> list[Row]:
    mine = [m for m in store.rows("machines") if m["instance_id"] == instance_id and m.get("role") == "primary"]
    offers = [(m["generation"], msgspec.to_builtins(m["offer"])) for m in mine if m.get("offer") is not None]
    found = [offer for _, offer in sorted(offers, key=lambda each: -each[0]) if offer.get("kind", "gpu") == "gpu"]
    return [(msgspec.json.encode(offer).decode(),) for offer in found[:1]]


def _no_agents(_store: MemoryStore, *_arguments: Any) -> list[Row]:
    """Heartbeats are not simulated."""
    return []


def _shortest_check(store: MemoryStore, usual_s: float) -> list[Row]:
    has_machines = {row["account_id"] for row in store.rows("instances") if row.get("status") == "ready"}
    asked_s = [row["health_check_s"] for row in store.rows("cares") if row["account_id"] in has_machines]
    return [(min((asked for asked in asked_s if 0 < asked < usual_s), default=None),)]


def _gpu_names(store: MemoryStore, account_id: str) -> list[Row]:
    names = [row["gpu_names"] for row in store.rows("cares") if row["account_id"] == account_id]
    return [(None if each is None else msgspec.json.encode(each).decode(),) for each in names]


STATEMENTS: dict[str, Callable[..., list[Row]]] = {
    contracts._CONTRACTS_SQL: _contracts,
    contracts._CONTRACT_SQL: _contract,
    contracts._INSTANCE_OF_MACHINE_SQL: _instance_of_machine,
    contracts._LEFT_SQL: _left,
    contracts._SILENT_SQL: _no_agents,
    contracts._NO_CPU_STANDBY_SQL: _without_cpu_standby,
    contracts._LAST_GPU_SQL: _last_gpu,
    contracts._REGION_SQL: _region,
    contracts._WANTED_SPEC_SQL: _spec,
    contracts._WANTED_SQL: _wanted,
    contracts._ORPHANS_SQL: _orphans,
    contracts._WANTED_VOLUMES_SQL: _volumes_wanted,
    contracts._BLOCKED_SQL: _blocked,
    cares._SHORTEST_SQL: _shortest_check,
    cares._GPU_NAMES_SQL: _gpu_names,
}
