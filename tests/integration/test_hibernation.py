"""Hibernation from heartbeat to wake: service, database and storage are real, the cloud and the agent are scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from libs.config import Secret
from libs.embedded.rclone import ACCESS_KEY, StorageServer
from libs.s3 import Bucket, Objects
from proto.instance.commands import KeepAlive, ReportRestored, ReportSnapshot, StartInstance
from proto.instance.hibernation_queries import GetHibernationStats, HibernationStats
from proto.instance.queries import AgentAnswer, AgentList, AgentReport, InstanceView, ListAgents
from proto.instance.storage_keys import manifest_key, pack_key
from tests.integration.instance_world import ACCOUNT, InstanceWorld, ScriptedCloud, instance_world

HEARTBEAT_S = 0.5
SLEEPY = {"heartbeat_s": HEARTBEAT_S, "heartbeat_misses_max": 4, "hibernate_idle_s": 1.0, "hibernate_notice_s": 1.0}


@pytest.fixture(scope="module")
def storage_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = StorageServer(tmp_path_factory.mktemp("storage"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def storage(storage_server: StorageServer, tmp_path: Path) -> AsyncIterator[Objects]:
    async with aiohttp.ClientSession() as http:
        secret = Secret(storage_server.secret_key)
        bucket = Bucket(storage_server.url, f"test-{tmp_path.name.replace('_', '-')[-40:]}", ACCESS_KEY, secret)
        yield Objects(bucket, http)


@pytest.fixture
async def world(database_url: str, storage: Objects) -> AsyncIterator[InstanceWorld]:
    async with instance_world(database_url, ScriptedCloud(), storage=storage, **SLEEPY) as made:
        await storage.make_bucket(made.clock.now())
        yield made


class Agent:
    """What the agent of an instance's primary says, and does when it is asked for a copy. `files`: in its workspace."""

    def __init__(self, world: InstanceWorld, storage: Objects, view: InstanceView) -> None:
        self.world, self.storage, self.view = world, storage, view
        self.gpu: float | None = 0.0
        self.sessions: int | None = 0
        self.files = 3
        self.packs: tuple[str, ...] = ()
        self.copied: list[str] = []
        self.is_lossy = False  # it says that all is stored, and it is not

    async def beat(self) -> AgentAnswer:
        machine = max(self.view.machines, key=lambda one: one.generation)
        report = AgentReport(
            machine_id=machine.machine_id, instance_id=self.view.instance_id, generation=machine.generation,
            received_at=self.world.clock.now(), status="idle", gpu_utilization_percent=self.gpu,
            ssh_sessions=self.sessions,
        )  # fmt: skip
        answer: AgentAnswer = await self.world.ask(report, AgentAnswer)
        if answer.snapshot is not None and answer.snapshot.snapshot_id not in self.copied:
            await self.copy(answer.snapshot.snapshot_id, machine.machine_id, machine.generation)
        return answer

    async def copy(self, snapshot_id: str, machine_id: str, generation: int) -> None:
        now, instance_id = self.world.clock.now(), self.view.instance_id
        is_first = not self.packs
        if is_first:
            self.packs = (snapshot_id,)
            await self.storage.put(pack_key(instance_id, snapshot_id, 0), b"the files", now)
        if not self.is_lossy:
            await self.storage.put(manifest_key(instance_id, snapshot_id), b"{}", now)
        self.copied.append(snapshot_id)
        await self.world.ask(
            ReportSnapshot(
                now=now, instance_id=instance_id, machine_id=machine_id, generation=generation,
                snapshot_id=snapshot_id, captured_at=now, files=self.files, bytes=9, stored_bytes=9 * is_first,
                packs=self.packs, took_ms=1,
            )
        )  # fmt: skip

    async def until_status(self, status: str) -> InstanceView:
        """Beats on until the instance has that status."""
        found: InstanceView | None = None

        async def is_there() -> bool:
            nonlocal found
            await self.beat()
            found = await self.world.get(self.view.instance_id)
            return found.status == status

        await self.world.until(is_there)
        assert found is not None
        return found


