"""What a month on the market came to: seen from the cloud and from the facts, not from what a strategy claims.

Used by the market simulation. An instance is up from the moment it is ready until the cloud takes its machine, whether
we know of it or not. Work is the time it was up; files survive when the next machine has the same workspace, or as they
were in the copy that it was filled from; what a failover says of the loss is checked against that.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from proto.base import Heard
from proto.failover.events import FailoverCompleted, FailoverFailed
from proto.failover.words import LADDER, Rung
from proto.instance.events import InstanceInterrupted, InstanceReady, MachineRestored
from services.instance.decider import cpu_standby
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE
from tests.sim.cloud import Rented
from tests.sim.market.cloud import FIRST, HOUR_S, MarketCloud
from tests.sim.market.platform import Member

CLOCK_S = 11.0  # a window counts from when the loss was noticed, at most a poll after it; and in whole seconds


class Ready(Struct, frozen=True):
    """What `failover.completed` says of one rung: from when the loss was noticed to when the instance was ready."""

    rung: Rung
    count: int
    p05_s: float
    p50_s: float
    p95_s: float


class Outcome(Struct, frozen=True):
    """One strategy's month. Shares are 0..1; cost is against the same instances on demand all the time."""

    strategy: str
    instances: int
    days: float
    availability: float
    on_cpu_share: float  # of all time: up, but on a CPU standby that has taken over
    cost_share: float
    losses: int
    failovers_completed: int
    failovers_failed: int
    unavailable_p50_s: float
    unavailable_p95_s: float
    ready: tuple[Ready, ...]
    work_lost_h_per_instance: float
    double_primary_s: float
    untrue_windows: int  # failovers that lost more work than they said
    facts: int


@dataclass
class Life:
    """One instance, as it really goes since somebody wanted it."""

    began_s: float
    rented: Rented | None = None  # the machine that carries it, or carried it last
    up_since_s: float | None = None
    down_since_s: float | None = None
    up_s: float = 0.0
    work_s: float = 0.0  # what is in the workspace now
    copies: dict[str, float] = field(default_factory=dict[str, float])  # work in each snapshot and CPU standby
    filled_from: str = ""  # the copy that the next machine was filled from
    is_held: bool = False  # down because it is handed from one machine to another
    on_cpu_since_s: float | None = None
    on_cpu_s: float = 0.0
    lost_last_s: float = 0.0  # work that the last move cost
    twice_since_s: float | None = None


