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
from proto.failover.commands import UpdateMachineSettings, UpdateSettings
from proto.failover.events import FailoverFailed
from proto.failover.words import RUNGS_OF, GlobalPatch, GlobalSettings, Limits, MachinePatch
from proto.instance.care import CareNoted
from proto.instance.commands import CreateInstance, StartInstance
from proto.instance.events import InstanceFailed
from proto.instance.words import MachineSpec, Port
from services.failover.decider import ladder
from services.failover.effects import World as FailoverWorld
from services.gateway.dialects.protection import with_protection
from services.instance.decider.instance import Instance
from services.warmpool.effects import World as PoolWorld
from tests.sim import instance_scenario
from tests.sim.instance_scenario import ACCOUNT, HEALTH_CHECK
from tests.sim.market.agents import Agents
from tests.sim.market.cloud import FIRST, NEWS_S_MAX, SECOND, MarketCloud, MarketWorld, Model
from tests.sim.market.platform import LeanRows, LeanStore, Member, Platform
from tests.sim.market.strategies import Choice
from tests.sim.market.tally import Outcome, Tally
from tests.sim.market.weather import DAY_S, HOUR_S, ZONES, Outage, outages
from tests.sim.survival_agents import Storage
from tests.sim.survival_scenario import FAILOVER, WARMPOOL

REGIONS = tuple(dict.fromkeys(zone.region for zone in ZONES))
CUSTOMER_EVERY_S = 180.0  # a machine and its standby are there before the next looks at the market
BY_HAND_AFTER_S, AGAIN_AFTER_S = 900.0, 300.0
CENSUS_S = 900.0  # lost signals are not simulated here, so the census only has to be there
FORGET_EVERY_S = HOUR_S
TABLES_READ = ("instances", "machines", "orphans", "blacklist", "cares")  # by the instance service's hands
STILL = replace(CALM, delay_share=0.0)  # milliseconds are not what a month is about
TURNS_MAX = 200_000_000
NOTHING_CHANGED, USUAL_LIMITS = GlobalPatch(), Limits()


def replay(
    choice: Choice,
    *,
    seed: int,
    days: float,
    instances: int,
    settings: GlobalPatch = NOTHING_CHANGED,
    limits: Limits = USUAL_LIMITS,
) -> Outcome:
    """The same seed gives every strategy the same weather and the same demand of others. `settings` are put for the
    account before the strategy's own, `limits` are the installation's."""

    async def main() -> Outcome:
        return await _Replay(choice, seed, days, limits).run(instances, settings)

    return run_virtual(main, VirtualLoop(adopt_task, turns_max=TURNS_MAX))


class _Replay:
    def __init__(self, choice: Choice, seed: int, days: float, limits: Limits) -> None:
        self._choice = choice
        self._days = days
        models = {FIRST: "weather", SECOND: "weather of the second"} if choice.second_gpu else {FIRST: "weather"}
        self._weather = [(outage, model) for model, name in models.items() for outage in outages(seed, days, name)]
        chance = Chance(seed, STILL)
        self._cloud = MarketCloud(chance, Trace(), tuple(models))
        self._tally = Tally(self._cloud)
        self._cloud.on_taken = self._tally.taken
        self._platform = Platform()
        self._starts = 0
        self._rows = LeanStore(TABLES_READ)
        life = Life("market", 1, chance)
        outside = MarketWorld(**vars(instance_scenario.outside(life, self._cloud, self._rows)))
        outside.pool = LeanRows(self._rows, life)  # type: ignore[assignment]
        outside.poll_s = CENSUS_S
        outside.heartbeat_s = days * DAY_S  # silence is not simulated
        outside.storage = Storage()
        self._instances = self._platform.add(instance_scenario.SERVICE, outside, self._rows)
        failover_world = FailoverWorld(self._settings_of, self._platform.clock, limits, _nobody)
        self._failovers = self._platform.add(FAILOVER, failover_world, LeanStore())
        self._pools = self._platform.add(WARMPOOL, PoolWorld(self._pools_of), LeanStore())
        has_snapshots = "cloud_storage" in RUNGS_OF[choice.strategy]
        agents = Agents(self._platform, self._tally, chance.generator("agents"), snapshots=has_snapshots)
        self._platform.said += [self._tally.said, agents.said, self._look_after, self._take_care]

    async def run(self, count: int, settings: GlobalPatch) -> Outcome:
        until_s = self._days * DAY_S
        for patch in (settings, self._choice.settings):
            await self._platform.wish(UpdateSettings(now=self._platform.clock.now(), account_id=ACCOUNT, patch=patch))
        async with asyncio.TaskGroup() as group:
            demand = group.create_task(self._cloud.outside_demand(until_s))
            forgetting = group.create_task(self._forget())
            for outage, model in self._weather:
                asyncio.get_running_loop().call_at(outage.start_s, self._strike, outage, model)
            for number in range(count):
                group.create_task(self._customer(number))
            bug = self._platform.bug
            await asyncio.wait({bug}, timeout=until_s)
            demand.cancel()
            forgetting.cancel()
            if bug.done():
                await bug
        return self._tally.outcome(self._choice.name, self._days)

    def _strike(self, outage: Outage, model: Model) -> None:
        hosts = self._cloud.strike(outage, model)
        asyncio.get_running_loop().call_at(outage.end_s, self._cloud.recover, hosts)

    async def _settings_of(self, account_id: str) -> GlobalSettings:
        return self._failovers.states.get(("settings", account_id), GlobalSettings())

    async def _pools_of(self, _account_id: str) -> tuple[str, ...]:
        return tuple(instance_id for kind, instance_id in self._pools.states if kind == "pool")

    def _take_care(self, _member: Member, heard: Heard, _state: object) -> None:
        """How often the account wants its machines looked at: what a poll would tell, the cloud's news tells here."""
        if isinstance(heard.event, CareNoted):
            self._cloud.news_s_max = min(NEWS_S_MAX, heard.event.health_check_s or NEWS_S_MAX)

    async def _customer(self, number: int) -> None:
        """Wants one instance in a home region, protected as the strategy says."""
        await asyncio.sleep(number * CUSTOMER_EVERY_S)
        instance_id, region = f"inst_{number}", REGIONS[number % len(REGIONS)]
        self._tally.begin(instance_id)
        about = {"instance_id": instance_id, "account_id": ACCOUNT}
        spec = MachineSpec(
            gpu=FIRST.gpu, image="ubuntu:24.04", region=region, billing=self._choice.billing, ports=(Port(port=8888),)
        )
        strategy = self._choice.strategy
        protection = ladder.new_machine(strategy, await self._settings_of(ACCOUNT))
        await self._wish_until_granted(
            lambda: with_protection(
                CreateInstance(
                    **about, now=self._platform.clock.now(), name=instance_id.replace("_", "-"), spec=spec,
                    machine_id=f"mach_{instance_id}", health_check=HEALTH_CHECK, request_hash="same",
                ),
                protection, strategy,
            )
        )  # fmt: skip
        patch = MachinePatch(strategy_order=self._choice.order)
        await self._platform.wish(UpdateMachineSettings(**about, now=self._platform.clock.now(), patch=patch))

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


async def _nobody(_account_id: str) -> tuple[str, ...]:
    return ()
