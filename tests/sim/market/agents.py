"""What agents do in rented machines, as far as a strategy needs them: copy the workspace to storage, and fill it again.

Used by the market simulation. The programs themselves are not run, nor are files moved: an agent here takes as long as
the named figures say, and reports what the real one would. Which snapshot has how much work in it is kept by `tally`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from random import Random
from typing import Any

from libs.ids import derive_id
from libs.refusal import Refused
from proto.base import Command, Heard
from proto.instance.commands import ReportRestored, ReportSnapshot, RequestSnapshot
from proto.instance.events import InstanceReady, MachineBooted, SnapshotRequested
from services.instance.decider.instance import Instance
from tests.sim.market.platform import Member, Platform
from tests.sim.market.tally import Tally

SNAPSHOT_EVERY_S = 1_800.0
HEARTBEAT_S = 30.0  # until the agent hears that a snapshot is wanted
SNAPSHOT_S = (10.0, 60.0)
RESTORE_S = (30.0, 180.0)


class Storage:
    """The instance service's object storage, without objects."""

    async def delete(self, key: str, now: datetime) -> None:
        del key, now

    async def list(self, prefix: str, now: datetime) -> Sequence[str]:
        del prefix, now
        return ()

    async def make_bucket(self, now: datetime) -> None:
        del now


class Agents:
    def __init__(self, platform: Platform, tally: Tally, random: Random, *, snapshots: bool) -> None:
        self._platform = platform
        self._tally = tally
        self._random = random
        self._snapshots = snapshots
        self._captured: dict[str, datetime] = {}

    def said(self, _member: Member, heard: Heard, state: Any) -> None:
        match heard.event:
            case InstanceReady() as event if self._snapshots:
                self._later(SNAPSHOT_EVERY_S, self._ask, event)
            case SnapshotRequested() as event:
                self._later(self._random.uniform(0, HEARTBEAT_S), self._capture, event)
            case MachineBooted() as event:
                self._restore(event, state)
            case _:
                return

    def _ask(self, event: InstanceReady) -> None:
        """As the service's own clock does, for as long as this machine carries the instance."""
        state: Instance = self._platform.members["instance"].states[("instance", event.instance_id)]
        primary = state.primary
        if state.status != "ready" or primary is None or primary.generation != event.generation:
            return
        now = self._platform.clock.now()
        snapshot_id = derive_id("snap", event.instance_id, now.isoformat())
        self._wish(RequestSnapshot(now=now, instance_id=event.instance_id, snapshot_id=snapshot_id, reason="scheduled"))
        self._later(SNAPSHOT_EVERY_S, self._ask, event)

    def _capture(self, event: SnapshotRequested) -> None:
        if not self._tally.capture(event.instance_id, event.snapshot_id):
            return  # the machine is gone, and its agent with it
        self._captured[event.snapshot_id] = self._platform.clock.now()
        self._later(self._random.uniform(*SNAPSHOT_S), self._stored, event)

    def _stored(self, event: SnapshotRequested) -> None:
        now = self._platform.clock.now()
        if self._tally.is_up(event.instance_id):
            self._wish(
                ReportSnapshot(
                    now=now, instance_id=event.instance_id, machine_id=event.machine_id, generation=event.generation,
                    snapshot_id=event.snapshot_id, captured_at=self._captured[event.snapshot_id], files=1, bytes=1,
                    stored_bytes=1, packs=(event.snapshot_id,), took_ms=1,
                )
            )  # fmt: skip

    def _restore(self, event: MachineBooted, state: Instance) -> None:
        machine = state.machine(event.machine_id)
        if machine is not None and machine.restore and machine.restored_at is None:
            self._later(self._random.uniform(*RESTORE_S), self._restored, event, machine.restore)

    def _restored(self, event: MachineBooted, source: str) -> None:
        self._wish(
            ReportRestored(
                now=self._platform.clock.now(), instance_id=event.instance_id, machine_id=event.machine_id,
                source=source, captured_at=self._captured[source], files=1, bytes=1, took_ms=1,
            )
        )  # fmt: skip

    def _wish(self, command: Command) -> None:
        async def report() -> None:
            try:
                await self._platform.wish(command)
            except Refused as refused:
                self._platform.counts[f"refused {refused.code}"] += 1

        self._platform.start(report())

    def _later(self, seconds: float, act: Any, *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, act, *arguments)