@pytest.fixture
async def agent(world: InstanceWorld, storage: Objects) -> Agent:
    return Agent(world, storage, await world.until_status(await world.create(), "ready"))


async def announced_at(world: InstanceWorld) -> Any:
    agents = (await world.ask(ListAgents(account_id=ACCOUNT), AgentList)).items
    return agents[0].hibernate_at if agents else None


async def test_an_idle_machine_is_announced_copied_twice_and_given_back_and_wakes_with_its_files(
    world: InstanceWorld, agent: Agent
) -> None:
    async def is_announced() -> bool:
        await agent.beat()
        return await announced_at(world) is not None

    await world.until(is_announced)
    assert (await world.get(agent.view.instance_id)).status == "ready"
    asleep = await agent.until_status("hibernated")
    assert len(agent.copied) == 2

    async def is_given_back() -> bool:
        return not world.cloud.listed

    await world.until(is_given_back)
    stats = await world.ask(GetHibernationStats(account_id=ACCOUNT), HibernationStats)
    assert (stats.total, [one.instance_id for one in stats.instances]) == (1, [asleep.instance_id])
    start = StartInstance(
        now=world.clock.now(), instance_id=asleep.instance_id, account_id=ACCOUNT, machine_id=world.ids.fresh("mach")
    )
    await world.ask(start)
    await world.until_status(asleep.instance_id, "health_checking")
    restored = ReportRestored(
        now=world.clock.now(), instance_id=asleep.instance_id, machine_id=start.machine_id, source=agent.copied[-1],
        captured_at=world.clock.now(), files=3, bytes=9, took_ms=1,
    )  # fmt: skip
    await world.ask(restored)
    await world.until_status(asleep.instance_id, "ready")
    before = await world.ask(GetHibernationStats(account_id=ACCOUNT), HibernationStats)
    assert (before.total, before.saved_usd_micros) == (1, before.instances[0].saved_usd_micros)


@pytest.mark.parametrize(("gpu", "sessions"), [(None, 0), (40.0, 0), (0.0, 1), (0.0, None)])
async def test_what_is_busy_or_not_measured_is_not_idle(
    world: InstanceWorld, agent: Agent, gpu: float | None, sessions: int | None
) -> None:
    agent.gpu, agent.sessions = gpu, sessions
    give_up_s = world.clock.monotonic_s() + 3 * SLEEPY["hibernate_idle_s"]

    async def time_is_up() -> bool:
        assert (await agent.beat()).hibernate_at is None
        return world.clock.monotonic_s() > give_up_s

    await world.until(time_is_up)
    assert (await world.get(agent.view.instance_id)).status == "ready"


async def test_a_use_after_the_announcement_and_a_keep_alive_call_it_off(world: InstanceWorld, agent: Agent) -> None:
    async def is_announced() -> bool:
        await agent.beat()
        return await announced_at(world) is not None

    async def is_called_off() -> bool:
        await agent.beat()
        return await announced_at(world) is None

    await world.until(is_announced)
    agent.gpu = 80.0
    await world.until(is_called_off)
    agent.gpu = 0.0
    await world.until(is_announced)
    keep = KeepAlive(now=world.clock.now(), instance_id=agent.view.instance_id, account_id=ACCOUNT, minutes=30)
    await world.ask(keep)
    await world.until(is_called_off)
    assert (await world.get(agent.view.instance_id)).status == "ready"
    assert (await world.get(agent.view.instance_id)).keep_alive_until == keep.now + timedelta(minutes=30)


async def test_a_copy_that_the_storage_does_not_have_keeps_the_machine(world: InstanceWorld, agent: Agent) -> None:
    agent.is_lossy = True
    await agent.until_status("hibernating")
    await agent.until_status("ready")
    assert agent.copied
    assert len(world.cloud.listed) == 1
