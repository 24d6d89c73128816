"""One strategy through one market: instances are created, protected and left alone, while zones come and go.

Used by `__main__` and by the test. Somebody looks after instances that no failover could bring back: a quarter of an
hour later they are started by hand, again every five minutes while there is no machine to be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from msgspec.structs import replace

from libs.ids import derive_id
from libs.refusal import Refused
from libs.sim.chance import CALM, Chance
from libs.sim.life import Life, adopt_task
from libs.sim.loop import VirtualLoop, run_virtual
from libs.sim.trace import Trace
from proto.base import Command, Heard
from proto.failover.commands import UpdateMachineSettings
from proto.failover.events import FailoverFailed
from proto.failover.words import LADDER, RUNGS_OF, GlobalSettings, Limits, MachinePatch, RegionalVolumePatch
from proto.instance.commands import CreateInstance, EnableCpuStandby, StartInstance
from proto.instance.events import InstanceFailed
from proto.instance.words import MachineSpec, Port, VolumeWish
from proto.warmpool.commands import ProvisionPool
from services.failover.effects import World as FailoverWorld
from services.instance.decider.instance import Instance
from tests.sim import instance_scenario
from tests.sim.instance_scenario import ACCOUNT, HEALTH_CHECK
from tests.sim.market.agents import SYNC_EVERY_S, Agents
from tests.sim.market.cloud import GPU, VOLUME_GB, MarketCloud, MarketWorld
from tests.sim.market.platform import LeanStore, Member, Platform
from tests.sim.market.strategies import Choice
from tests.sim.market.tally import Outcome, Tally
from tests.sim.market.weather import DAY_S, HOUR_S, ZONES, Outage, outages
from tests.sim.survival_agents import Storage
from tests.sim.survival_scenario import FAILOVER, WARMPOOL

REGIONS = tuple(dict.fromkeys(zone.region for zone in ZONES))
BY_HAND_AFTER_S, AGAIN_AFTER_S = 900.0, 300.0
RUNG_S_MAX = 600  # a machine boots for up to three minutes, and may have to be rented twice
CENSUS_S = 900.0  # lost signals are not simulated here, so the census only has to be there
FORGET_EVERY_S = HOUR_S
TABLES_READ = ("instances", "machines", "orphans", "blacklist")  # by the instance service's hands
STILL = replace(CALM, delay_share=0.0)  # milliseconds are not what a month is about
TURNS_MAX = 200_000_000


def replay(choice: Choice, *, seed: int, days: float, instances: int) -> Outcome:
    """The same seed gives every strategy the same weather and the same demand of others."""

    async def main() -> Outcome:
        return await _Replay(choice, seed, days).run(instances)

    return run_virtual(main, VirtualLoop(adopt_task, turns_max=TURNS_MAX))


class _Replay:
    def __init__(self, choice: Choice, seed: int, days: float) -> None:
        self._choice = choice
        self._days = days
        self._weather = outages(seed, days)
        chance = Chance(seed, STILL)
        self._cloud = MarketCloud(chance, Trace())
        self._tally = Tally(self._cloud)
        self._cloud.on_taken = self._tally.taken
        self._platform = Platform()
        self._starts = 0
        self._rows = LeanStore(TABLES_READ)
        life = Life("market", 1, chance)
        outside = MarketWorld(**vars(instance_scenario.outside(life, self._cloud, self._rows)))
        outside.poll_s = CENSUS_S
        outside.heartbeat_s = days * DAY_S  # silence is not simulated
        outside.storage = Storage()
        self._instances = self._platform.add(instance_scenario.SERVICE, outside, self._rows)
        failover_world = FailoverWorld(_default_settings, self._platform.clock, Limits(), _nobody)
        self._platform.add(FAILOVER, failover_world, LeanStore())
        self._platform.add(WARMPOOL, None, LeanStore())
        has_snapshots = "cloud_storage" in RUNGS_OF[choice.strategy]
        agents = Agents(self._platform, self._tally, chance.generator("agents"), snapshots=has_snapshots)
        self._platform.said += [self._tally.said, agents.said, self._look_after]

    async def run(self, count: int) -> Outcome:
        until_s = self._days * DAY_S
        async with asyncio.TaskGroup() as group:
            demand = group.create_task(self._cloud.outside_demand(until_s))
            forgetting = group.create_task(self._forget())
            for outage in self._weather:
                asyncio.get_running_loop().call_at(outage.start_s, self._strike, outage)
            for number in range(count):
                group.create_task(self._customer(number))
            bug = self._platform.bug
            await asyncio.wait({bug}, timeout=until_s)
            demand.cancel()
            forgetting.cancel()
            if bug.done():
                await bug
        return self._tally.outcome(self._choice.name, self._days)

    def _strike(self, outage: Outage) -> None:
        hosts = self._cloud.strike(outage)
        asyncio.get_running_loop().call_at(outage.end_s, self._cloud.recover, hosts)

    async def _customer(self, number: int) -> None:
        """Wants one instance in a home region, and protects it as the strategy says."""
        instance_id, region = f"inst_{number}", REGIONS[number % len(REGIONS)]
        about = {"instance_id": instance_id, "account_id": ACCOUNT}
        spec = MachineSpec(
            gpu=GPU, image="ubuntu:24.04", region=region, billing=self._choice.billing, ports=(Port(port=8888),)
        )
        await self._wish_until_granted(
            lambda: CreateInstance(
                **about, now=self._platform.clock.now(), name=instance_id.replace("_", "-"), spec=spec,
                machine_id=f"mach_{instance_id}", health_check=HEALTH_CHECK, request_hash="same",
                volume=VolumeWish(VOLUME_GB) if self._choice.volume else None,
            )
        )  # fmt: skip
        volume = RegionalVolumePatch(
            enabled=self._choice.volume, volume_size_gb=VOLUME_GB, failover_timeout_seconds=RUNG_S_MAX
        )
        patch = MachinePatch(
            use_global_settings=False,
            strategy=self._choice.strategy,
            regional_volume=volume,
            strategy_order=("regional_volume",) if self._choice.volume else LADDER,
        )
        await self._platform.wish(UpdateMachineSettings(**about, now=self._platform.clock.now(), patch=patch))
        if "cpu_standby" in RUNGS_OF[self._choice.strategy]:
            standby = EnableCpuStandby(**about, now=self._platform.clock.now(), sync_interval_s=SYNC_EVERY_S)
            await self._platform.wish(standby)
        if self._choice.pool is not None:
            pool = ProvisionPool(**about, now=self._platform.clock.now(), machine_id="", host_id="",
                                 mode=self._choice.pool)  # fmt: skip
            await self._platform.wish(pool)

    async def _wish_until_granted(self, make: Callable[[], Command]) -> None:
        while True:
            try:
                await self._platform.wish(make())
            except Refused:
                await asyncio.sleep(AGAIN_AFTER_S)
            else:
                return

    # --- whoever looks after what is down -----------------------------------------------------------------------

    def _look_after(self, _member: Member, heard: Heard, _state: object) -> None:
        if isinstance(heard.event, FailoverFailed | InstanceFailed):
            self._later(BY_HAND_AFTER_S, heard.event.instance_id)

    def _later(self, seconds: float, instance_id: str) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, lambda: self._platform.start(self._start_by_hand(instance_id)))

    async def _start_by_hand(self, instance_id: str) -> None:
        state: Instance = self._instances.states[("instance", instance_id)]
        if state.status not in ("interrupted", "failed"):
            return
        self._starts += 1
        machine_id = derive_id("mach", instance_id, "by hand", str(self._starts))
        try:
            await self._platform.wish(
                StartInstance(
                    now=self._platform.clock.now(), instance_id=instance_id, account_id=ACCOUNT, machine_id=machine_id
                )
            )
        except Refused:
            self._later(AGAIN_AFTER_S, instance_id)

    async def _forget(self) -> None:
        """Rows of machines that are long gone: nobody asks for them, and a month has tens of thousands."""
        while True:
            await asyncio.sleep(FORGET_EVERY_S)
            before = self._platform.clock.now() - timedelta(seconds=FORGET_EVERY_S)
            self._rows.drop("machines", partial(_is_long_gone, before))


def _is_long_gone(before: datetime, machine: dict[str, Any]) -> bool:
    return bool(machine.get("gone")) and machine["changed_at"] < before


async def _default_settings(_account_id: str) -> GlobalSettings:
    return GlobalSettings()


async def _nobody(_account_id: str) -> tuple[str, ...]:
    return ()
