"""An agent that falls silent: told once, taken back when it is heard again, a loss after long enough or when the cloud
agrees. The instance service and its database are real, the cloud and the agents are scripted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proto.instance.care import NoteCare
from proto.instance.queries import AgentAnswer, AgentReport, InstanceView
from services.instance.queries import cares
from tests.integration.instance_world import ACCOUNT, InstanceWorld, ScriptedCloud, instance_world

HEARTBEAT_S = 0.1
LOSS_S = 1.0


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[InstanceWorld]:
    settings = {"heartbeat_s": HEARTBEAT_S, "heartbeat_misses_max": 3, "heartbeat_loss_s": LOSS_S}
    async with instance_world(database_url, ScriptedCloud(), **settings) as made:
        yield made


async def report(world: InstanceWorld, view: InstanceView) -> AgentAnswer:
    machine = view.machines[0]
    return await world.ask(
        AgentReport(
            machine_id=machine.machine_id,
            instance_id=view.instance_id,
            generation=machine.generation,
            received_at=world.clock.now(),
            status="idle",
        ),
        AgentAnswer,
    )


async def is_silent(world: InstanceWorld, instance_id: str) -> bool:
    return await world.pool.fetchval(
        "select silent_since is not null from machines where instance_id = $1", instance_id
    )


async def test_a_silent_agent_is_noticed_heard_again_and_at_last_its_machine_is_lost(world: InstanceWorld) -> None:
    ready = await world.until_status(await world.create(), "ready")
    await report(world, ready)
    await world.until(lambda: is_silent(world, ready.instance_id))
    assert (await world.get(ready.instance_id)).status == "ready", "told, not yet lost: the cloud says that it runs"

    async def is_heard() -> bool:
        await report(world, ready)
        return not await is_silent(world, ready.instance_id)

    await world.until(is_heard)
    lost = await world.until_status(ready.instance_id, "interrupted")
    assert lost.status_reason == "heartbeat_lost"


async def test_an_account_says_how_soon_its_agents_are_silent_and_how_often_machines_are_looked_at(
    database_url: str,
) -> None:
    settings = {"heartbeat_s": HEARTBEAT_S, "heartbeat_misses_max": 1_000_000}
    async with instance_world(database_url, ScriptedCloud(), **settings) as world:
        ready = await world.until_status(await world.create(), "ready")
        await report(world, ready)
        assert await cares.shortest_check_s(world.pool, 10.0) == 10.0
        care = NoteCare(now=world.clock.now(), account_id=ACCOUNT, health_check_s=4, heartbeat_misses_max=3)
        await world.ask(care)
        await world.until(lambda: is_silent(world, ready.instance_id))
        assert await cares.shortest_check_s(world.pool, 10.0) == 4.0
        assert await cares.shortest_check_s(world.pool, 3.0) == 3.0
        assert await cares.gpu_names_of(world.pool, ACCOUNT) == cares.DEFAULT_GPU_NAMES


async def test_an_agent_that_reports_is_left_alone(world: InstanceWorld) -> None:
    ready = await world.until_status(await world.create(), "ready")
    give_up_s = world.clock.monotonic_s() + 2 * LOSS_S
    while world.clock.monotonic_s() < give_up_s:
        assert (await report(world, ready)).action == "none"
        await asyncio.sleep(HEARTBEAT_S / 2)
    assert (await world.get(ready.instance_id)).status == "ready"


async def test_a_machine_without_an_agent_is_not_called_silent(world: InstanceWorld) -> None:
    ready = await world.until_status(await world.create(), "ready")
    other = await world.until_status(await world.create(), "ready")
    await report(world, other)
    await world.until(lambda: is_silent(world, other.instance_id))
    assert not await is_silent(world, ready.instance_id)


async def test_when_most_agents_are_silent_at_once_none_is_given_up_for_it(world: InstanceWorld) -> None:
    views = [await world.until_status(await world.create(), "ready") for _ in range(3)]
    for view in views:
        await report(world, view)
    for view in views:
        await world.until(lambda view=view: is_silent(world, view.instance_id))
    give_up_s = world.clock.monotonic_s() + 2 * LOSS_S
    while world.clock.monotonic_s() < give_up_s:
        assert {(await world.get(view.instance_id)).status for view in views} == {"ready"}
        await asyncio.sleep(HEARTBEAT_S / 2)
