"""The agents of the survival scenario: they take snapshots, keep CPU standbys in sync and fill machines again.

Used by `survival_scenario`. What agents are told is in the rows, as the gateway tells it to real ones; what they report
goes through a bus that loses, doubles and delays it like any other wish. The files themselves are not simulated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from libs.refusal import Refused
from libs.runtime.memory_store import MemoryStore
from libs.sim.client import Client
from libs.sim.world import World
from proto.base import Command
from proto.instance.commands import ReportRestored, ReportSnapshot, ReportSync

LOOK_PAUSE_S = 1.5
SYNC_EVERY_S = 5.0
# Told to an agent of a machine that has been lost or deleted meanwhile.
EXPECTED_REFUSALS = frozenset({"MACHINE_FENCED", "SNAPSHOT_NOT_FOUND", "INSTANCE_NOT_FOUND"})


class Storage:
    """The instance service's object storage, without objects."""

    async def delete(self, key: str, now: datetime) -> None:
        del key, now

    async def list(self, prefix: str, now: datetime) -> Sequence[str]:
        del prefix, now
        return ()

    async def make_bucket(self, now: datetime) -> None:
        del now


async def work(world: World, instances: MemoryStore) -> None:
    """Look for ever at what is to be done, and report it."""
    client = world.client("agents")
    cycles = Cycles(world)
    while True:
        await world.clock.sleep(LOOK_PAUSE_S)
        machines = {row["machine_id"]: row for row in instances.rows("machines")}
        await _report(client, [*_copied(world, instances, machines), *_filled(world, machines)])
        await _report(client, cycles.due(instances, machines))


async def _report(client: Client, reports: Sequence[Command]) -> None:
    for report in reports:
        try:
            await client.wish(report)
        except Refused as refused:
            assert refused.code in EXPECTED_REFUSALS, f"{report!r} was refused: {refused}"


def _copied(world: World, instances: MemoryStore, machines: dict[str, dict[str, Any]]) -> Iterator[ReportSnapshot]:
    for row in instances.rows("snapshots"):
        if row["status"] == "requested" and machines[row["machine_id"]]["status"] == "healthy":
            yield ReportSnapshot(
                now=world.clock.now(), instance_id=row["instance_id"], machine_id=row["machine_id"],
                generation=row["generation"], snapshot_id=row["snapshot_id"], captured_at=world.clock.now(), files=1,
                bytes=1, stored_bytes=1, packs=(row["snapshot_id"],), took_ms=1,
            )  # fmt: skip


def _filled(world: World, machines: dict[str, dict[str, Any]]) -> Iterator[ReportRestored]:
    for machine_id, row in machines.items():
        if row["status"] == "booted" and row.get("restore") and row.get("restored_at") is None:
            yield ReportRestored(
                now=world.clock.now(), instance_id=row["instance_id"], machine_id=machine_id, source=row["restore"],
                captured_at=world.clock.now(), files=1, bytes=1, took_ms=1,
            )  # fmt: skip


class Cycles:
    """Which cycle each primary's agent has ended last, by primary and standby."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ended: dict[tuple[str, str], tuple[int, float]] = {}

    def due(self, instances: MemoryStore, machines: dict[str, dict[str, Any]]) -> list[Command]:
        standbys = {
            row["instance_id"]: machine_id
            for machine_id, row in machines.items()
            if row["role"] == "cpu_standby" and row["status"] == "healthy"
        }
        ways = {row["instance_id"]: row for row in instances.rows("gpu_returns")}
        for instance_id, way in ways.items():
            if machines.get(way.get("machine_id") or "", {}).get("status") == "healthy":
                standbys[instance_id] = way["machine_id"]  # a GPU machine to be filled
        return [
            replace(
                self._next(row["instance_id"], row["machine_id"], standbys[row["instance_id"]]),
                is_last=ways.get(row["instance_id"], {}).get("stage") == "handing_over",
            )
            for row in instances.rows("instances", "status", "machine_id")
            if row["status"] == "ready" and row["instance_id"] in standbys and self._is_due(row, standbys)
        ]

    def _is_due(self, row: dict[str, Any], standbys: dict[str, str]) -> bool:
        _, ended_s = self._ended.get((row["machine_id"], standbys[row["instance_id"]]), (0, -SYNC_EVERY_S))
        return self._world.clock.monotonic_s() - ended_s >= SYNC_EVERY_S

    def _next(self, instance_id: str, machine_id: str, standby_id: str) -> ReportSync:
        cycle = self._ended.get((machine_id, standby_id), (0, 0.0))[0] + 1
        now_s = self._world.clock.monotonic_s()
        self._ended[machine_id, standby_id] = (cycle, now_s)
        return ReportSync(
            now=self._world.clock.now(), instance_id=instance_id, machine_id=machine_id, standby_machine_id=standby_id,
            cycle=cycle, ok=True, took_ms=1, files=1, bytes=1, captured_at=self._world.clock.now(),
        )  # fmt: skip
