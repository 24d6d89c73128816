"""Customers who change their minds about failover settings while everything is killed, and what must come of it.

Used by `survival_scenario`. They send patches for the account and for instances, some two at once, and send old ones
again, late, as the same request. In the end the settings must be the patches in the order in which each was first
accepted. The log tells that order; whoever was told "done" before another was asked comes before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import inf
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from libs.refusal import Refused
from libs.runtime.codec import decode_commit, subject_of
from libs.runtime.memory_store import MemoryStore
from libs.sim.client import Client
from libs.sim.world import World
from proto.failover.commands import ForgetMachineSettings, UpdateMachineSettings, UpdateSettings
from proto.failover.events import GuardEvent, MachineSettingsUpdated, SettingsEvent, SettingsUpdated
from proto.failover.words import (
    CpuStandbyPatch,
    GlobalPatch,
    GlobalSettings,
    MachinePatch,
    MachineSettings,
    Strategy,
    WarmPoolPatch,
)

INDECISIVE = 2
CHANGES_MAX = 8
PAUSE_S_MEAN = 8.0
AGAIN_SHARE = 0.4  # of the steps: an old wish comes again
TOGETHER_SHARE = 0.3  # of the others: two at once, in whichever order they arrive
FORGET_SHARE = 0.15
COMMIT = "cmt_"  # so begins the id of a wish that follows from a fact

Change = UpdateSettings | UpdateMachineSettings | ForgetMachineSettings


class Accepted(Struct):
    """A wish that was granted: asked at one instant, told at another."""

    wish: Change
    asked_s: float
    told_s: float


# --- what services read of each other's rows, which may be a moment old -------------------------------------------


def of_account(failovers: MemoryStore) -> GlobalSettings:
    rows = failovers.rows("settings")
    return msgspec.convert(rows[0]["settings"], GlobalSettings) if rows else GlobalSettings()


def choosers(failovers: MemoryStore) -> tuple[str, ...]:
    """Instances that decide themselves whether they have a warm pool, and have not switched it off."""
    rows = [row for row in failovers.rows("guards") if row.get("settings") and not row.get("closed")]
    own = {row["instance_id"]: msgspec.convert(row["settings"], MachineSettings) for row in rows}
    return tuple(key for key, one in own.items() if not one.use_global_settings and one.warm_pool_enabled)


def pools(rows: MemoryStore) -> tuple[str, ...]:
    """Instances that have a pool."""
    return tuple(row["instance_id"] for row in rows.rows("pools", "status") if row["status"] != "disabled")


# --- wishing ------------------------------------------------------------------------------------------------------


class Indecision:
    """Those who change the settings of one account and its instances, and all that was granted to them."""

    def __init__(self, world: World, account_id: str, instance_ids: Sequence[str], usual: Strategy) -> None:
        self._world = world
        self._account_id = account_id
        self._instance_ids = instance_ids
        self._usual: Strategy = usual
        self._count = 0
        own = MachinePatch(use_global_settings=False, strategy=usual)
        wish = UpdateMachineSettings(now=world.clock.now(), instance_id="", account_id=account_id, patch=own)
        self._chosen = Accepted(wish, 0.0, inf)  # said with the create, and heard at any time
        self.accepted: list[Accepted] = []

    async def begin(self) -> None:
        """The strategy that the scenario is about."""
        client = self._world.client("settings")
        await self._say(client, self._global(GlobalPatch(default_strategy=self._usual)))

    async def last(self) -> None:
        """Until all of them have made up their minds."""
        await asyncio.gather(*(self._waver(number) for number in range(INDECISIVE)))

    async def _waver(self, number: int) -> None:
        client, random = self._world.client(f"s{number}"), self._world.chance.generator(f"settings/{number}")
        for _ in range(random.randint(1, CHANGES_MAX)):
            await self._world.clock.sleep(random.expovariate(1 / PAUSE_S_MEAN))
            if random.random() < AGAIN_SHARE:
                await client.wish(random.choice(self.accepted).wish, account_id=self._account_id)
            elif random.random() < TOGETHER_SHARE:
                await asyncio.gather(self._say(client, self._any(random)), self._say(client, self._any(random)))
            else:
                await self._say(client, self._any(random))

    async def _say(self, client: Client, wish: Change) -> None:
        asked_s = self._world.clock.monotonic_s()
        try:
            await client.wish(wish, account_id=self._account_id)
        except Refused as refused:
            assert refused.code == "INSTANCE_NOT_FOUND", f"{wish!r} was refused: {refused}"
            return
        self.accepted.append(Accepted(wish, asked_s, self._world.clock.monotonic_s()))

    def _any(self, random: Random) -> Change:
        if random.random() < 0.5:
            return self._global(self._global_patch(random))
        about = {**self._about(), "instance_id": random.choice(self._instance_ids)}
        if random.random() < FORGET_SHARE:
            return ForgetMachineSettings(**about)
        patch = random.choice(
            [
                MachinePatch(use_global_settings=True),
                MachinePatch(use_global_settings=False),
                MachinePatch(use_global_settings=False, strategy=self._strategy(random), warm_pool_enabled=True),
                MachinePatch(strategy=None),
                MachinePatch(warm_pool_enabled=random.random() < 0.5),
                MachinePatch(cpu_standby_enabled=random.random() < 0.5),
                MachinePatch(strategy_order=random.choice([("cpu_standby",), ("cloud_storage", "warm_pool")])),
            ]
        )
        return UpdateMachineSettings(**about, patch=patch)

    def _global_patch(self, random: Random) -> GlobalPatch:
        return random.choice(
            [
                GlobalPatch(default_strategy=self._strategy(random)),
                GlobalPatch(default_strategy=self._usual, notify_on_failover=random.random() < 0.5),
                GlobalPatch(warm_pool=WarmPoolPatch(enabled=random.random() < 0.6)),
                GlobalPatch(warm_pool=WarmPoolPatch(standby_mode=random.choice(["hot", "stopped"]))),
                GlobalPatch(warm_pool=WarmPoolPatch(health_check_interval_seconds=random.choice([5, 10, 20]))),
                GlobalPatch(cpu_standby=CpuStandbyPatch(auto_failover=random.random() < 0.6)),
                GlobalPatch(cpu_standby=CpuStandbyPatch(auto_recovery=random.random() < 0.6, failover_threshold=3)),
            ]
        )

    def _strategy(self, random: Random) -> Strategy:
        return random.choice([self._usual, self._usual, "both", "all", "disabled"])

    def _global(self, patch: GlobalPatch) -> UpdateSettings:
        return UpdateSettings(**self._about(), patch=patch)

    def _about(self) -> dict[str, Any]:
        """A new wish, as the gateway makes one."""
        self._count += 1
        return {
            "now": self._world.clock.now(),
            "request_id": f"req_settings_{self._count}",
            "account_id": self._account_id,
        }

    # --- what must have come of it --------------------------------------------------------------------------------

    async def check(self) -> None:
        subjects = {subject_of("failover", one.wish.aggregate, one.wish.aggregate_id) for one in self.accepted}
        for subject in sorted(subjects):
            mine = {
                one.wish.request_id: one
                for one in self.accepted
                if subject_of("failover", one.wish.aggregate, one.wish.aggregate_id) == subject
            }
            await self._check_one(subject, mine)

    async def _check_one(self, subject: str, mine: dict[str, Accepted]) -> None:
        heeded: list[str] = []
        said: Any = MachineSettings() if ".guard." in subject else GlobalSettings()
        for stored in await self._world.log.read("EVT_FAILOVER", subject):
            commit = decode_commit(stored.data)
            heeded += commit.heeded
            for raw in commit.events:
                event = msgspec.json.decode(raw, type=GuardEvent if ".guard." in subject else SettingsEvent)
                said = event.settings if isinstance(event, MachineSettingsUpdated | SettingsUpdated) else said
        chosen = [request_id for request_id in heeded if request_id.startswith(COMMIT)][:1]
        assert sorted(heeded) == sorted([*mine, *chosen]), f"{subject}: granted {sorted(mine)}, in the log {heeded}"
        granted = [mine.get(request_id, self._chosen) for request_id in heeded]
        for index, later in enumerate(granted):
            early = [one.wish.request_id for one in granted[index + 1 :] if one.told_s < later.asked_s]
            assert not early, f"{subject}: {early} done before {later.wish.request_id} was asked, but stand after it"
        expected = _plain(MachineSettings() if ".guard." in subject else GlobalSettings())
        for one in granted:
            expected = _after(expected, one.wish)
        assert _plain(said) == expected, f"{subject}: after {heeded}\nsettings {_plain(said)}\nexpected {expected}"


def _plain(settings: Struct) -> dict[str, Any]:
    """Every field by name, also those that stand at their default."""
    return {
        name: _plain(value) if isinstance(value, Struct) else msgspec.to_builtins(value)
        for name, value in msgspec.structs.asdict(settings).items()
    }


def _after(before: dict[str, Any], wish: Change) -> dict[str, Any]:
    if isinstance(wish, ForgetMachineSettings):
        return _plain(MachineSettings())
    return _merged(before, msgspec.to_builtins(wish.patch))


def _merged(before: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A merge patch on plain values; `strategy` null is the default."""
    after = dict(before)
    for name, value in patch.items():
        after[name] = _merged(before[name], value) if isinstance(value, dict) else value
    if "strategy" in after and after["strategy"] is None:
        after["strategy"] = "both"
    return after
