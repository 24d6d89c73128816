"""What agents do in rented machines, as far as a strategy needs them: copy the workspace away, and fill it again.

Used by the market simulation. The programs themselves are not run, nor are files moved: an agent here takes as long as
the named figures say, and reports what the real one would. Which copy has how much work in it is kept by `tally`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from libs.ids import derive_id
from libs.sim.life import EPOCH
from proto.base import Heard
from proto.instance.commands import ReportRestored, ReportSnapshot, ReportSync, RequestSnapshot
from proto.instance.events import (
    InstanceInterrupted,
    InstanceReady,
    MachineBooted,
    MachineHealthy,
    MachinePromoted,
    SnapshotRequested,
    StandbyReady,
)
from proto.instance.return_events import HandedOver, HandoverRequested, ReturnTryFailed
from services.instance.decider import cpu_standby
from services.instance.decider.instance import Instance
from tests.sim.market.platform import Member, Platform
from tests.sim.market.tally import Tally

SNAPSHOT_EVERY_S = 1_800.0
HEARTBEAT_S = 30.0  # until the agent hears that a snapshot is wanted
SNAPSHOT_S = (10.0, 60.0)
RESTORE_S = (30.0, 180.0)
FIRST_COPY_S = (60.0, 300.0)  # of everything, to a CPU standby that has nothing of this primary
CYCLE_S = 3.0  # from the instant that a later cycle has the files of, to its end
HEARTBEAT_SOON_S = 2.0  # of a machine that is to hand over
RECEIVE_S = (1.0, 10.0)  # a standby that takes over has the files beside it


@dataclass
class Sync:
    """The cycles from one primary to one CPU standby. `first_s`: when the first whole copy was there; 0: not yet."""

    primary_id: str
    standby_id: str
    every_s: int
    first_s: float = 0.0

    def captured_s(self, down_s: float) -> float | None:
        """The instant of the last whole cycle that had ended when the primary went down; None: there was none."""
        if not self.first_s or down_s < self.first_s:
            return None
        return self.first_s + (down_s - self.first_s) // self.every_s * self.every_s - CYCLE_S


class Agents:
    def __init__(self, platform: Platform, tally: Tally, random: Random, *, snapshots: bool) -> None:
        self._platform = platform
        self._tally = tally
        self._random = random
        self._snapshots = snapshots
        self._captured: dict[str, datetime] = {}
        self._syncs: dict[str, Sync] = {}  # by instance
        self._received: dict[str, datetime] = {}  # by CPU standby: the instant its files are of

    def said(self, _member: Member, heard: Heard, state: Any) -> None:
        match heard.event:
            case InstanceReady() as event:
                if self._snapshots:
                    self._later(SNAPSHOT_EVERY_S, self._ask, event)
                self._sync(state)
            case StandbyReady():
                self._sync(state)
            case InstanceInterrupted() as event:
                self._end_sync(event.instance_id)
            case MachineHealthy() as event if event.machine_id == state.way_back.machine_id:
                self._later(self._random.uniform(*FIRST_COPY_S), self._way_back_copied, event, 1)
            case HandoverRequested() as event:
                self._later(HEARTBEAT_SOON_S, self._hold_still, event)
            case HandedOver() as event:
                self._handed_over(event)
            case ReturnTryFailed() as event:
                self._tally.go_on(event.instance_id)
            case MachinePromoted(restore=str(source)) as event if source:
                self._later(self._random.uniform(*RECEIVE_S), self._received_all, event)
            case SnapshotRequested() as event:
                self._later(self._random.uniform(0, HEARTBEAT_S), self._capture, event)
            case MachineBooted() as event:
                self._restore(event, state)
            case _:
                return

    def _ask(self, event: InstanceReady) -> None:
        """As the service's own clock does, for as long as this machine carries the instance."""
        state = self._state(event.instance_id)
        primary = state.primary
        if state.status != "ready" or primary is None or primary.generation != event.generation:
            return
        now = self._platform.clock.now()
        snapshot_id = derive_id("snap", event.instance_id, now.isoformat())
        self._platform.report(
            RequestSnapshot(now=now, instance_id=event.instance_id, snapshot_id=snapshot_id, reason="scheduled")
        )
        self._later(SNAPSHOT_EVERY_S, self._ask, event)

    def _capture(self, event: SnapshotRequested) -> None:
        if not self._tally.capture(event.instance_id, event.snapshot_id):
            return  # the machine is gone, and its agent with it
        self._captured[event.snapshot_id] = self._platform.clock.now()
        self._later(self._random.uniform(*SNAPSHOT_S), self._stored, event)

    def _stored(self, event: SnapshotRequested) -> None:
        now = self._platform.clock.now()
        if self._tally.is_up(event.instance_id):
            self._platform.report(
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
        self._platform.report(
            ReportRestored(
                now=self._platform.clock.now(), instance_id=event.instance_id, machine_id=event.machine_id,
                source=source, captured_at=self._captured[source], files=1, bytes=1, took_ms=1,
            )
        )  # fmt: skip

    # --- CPU standbys -------------------------------------------------------------------------------------------

    def _sync(self, state: Instance) -> None:
        """The primary's agent is told at its next heartbeat that there is a standby, or another one."""
        primary = state.primary
        standby = next((m for m in cpu_standby.standbys(state) if m.status == "healthy"), None)
        if state.status != "ready" or state.cpu is None or primary is None or standby is None:
            return
        before = self._syncs.get(state.instance_id)
        if before is not None and (before.primary_id, before.standby_id) == (primary.machine_id, standby.machine_id):
            return
        sync = self._syncs[state.instance_id] = Sync(primary.machine_id, standby.machine_id, state.cpu.sync_interval_s)
        first_s = self._random.uniform(0, HEARTBEAT_S) + self._random.uniform(*FIRST_COPY_S)
        self._later(first_s, self._cycle_ended, state.instance_id, sync, 1)

    def _cycle_ended(self, instance_id: str, sync: Sync, cycle: int) -> None:
        """Reports the first cycle, and each that becomes a fact: what the others would report changes nothing."""
        if self._syncs.get(instance_id) is not sync or not self._tally.is_up(instance_id):
            return
        now = self._platform.clock.now()
        sync.first_s = sync.first_s or self._tally.cloud.now_s()
        self._platform.report(
            ReportSync(
                now=now, instance_id=instance_id, machine_id=sync.primary_id, standby_machine_id=sync.standby_id,
                cycle=cycle, ok=True, took_ms=int(CYCLE_S * 1000), files=1, bytes=1,
                captured_at=now - timedelta(seconds=CYCLE_S),
            )
        )  # fmt: skip
        self._later(
            sync.every_s * cpu_standby.CYCLES_PER_FACT,
            self._cycle_ended, instance_id, sync, cycle + cpu_standby.CYCLES_PER_FACT,
        )  # fmt: skip

    def _end_sync(self, instance_id: str) -> None:
        """The primary is gone: its standby keeps the last whole cycle that it has."""
        sync = self._syncs.pop(instance_id, None)
        captured_s = None if sync is None else sync.captured_s(self._tally.down_since_s(instance_id))
        if sync is not None and captured_s is not None:
            self._received[sync.standby_id] = EPOCH + timedelta(seconds=captured_s)
            self._tally.copied(instance_id, sync.standby_id, captured_s)

    def _received_all(self, event: MachinePromoted) -> None:
        self._platform.report(
            ReportRestored(
                now=self._platform.clock.now(), instance_id=event.instance_id, machine_id=event.machine_id,
                source=event.restore, captured_at=self._received[event.machine_id], files=1, bytes=1, took_ms=1,
            )
        )  # fmt: skip

    # --- the way back to a GPU ----------------------------------------------------------------------------------

    def _way_back_copied(self, event: MachineHealthy, cycle: int) -> None:
        """The CPU machine has sent all its files to this GPU machine, then what changed meanwhile."""
        state = self._state(event.instance_id)
        primary, way = state.primary, state.way_back
        is_meant = way.stage == "filling" and way.machine_id == event.machine_id
        if not is_meant or primary is None or not self._tally.is_up(event.instance_id):
            return
        took_s = FIRST_COPY_S[0] if cycle == 1 else CYCLE_S / 2
        self._platform.report(self._copy(state, primary.machine_id, cycle=cycle, took_s=took_s, is_last=False))
        self._later(HEARTBEAT_SOON_S, self._way_back_copied, event, cycle + 1)

    def _hold_still(self, event: HandoverRequested) -> None:
        """From now on nothing changes on the CPU machine, and the customer waits."""
        state = self._state(event.instance_id)
        is_meant = state.way_back.stage == "handing_over" and state.way_back.machine_id == event.machine_id
        if is_meant and self._tally.hold(event.instance_id):
            last = self._copy(state, event.cpu_name, cycle=1_000, took_s=CYCLE_S, is_last=True)
            self._later(CYCLE_S, self._platform.report, last)

    def _copy(self, state: Instance, machine_id: str, *, cycle: int, took_s: float, is_last: bool) -> ReportSync:
        now = self._platform.clock.now()
        return ReportSync(
            now=now, instance_id=state.instance_id, machine_id=machine_id,
            standby_machine_id=state.way_back.machine_id, cycle=cycle, ok=True, took_ms=int(took_s * 1000), files=1,
            bytes=1, captured_at=now, is_last=is_last,
        )  # fmt: skip

    def _handed_over(self, event: HandedOver) -> None:
        """Both machines have everything now."""
        for machine_id in (event.machine_id, event.cpu_name):
            self._received[machine_id] = event.captured_at
            self._tally.copied(event.instance_id, machine_id, (event.captured_at - EPOCH).total_seconds())

    def _state(self, instance_id: str) -> Instance:
        return self._platform.members["instance"].states[("instance", instance_id)]

    def _later(self, seconds: float, act: Any, *arguments: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, act, *arguments)
