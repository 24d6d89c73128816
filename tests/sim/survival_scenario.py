"""Instances with warm pools on a cloud that lies and preempts, while failover, warm pool and instance are killed.

Used by `test_survival.py` and `python -m tests.sim --scenario survival`. What must hold in the end, whatever happened:
- every interruption has one failover (its own, or one that was under way), which completed or failed exactly once;
- a completed failover named the machine that carried the instance then; a standby was claimed by one failover only;
- never two live primary machines; generations only grow; nothing is left at the cloud that nobody owns, no volume of
  a deleted instance either;
- settings are the patches in the order in which they were first accepted (`survival_settings`);
- besides the invariants of every service (`World.check`) and of instances (`instance_scenario`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from libs.ids import derive_id
from libs.refusal import Refused
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Service
from libs.sim.chance import Faults
from libs.sim.invariants import heard
from libs.sim.life import Life
from libs.sim.world import World
from proto.base import Command
from proto.failover.commands import AnyCommand as FailoverWish
from proto.failover.commands import ExecuteFailover
from proto.failover.events import FailoverCompleted, FailoverFailed, FailoverStarted, InterruptionJoined
from proto.failover.words import GlobalSettings, Limits, Strategy
from proto.instance.commands import (
    DeleteInstance,
    DisableCpuStandby,
    EnableCpuStandby,
    RequestSnapshot,
    StartInstance,
    StopInstance,
)
from proto.instance.events import InstanceInterrupted, InstanceReady
from proto.instance.words import Protection, VolumeWish
from proto.warmpool.commands import AnyCommand as PoolWish
from proto.warmpool.commands import DisablePool, ProvisionPool
from proto.warmpool.events import StandbyClaimed
from services.failover import policy as failover_policy
from services.failover import projection as failover_projection
from services.failover.decider import AGGREGATES as GUARDS
from services.failover.effects import INTAKE as FAILOVER_INTAKE
from services.failover.effects import World as FailoverWorld
from services.warmpool import policy as pool_policy
from services.warmpool import projection as pool_projection
from services.warmpool.decider import AGGREGATES as POOLS
from services.warmpool.effects import INTAKE as POOL_INTAKE
from services.warmpool.effects import World as PoolWorld
from tests.sim import instance_scenario, survival_agents, survival_settings
from tests.sim.cloud import FakeCloud
from tests.sim.instance_scenario import ACCOUNT, SERVICE, at_rest, check_instances, create, delete_everything
from tests.sim.survival_agents import Storage
from tests.sim.survival_settings import Indecision

CUSTOMERS = 2
STEPS_MAX = 6
STEP_S_MEAN = 12.0
CHOSEN_SHARE = 0.5  # of the instances: made with a strategy of their own
AGAIN_SHARE = 0.3  # of the steps: an old wish comes again first
POOL_STEPS = ("start", "start", "stop", "execute", "provision", "provision", "disable", "delete")
VOLUME_STEPS = ("start", "start", "stop", "execute", "execute", "provision", "delete")
EVERY_STEP = (
    "start",
    "stop",
    "execute",
    "provision",
    "delete",
    "cpu_standby",
    "no_cpu_standby",
    "snapshot",
    "snapshot",
)
READY_S_MAX = 60.0
# Volumes are given back with growing pauses, and an orphan has ten minutes of grace.
REST_S_MAX = 7_200.0
WEATHER = Faults(crash_every_s=12.0)
LIMITS = Limits(failovers_per_day_max=10_000, spacing_s=0)
EXPECTED_REFUSALS = frozenset(
    {
        *instance_scenario.EXPECTED_REFUSALS,
        "INSTANCE_NOT_FOUND",
        "FAILOVER_DISABLED",
        "FAILOVER_IN_PROGRESS",
        "INVALID_STATE",
        "WARMPOOL_EXISTS",
        "SNAPSHOT_IN_PROGRESS",
    }
)

# The services as their `rooms.py` wire them, without what needs PostgreSQL itself (schema, queries).
FAILOVER = Service(
    name="failover",
    aggregates=GUARDS,
    commands=FailoverWish,
    react=failover_policy.react,
    project=failover_projection.project,
    schema_sql="",
    hears=failover_policy.HEARS,
    hears_events=failover_policy.HEARS_EVENTS,
    intake=FAILOVER_INTAKE,
)
WARMPOOL = Service(
    name="warmpool",
    aggregates=POOLS,
    commands=PoolWish,
    react=pool_policy.react,
    project=pool_projection.project,
    schema_sql="",
    hears=pool_policy.HEARS,
    hears_events=pool_policy.HEARS_EVENTS,
    intake=POOL_INTAKE,
)


def start(world: World) -> tuple[FakeCloud, MemoryStore, MemoryStore, MemoryStore]:
    """All three services and the cloud they live from."""
    cloud, instances = instance_scenario.start(world, Storage())
    failovers, pools = MemoryStore(), MemoryStore()

    async def settings_of(_account_id: str) -> GlobalSettings:
        return survival_settings.of_account(failovers)

    async def choosers_of(_account_id: str) -> tuple[str, ...]:
        return survival_settings.choosers(failovers)

    async def pools_of(_account_id: str) -> tuple[str, ...]:
        return survival_settings.pools(pools)

    def failover_world(_life: Life) -> FailoverWorld:
        return FailoverWorld(settings_of, world.clock, LIMITS, choosers_of)

    world.add(FAILOVER, world_of=failover_world, store=failovers)
    world.add(WARMPOOL, world_of=lambda _life: PoolWorld(pools_of), store=pools)
    return cloud, instances, failovers, pools


async def scenario(world: World) -> None:
    """Warm pools."""
    await _run(world, POOL_STEPS, "both")


async def volumes(world: World) -> None:
    """Workspaces on volumes of a region, which one machine at a time has."""
    await _run(world, VOLUME_STEPS, "regional_volume")


async def every_rung(world: World) -> None:
    """Also CPU standbys and snapshots, and the agents that they need."""
    await _run(world, EVERY_STEP, "all")


async def _run(world: World, steps: Sequence[str], strategy: Strategy) -> None:
    cloud, instances, failovers, pools = start(world)
    market = asyncio.ensure_future(cloud.preempt_now_and_then())
    agents = asyncio.ensure_future(survival_agents.work(world, instances)) if steps is EVERY_STEP else None
    indecision = Indecision(world, ACCOUNT, [f"inst_{number}" for number in range(CUSTOMERS)], strategy)
    await indecision.begin()
    await asyncio.gather(
        *(customer(world, instances, number, steps, strategy) for number in range(CUSTOMERS)),
        indecision.last(),
    )
    market.cancel()
    cloud.calm()

    def rests() -> bool:
        if agents is not None and agents.done():
            agents.result()  # what it died of
        return at_rest(instances, cloud) and not running(failovers) and settled(pools)

    await world.settle(rests, within_s=REST_S_MAX)
    await check_everything(world, cloud)
    await indecision.check()
    await delete_everything(world, instances)
    await world.settle(lambda: not cloud.alive() and not cloud.volumes and not running(failovers), within_s=REST_S_MAX)
    await check_everything(world, cloud)
    statuses = {row["status"] for row in pools.rows("pools")}
    assert statuses <= {"disabled", "searching"}, f"pools of deleted instances are {statuses}"
    if agents is not None:
        agents.cancel()


async def check_everything(world: World, cloud: FakeCloud) -> None:
    await world.check()
    await check_instances(world, cloud, SERVICE)
    await check_failovers(world)


def running(failovers: MemoryStore) -> list[str]:
    return [row["failover_id"] for row in failovers.rows("failovers", "status") if row["status"] == "in_progress"]


def settled(pools: MemoryStore) -> bool:
    """Degraded pools try again for ever; the others come to rest."""
    return all(
        row["status"] in ("disabled", "active", "searching", "degraded") for row in pools.rows("pools", "status")
    )


async def customer(world: World, instances: MemoryStore, number: int, steps: Sequence[str], strategy: Strategy) -> None:
    """One instance with a warm pool, and a few changes of mind. What was granted is said again later, now and then."""
    client, random = world.client(f"c{number}"), world.chance.generator(f"customer/{number}")
    instance_id = f"inst_{number}"
    granted: list[Command] = []

    async def wish(command: Command) -> None:
        try:
            await client.wish(command, account_id=ACCOUNT)
        except Refused as refused:
            assert refused.code in EXPECTED_REFUSALS, f"{command!r} was refused: {refused}"
        else:
            granted.extend([command] if command.request_id else [])

    order = create(world, instance_id, VolumeWish(50) if steps is VOLUME_STEPS else None)
    await wish(replace(order, protection=Protection(strategy)) if random.random() < CHOSEN_SHARE else order)
    give_up_s = world.clock.monotonic_s() + READY_S_MAX
    while _row(instances, instance_id).get("status") != "ready" and world.clock.monotonic_s() < give_up_s:
        await world.clock.sleep(1.0)
    first = {"now": world.clock.now(), "instance_id": instance_id, "account_id": ACCOUNT, "request_id": f"req_{number}"}
    if steps is EVERY_STEP:
        await wish(EnableCpuStandby(**first, sync_interval_s=30))
    if steps is POOL_STEPS or random.random() < 0.3:
        await wish(provision(world, instances, first, random.choice(["hot", "stopped"])))
    for step in range(random.randint(1, STEPS_MAX)):
        await world.clock.sleep(random.expovariate(1 / STEP_S_MEAN))
        if granted and random.random() < AGAIN_SHARE:
            await client.wish(random.choice(granted), account_id=ACCOUNT)  # never refused: it is done
        if (command := _next(world, instances, number, step, random.choice(steps))) is not None:
            await wish(command)


def _next(world: World, instances: MemoryStore, number: int, step: int, verb: str) -> Command | None:
    """What a customer says next, as the gateway passes it on."""
    random = world.chance.generator(f"customer/{number}/{step}")
    instance_id, name = f"inst_{number}", f"{number}x{step}"
    about = {"now": world.clock.now(), "instance_id": instance_id, "account_id": ACCOUNT}
    set_once = {**about, "request_id": f"req_{name}"}
    match verb:
        case "start":
            return StartInstance(**set_once, machine_id=f"mach_{name}")
        case "stop":
            return StopInstance(**set_once)
        case "execute":
            machine_id = _row(instances, instance_id).get("machine_id") or "mach_none"
            failover_id = derive_id("fo", instance_id, str(step))
            return ExecuteFailover(**about, failover_id=failover_id, machine_id=machine_id, test=True)
        case "provision":
            return provision(world, instances, set_once, random.choice(["hot", "stopped"]))
        case "disable":
            return DisablePool(**set_once)
        case "cpu_standby":
            return EnableCpuStandby(**set_once, sync_interval_s=30)
        case "no_cpu_standby":
            return DisableCpuStandby(**set_once)
        case "snapshot":
            return RequestSnapshot(
                **about, snapshot_id=derive_id("snap", instance_id, str(step)), reason="user_request"
            )
        case "delete" if random.random() < 0.2:
            return DeleteInstance(**about)
        case _:
            return None


def provision(world: World, instances: MemoryStore, about: dict, mode: str) -> ProvisionPool:
    """As the gateway asks for it: with what the rows say about the instance, which may be a moment old."""
    row = _row(instances, about["instance_id"])
    machine_id = row.get("machine_id") if row.get("status") == "ready" else None
    machine = next((m for m in instances.rows("machines") if m["machine_id"] == machine_id), {})
    return ProvisionPool(
        **about,
        machine_id=machine_id or "",
        host_id=machine.get("host_id") or "",
        mode=mode,
    )


def _row(instances: MemoryStore, instance_id: str) -> dict:
    rows = instances.rows("instances", "status", "machine_id")
    return next((row for row in rows if row["instance_id"] == instance_id), {})


async def check_failovers(world: World) -> None:
    """Every interruption was answered, every answer ended once, and no standby went to two failovers."""
    instance_facts = await heard(world.log, SERVICE)
    guard_facts = [said.event for said in await heard(world.log, FAILOVER)]
    started = [event.failover_id for event in guard_facts if isinstance(event, FailoverStarted)]
    ended = [event.failover_id for event in guard_facts if isinstance(event, FailoverCompleted | FailoverFailed)]
    joined = {event.joined_id for event in guard_facts if isinstance(event, InterruptionJoined)}
    assert len(started) == len(set(started)), f"started twice: {Counter(started).most_common(3)}"
    assert sorted(started) == sorted(ended), f"started {sorted(started)}, ended {sorted(ended)}"
    for said in instance_facts:
        if isinstance(said.event, InstanceInterrupted):
            failover_id = said.event.failover_id or derive_id("fo", said.event_id)
            assert failover_id in {*started, *joined}, f"nobody answered {said.event!r}"
    ready = {
        (said.event.instance_id, said.event.machine_id, said.event.generation)
        for said in instance_facts
        if isinstance(said.event, InstanceReady)
    }
    for event in guard_facts:
        if isinstance(event, FailoverCompleted):
            assert (event.instance_id, event.machine_id, event.generation) in ready, f"never ready: {event!r}"
    claims = [said.event for said in await heard(world.log, WARMPOOL) if isinstance(said.event, StandbyClaimed)]
    twice = [machine for machine, count in Counter(claim.machine_id for claim in claims).items() if count > 1]
    assert not twice, f"claimed by two failovers: {twice}"
    generations: dict[str, int] = {}
    for said in instance_facts:
        if isinstance(said.event, InstanceReady):
            before = generations.get(said.event.instance_id, 0)
            assert said.event.generation >= before, f"generation {said.event.generation} after {before}: {said.event!r}"
            generations[said.event.instance_id] = said.event.generation