@dataclass
class Tally:
    cloud: MarketCloud
    lives: dict[str, Life] = field(default_factory=dict[str, Life])
    carried: dict[str, str] = field(default_factory=dict[str, str])  # provider machine -> instance
    down_s: list[float] = field(default_factory=list[float])
    ready_s: defaultdict[Rung, list[float]] = field(default_factory=lambda: defaultdict[Rung, list[float]](list))
    losses: int = 0
    failed: int = 0
    lost_s: float = 0.0
    twice_s: float = 0.0
    untrue_windows: int = 0
    facts: int = 0

    def begin(self, instance_id: str) -> None:
        self.lives[instance_id] = Life(self.cloud.now_s())

    def taken(self, machine: Rented) -> None:
        """The cloud took a machine; most do not carry anything (standbys)."""
        instance_id = self.carried.pop(machine.provider_machine_id, "")
        if instance_id:
            self.losses += 1
            self.lives[instance_id].is_held = False
            self._goes_down(self.lives[instance_id])

    def said(self, _member: Member, heard: Heard, state: Any) -> None:
        self.facts += 1
        if isinstance(state, Instance):
            self._watch_primaries(state)
        match heard.event:
            case InstanceReady() as event:
                self._is_ready(event, state)
            case InstanceInterrupted() as event:
                self._goes_down(self.lives[event.instance_id])
            case MachineRestored() as event:
                is_standby = event.source == cpu_standby.SOURCE
                self.lives[event.instance_id].filled_from = event.machine_id if is_standby else event.source
            case FailoverCompleted() as event:
                self.ready_s[event.strategy].append(event.total_ms / 1000)
                self.untrue_windows += self.lives[event.instance_id].lost_last_s > event.data_loss_window_s + CLOCK_S
            case FailoverFailed():
                self.failed += 1
            case _:
                return

    def _is_ready(self, event: InstanceReady, state: Instance) -> None:
        machine = state.machine(event.machine_id)
        assert machine is not None, f"ready on a machine that it does not have: {event!r}"
        rented = self.cloud.rented[machine.provider_machine_id]
        life = self.lives[event.instance_id]
        assert rented.status not in ("creating", "stopped"), f"ready on a machine that is {rented.status}: {event!r}"
        self._move(life, rented)
        if rented.status != "running":
            return  # it was taken before we said so
        self.carried[rented.provider_machine_id] = event.instance_id
        now_s = self.cloud.now_s()
        self._comes_up(life)
        self._stop_cpu_clock(life)
        life.on_cpu_since_s = now_s if event.on_cpu else None

    def _move(self, life: Life, rented: Rented) -> None:
        """The instance is on this machine now: with the same files, with those of a snapshot, or with none."""
        work_s = life.work_s
        if life.rented is not None and not _same_files(life.rented, rented):
            life.work_s = life.copies.get(life.filled_from, 0.0)
        life.lost_last_s = work_s - life.work_s
        self.lost_s += life.lost_last_s
        life.rented, life.filled_from = rented, ""

    def capture(self, instance_id: str, snapshot_id: str) -> bool:
        """A snapshot is taken now; False when there is no machine to take it."""
        life = self.lives[instance_id]
        if life.up_since_s is None:
            return False
        life.copies[snapshot_id] = life.work_s + self.cloud.now_s() - life.up_since_s
        return True

    def _comes_up(self, life: Life) -> None:
        now_s = self.cloud.now_s()
        if life.down_since_s is not None and not life.is_held:
            self.down_s.append(now_s - life.down_since_s)
        life.down_since_s, life.is_held = None, False
        if life.up_since_s is None:
            life.up_since_s = now_s

    def hold(self, instance_id: str) -> bool:
        """A handover: the customer waits, which is no loss. False when it is down anyway."""
        life = self.lives[instance_id]
        if life.up_since_s is None:
            return False
        self._goes_down(life)
        life.is_held = True
        return True

    def go_on(self, instance_id: str) -> None:
        """The handover was called off, and the machine works on."""
        life = self.lives[instance_id]
        if life.is_held:
            self._comes_up(life)
            life.on_cpu_since_s = self.cloud.now_s()

    def copied(self, instance_id: str, standby_id: str, captured_s: float) -> None:
        """A CPU standby has the files as they were then, before the instance went down."""
        life = self.lives[instance_id]
        assert life.down_since_s is not None and life.up_since_s is None, f"{instance_id} is up"
        life.copies[standby_id] = life.work_s - (life.down_since_s - captured_s)

    def down_since_s(self, instance_id: str) -> float:
        down_since_s = self.lives[instance_id].down_since_s
        assert down_since_s is not None, f"{instance_id} is up"
        return down_since_s

    def is_up(self, instance_id: str) -> bool:
        return self.lives[instance_id].up_since_s is not None

    def _goes_down(self, life: Life) -> None:
        if life.up_since_s is None:
            return
        now_s = self.cloud.now_s()
        life.up_s += now_s - life.up_since_s
        life.work_s += now_s - life.up_since_s
        life.up_since_s, life.down_since_s = None, now_s
        self._stop_cpu_clock(life)

    def _stop_cpu_clock(self, life: Life) -> None:
        if life.on_cpu_since_s is not None:
            life.on_cpu_s += self.cloud.now_s() - life.on_cpu_since_s
            life.on_cpu_since_s = None

    def _watch_primaries(self, state: Instance) -> None:
        life = self.lives[state.instance_id]
        live = sum(machine.role == "primary" and machine.status in LIVE for machine in state.machines)
        now_s = asyncio.get_running_loop().time()
        if life.twice_since_s is not None:
            self.twice_s += now_s - life.twice_since_s
        life.twice_since_s = now_s if live > 1 else None

    def outcome(self, strategy: str, days: float) -> Outcome:
        """Call at the end; outages that still last count as long as they have lasted."""
        self.cloud.close_meter()
        now_s = self.cloud.now_s()
        for life in self.lives.values():
            if life.down_since_s is not None:
                self.down_s.append(now_s - life.down_since_s)
            self._goes_down(life)
        lives = self.lives.values()
        wanted_s = sum(now_s - life.began_s for life in lives)
        down_s = sorted(self.down_s)
        return Outcome(
            strategy=strategy,
            instances=len(lives),
            days=days,
            availability=sum(life.up_s for life in lives) / wanted_s,
            on_cpu_share=sum(life.on_cpu_s for life in lives) / wanted_s,
            cost_share=self.cloud.cost_usd_micros / (wanted_s / HOUR_S * FIRST.usd_micros_per_hour),
            losses=self.losses,
            failovers_completed=sum(len(each) for each in self.ready_s.values()),
            failovers_failed=self.failed,
            unavailable_p50_s=_quantile(down_s, 0.5),
            unavailable_p95_s=_quantile(down_s, 0.95),
            ready=tuple(_ready(rung, sorted(self.ready_s[rung])) for rung in LADDER if rung in self.ready_s),
            work_lost_h_per_instance=self.lost_s / HOUR_S / len(lives),
            double_primary_s=self.twice_s,
            untrue_windows=self.untrue_windows,
            facts=self.facts,
        )


def _ready(rung: Rung, ordered_s: list[float]) -> Ready:
    return Ready(rung, len(ordered_s), *(_quantile(ordered_s, share) for share in (0.05, 0.5, 0.95)))


def _same_files(before: Rented, after: Rented) -> bool:
    is_same_machine = before.provider_machine_id == after.provider_machine_id
    return is_same_machine or (bool(before.volume_id) and before.volume_id == after.volume_id)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
