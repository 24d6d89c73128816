"""One instance of a simulated customer: what happens to it, as the facts that other services would say.

Used by `ledger`. Every happening does two things: it moves the oracle's meters (what really ran), and it says the
facts that billing's policy hears. Of three instances one has a warm pool, one a CPU standby, and one nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

from msgspec.structs import replace

from proto.base import Event
from proto.billing.words import Line
from proto.instance.events import (
    InstanceDeleted,
    InstanceHibernated,
    InstanceInterrupted,
    InstanceReady,
    InstanceRecovering,
    InstanceStarting,
    InstanceStopping,
    InstanceWaking,
    StandbyFailed,
    StandbyReady,
)
from proto.warmpool.events import StandbyReleased
from tests.sim.ledger_oracle import Running, at

PRICES = (176_885, 299_999, 400_000, 1_234_567, 2_500_001)
CPU_PRICE, VOLUME_PRICE, STORAGE_PRICE = 20_011, 137, 28
VOLUME_GB = 100
GIGABYTE = 1_000_000_000

Protection = Literal["nothing", "warm_pool", "cpu_standby"]
PROTECTIONS: tuple[Protection, ...] = ("nothing", "warm_pool", "cpu_standby")
Say = Callable[[float, Event], None]


class Instance:
    """`state`: off, on, on_cpu, asleep. Instants are seconds since the start, to the millisecond."""

    def __init__(self, name: str, account_id: str, protection: Protection, chance: Random, say: Say) -> None:
        self.name = name
        self.protection = protection
        self.state: Literal["off", "on", "on_cpu", "asleep"] = "off"
        self.meters: dict[str, Running] = {}
        self.is_deleted = False
        self._about = {"instance_id": name, "account_id": account_id, "name": name, "gpu": "RTX 4090"}
        self._of = {"instance_id": name, "account_id": account_id}
        self._chance = chance
        self._say = say
        self._machines = 0
        self._standby = ""

    # --- what happens ---------------------------------------------------------------------------------------------

    def start(self, now: float, price: int) -> None:
        """Started or woken; ready within two minutes."""
        if self.state == "asleep":
            self._meter("files", "volume").end(now)
            self._say(now, InstanceWaking(**self._about, snapshot_id="snap", waking_at=at(now)))
        self._ready(_ms(now + self._chance.uniform(5, 120)), self._fresh(), price)

    def is_up(self, now: float) -> bool:
        """Whether it runs, and nothing of it is still on its way."""
        is_settled = all(meter.since is None or meter.since <= now for meter in self.meters.values())
        return self.state in ("on", "on_cpu") and is_settled

    def stop(self, now: float) -> None:
        self._off(now)
        self._say(now, InstanceStopping(**self._about, on_cpu=self.state == "on_cpu"))
        self._without_standby(now)
        self.state = "off"

    def hibernate(self, now: float) -> None:
        """Its files go to the storage, its volume and its machine are given back."""
        self._off(now)
        stored = self._chance.randrange(1, 50 * GIGABYTE)
        volume_id = self._volume_id if self._meter("volume", "volume").since is not None else ""
        self._meter("volume", "volume").end(now)
        self._meter("files", "volume").begin(now, -(-stored // GIGABYTE) * STORAGE_PRICE)
        asleep = InstanceHibernated(
            **self._about, snapshot_id="snap", idle_seconds=900, price_usd_micros_per_hour=0, hibernated_at=at(now),
            bytes=stored, volume_id=volume_id, on_cpu=self.state == "on_cpu",
        )  # fmt: skip
        self._say(now, asleep)
        self._without_standby(now)
        self.state = "asleep"

    def reprice(self, now: float, price: int) -> None:
        """The same machine at another price."""
        if self.state == "on":
            self._ready(now, self.meters["gpu"].machine, price, is_new=False)

    def fail_over(self, now: float, price: int) -> None:
        """The machine is lost; a standby takes over at once or a new one is found within moments."""
        was_on_cpu = self.state == "on_cpu"
        self._off(now)
        lost = InstanceInterrupted(**self._about, machine_id="mach", reason="spot_preemption", on_cpu=was_on_cpu)
        self._say(now, lost)
        soon = _ms(now + self._chance.uniform(0.1, 90))
        standby, self._standby = self._standby, ""
        if standby:
            self.meters[standby].end(soon)
            recovering = InstanceRecovering(
                **self._about, machine_id=standby, generation=self._machines, failover_id="fo", rung=self.protection
            )
            if self.protection == "warm_pool" and self._chance.random() < 0.2:  # the customer's own start
                self._say(soon, InstanceStarting(**self._about, machine_id=standby, on_standby=True))
            else:
                self._say(soon, recovering)
            soon = _ms(soon + self._chance.uniform(0.1, 5))
            if self.protection == "cpu_standby":
                self._on_cpu(soon, standby)
                return
        self._ready(soon, standby or self._fresh(), price)

    def delete(self, now: float) -> None:
        for meter in self.meters.values():
            meter.cut(now)
        self._say(now, InstanceDeleted(**self._about))
        self.state, self.is_deleted = "off", True

    # --- its machines ---------------------------------------------------------------------------------------------

    def _ready(self, when: float, machine: str, price: int, *, is_new: bool = True) -> None:
        self.state = "on"
        self._meter("gpu", "gpu").begin(when, price, machine)
        self._say(when, self._readiness(when, machine, price))
        if is_new and self.protection != "nothing":
            self._with_standby(_ms(when + self._chance.uniform(1, 5)))

    def _readiness(self, when: float, machine: str, price: int) -> InstanceReady:
        return InstanceReady(
            **self._about, machine_id=machine, generation=self._machines, endpoints=(), ready_at=at(when),
            price_usd_micros_per_hour=price,
        )  # fmt: skip

    def _on_cpu(self, when: float, machine: str) -> None:
        self.state = "on_cpu"
        self._meter("cpu", "cpu_standby").begin(when, CPU_PRICE, machine)
        self._say(when, replace(self._readiness(when, machine, CPU_PRICE), on_cpu=True))

    def _with_standby(self, when: float) -> None:
        self._standby = self._fresh()
        price = self._chance.choice(PRICES) if self.protection == "warm_pool" else CPU_PRICE
        line: Line = "warm_pool" if self.protection == "warm_pool" else "cpu_standby"
        self._meter(self._standby, line).begin(when, price, self._standby)
        ready = StandbyReady(
            **self._of, machine_id=self._standby, host_id="host", volume_id="", mode="hot",
            price_usd_micros_per_hour=price, role="cpu_standby",
        )  # fmt: skip
        if self.protection == "warm_pool":
            volume = self._meter("volume", "volume")
            volume.begin(volume.since if volume.since is not None else when, VOLUME_GB * VOLUME_PRICE)
            ready = replace(ready, volume_id=self._volume_id, volume_gb=VOLUME_GB, role="standby")
        self._say(when, ready)

    def _without_standby(self, now: float) -> None:
        standby, self._standby = self._standby, ""
        if not standby:
            return
        self.meters[standby].end(now)
        if self.protection == "warm_pool":
            self._say(now, StandbyReleased(**self._of, machine_id=standby, reason="instance_stopped"))
        else:
            gone = StandbyFailed(**self._of, machine_id=standby, reason="instance_stopped", role="cpu_standby")
            self._say(now, gone)

    def _off(self, now: float) -> None:
        self.meters["cpu" if self.state == "on_cpu" else "gpu"].end(now)

    def _meter(self, name: str, line: Line) -> Running:
        """Known by its first line."""
        return self.meters.setdefault(name, Running(line))

    def _fresh(self) -> str:
        self._machines += 1
        return f"{self.name}_mach_{self._machines}"

    @property
    def _volume_id(self) -> str:
        return f"{self.name}_vol"


def _ms(seconds: float) -> float:
    return round(seconds, 3)
