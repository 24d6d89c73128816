"""Customers of the real instance service on a cloud that lies, while its process is killed again and again.

Used by `test_instance.py` and `python -m tests.sim`. What must hold in the end, whatever happened:
- never two live primary machines of one instance, and never a machine at the cloud that nobody owns;
- no label was given to two machines; every instance came to rest; a deleted one costs nothing and stays deleted;
- besides the invariants of every service (`World.check`): no gaps, wishes stored once, rows = fold, public facts once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from libs.config import Secret
from libs.refusal import Refused
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Service
from libs.sim.chance import Faults
from libs.sim.client import Client
from libs.sim.invariants import heard
from libs.sim.life import Life, SimClock
from libs.sim.world import World
from libs.telemetry import logger
from proto.base import Command
from proto.instance.commands import AnyCommand, CreateInstance, DeleteInstance, StartInstance, StopInstance
from proto.instance.words import HealthCheck, MachineSpec, Port, VolumeWish
from services.instance import policy, projection
from services.instance.decider import AGGREGATES, INSTANCE
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import LIVE
from services.instance.effects import EFFECTS, INTAKE, TASKS
from services.instance.effects import World as InstanceWorld
from services.instance.rooms import HEARS, HEARS_EVENTS
from tests.sim.cloud import NAME, FakeCloud, SimProvider
from tests.sim.probed_http import CloudHttp
from tests.sim.rows import RowsDatabase

ACCOUNT = "acct_default"
CUSTOMERS = 3
STEPS_MAX = 5
PAUSE_S_MAX = 8.0  # before the first wish
PAUSE_S_MEAN = 3.0  # between wishes: often too short for the one before to have come about
DELETE_SHARE = 0.4  # of the wishes to delete; the rest wish for the same instance again
# An orphan has ten minutes of grace, a machine that hangs gets ten minutes to boot.
REST_S_MAX = 3_600.0
AT_REST = frozenset({"ready", "stopped", "failed", "interrupted", "deleted"})
SPEC = MachineSpec(gpu="RTX 4090", image="ubuntu:24.04", disk_gb=20, ports=(Port(port=8888),))
HEALTH_CHECK = HealthCheck(timeout_ms=500, retries_max=3, retry_delay_ms=500, wait_max_ms=20_000)
WEATHER = Faults(crash_every_s=15.0)
# Slow, torn and forgetful: lives are short, batches come in pieces, connections break.
HARSH = Faults(
    crash_every_s=6.0,
    append_late=0.06,
    append_ack_lost=0.1,
    request_doubled=0.15,
    reply_lost=0.1,
    lease_lost=0.5,
    lease_lost_after_s_max=15.0,
    store_fails=0.06,
    read_fails=0.06,
    delay_s_max=0.3,
    batch_split=0.6,
)
# What a customer may be told without anybody being at fault.
EXPECTED_REFUSALS = frozenset(
    {
        "INSTANCE_NOT_STARTABLE",
        "INSTANCE_NOT_STOPPABLE",
        "NO_AVAILABLE_PRODUCTS",
        "OFFER_UNAVAILABLE",
        "PROVIDER_UNAVAILABLE",
    }
)

# The service as `services.instance` wires it, without what needs PostgreSQL itself (schema, queries, signals).
SERVICE = Service(
    name="instance",
    aggregates=AGGREGATES,
    commands=AnyCommand,
    react=policy.react,
    project=projection.project,
    schema_sql="",
    hears=HEARS,
    hears_events=HEARS_EVENTS,
    intake=INTAKE,
    effects=EFFECTS,
    tasks=TASKS,
)


def start(world: World, storage: Any = None) -> tuple[FakeCloud, MemoryStore]:
    """The service, on one or two replicas, and the cloud it lives from."""
    cloud = FakeCloud(world.chance, world.trace)
    store = MemoryStore()

    def world_of(life: Life) -> InstanceWorld:
        seen = outside(life, cloud, store)
        seen.storage = storage
        return seen

    world.add(SERVICE, world_of=world_of, store=store, replicas=1 + world.seed % 2)
    return cloud, store


def outside(life: Life, cloud: FakeCloud, store: MemoryStore) -> InstanceWorld:
    """What one life of the service sees of clouds, clock and database."""
    return InstanceWorld(
        providers={NAME: SimProvider(cloud, life)},
        clock=SimClock(),
        random=cloud.chance.generator(f"jitter/{life.name}"),
        secret=Secret("00" * 32),
        gateway_url="http://127.0.0.1:3000",
        http=CloudHttp(cloud, life),  # type: ignore[arg-type]
        pool=RowsDatabase(store, life),  # type: ignore[arg-type]
        logger=logger("sim", process=life.name),
    )


async def scenario(world: World) -> None:
    cloud, store = start(world)
    market = asyncio.ensure_future(cloud.preempt_now_and_then())
    await asyncio.gather(*(customer(world, number) for number in range(CUSTOMERS)))
    market.cancel()
    cloud.calm()
    await world.settle(lambda: at_rest(store, cloud), within_s=REST_S_MAX)
    await world.check()
    await check_instances(world, cloud, SERVICE)
    await delete_everything(world, store)
    await world.settle(lambda: not cloud.alive(), within_s=REST_S_MAX)
    await world.check()
    await check_instances(world, cloud, SERVICE)
    assert {row["status"] for row in store.rows("instances")} <= {"deleted"}


async def customer(world: World, number: int) -> None:
    """One instance and a few changes of mind."""
    client, random = world.client(f"c{number}"), world.chance.generator(f"customer/{number}")
    instance_id = f"inst_{number}"
    await world.clock.sleep(random.uniform(0, PAUSE_S_MAX))
    await wish(client, create(world, instance_id))
    for step in range(random.randint(1, STEPS_MAX)):
        await world.clock.sleep(random.expovariate(1 / PAUSE_S_MEAN))
        about = {"now": world.clock.now(), "instance_id": instance_id, "account_id": ACCOUNT}
        set_once = {**about, "request_id": f"req_{number}x{step}"}
        match random.choice(["start", "start", "stop", "stop", "delete", "create"]):
            case "start":
                await wish(client, StartInstance(**set_once, machine_id=f"mach_{number}x{step}"))
            case "stop":
                await wish(client, StopInstance(**set_once))
            case "delete" if random.random() < DELETE_SHARE:
                await wish(client, DeleteInstance(**about))
            case _:
                await wish(client, create(world, instance_id))


def create(world: World, instance_id: str, volume: VolumeWish | None = None) -> CreateInstance:
    return CreateInstance(
        now=world.clock.now(),
        instance_id=instance_id,
        account_id=ACCOUNT,
        name=instance_id.replace("_", "-"),
        spec=SPEC,
        machine_id=f"mach_{instance_id}",
        health_check=HEALTH_CHECK,
        request_hash="same",
        volume=volume,
    )


async def wish(client: Client, command: Command) -> bool:
    """True when it was granted; a refusal must be one that a customer can expect."""
    try:
        await client.wish(command, account_id=ACCOUNT)
    except Refused as refused:
        missing = refused.code == "INSTANCE_NOT_FOUND" and not isinstance(command, CreateInstance)
        assert missing or refused.code in EXPECTED_REFUSALS, f"{command!r} was refused: {refused}"
        return False
    return True


async def delete_everything(world: World, store: MemoryStore) -> None:
    client = world.client("end")
    for row in store.rows("instances"):
        await client.wish(
            DeleteInstance(now=world.clock.now(), instance_id=row["instance_id"], account_id=ACCOUNT),
            account_id=ACCOUNT,
        )


def at_rest(store: MemoryStore, cloud: FakeCloud) -> bool:
    """Every instance rests, what was given back is known to be gone, and the cloud has only what is owned."""
    if any(row["status"] not in AT_REST for row in store.rows("instances", "status")):
        return False
    machines = store.rows("machines", "status", "gone", "provider_machine_id")
    if any(row["status"] == "destroying" and not row.get("gone") for row in machines):
        return False
    owned = {row["provider_machine_id"] for row in machines if not row.get("gone", True)}
    return all(machine.provider_machine_id in owned for machine in cloud.alive())


async def check_instances(world: World, cloud: FakeCloud, service: Service) -> None:
    """Fold the log event by event; at no moment may an instance have two live primaries."""
    twice = {label: count for label, count in cloud.creates.items() if count > 1}
    assert not twice, f"labels that were given to more than one machine: {twice}"
    states: defaultdict[str, Instance | None] = defaultdict(lambda: None)
    for said in await heard(world.log, service):
        if isinstance(said.event, INSTANCE.events):
            before = states[said.aggregate_id]
            state = states[said.aggregate_id] = INSTANCE.evolve(before, said.event)
            is_back = before is not None and before.status == "deleted" and state.status != "deleted"
            assert not is_back, f"{said.aggregate_id} came back from the dead: {said.event!r}"
            live = [m.machine_id for m in state.machines if m.role == "primary" and m.status in LIVE]
            assert len(live) <= 1, f"{said.aggregate_id} has live primaries {live} after {said.event!r}"
    owned = {m.provider_machine_id for state in states.values() if state for m in state.machines if m.has_contract}
    costing = [
        m.machine_id
        for state in states.values()
        if state
        for m in state.machines
        if m.has_contract and m.status in ("failed", "cancelled", "destroying") and state.status in AT_REST
    ]
    assert not costing, f"machines that are over but still cost money: {costing}"
    orphans = [m.provider_machine_id for m in cloud.alive() if m.provider_machine_id not in owned]
    assert not orphans, f"machines at the cloud that nobody owns: {orphans}"
    restless = {key: state.status for key, state in states.items() if state and state.status not in AT_REST}
    assert not restless, f"instances that never came to rest: {restless}"
