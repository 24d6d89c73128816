"""The agent in a sandbox machine tells its gateway what it measures, and does what the answer asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.integration.sandbox_daemon import START_TIMEOUT_S, Daemon


class Gateway:
    """Takes heartbeats and answers what the test wants."""

    def __init__(self) -> None:
        self.heartbeats: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answer: dict[str, Any] = {"action": "none", "next_heartbeat_in": 1}
        self.status = 200
        self.tokens: set[str] = set()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers["Authorization"])
        self.heartbeats.put_nowait(msgspec.json.decode(await request.read()))
        answer, self.answer = self.answer, {"action": "none", "next_heartbeat_in": 1}
        return web.json_response({"success": True, "data": answer}, status=self.status)

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(START_TIMEOUT_S):
            return await self.heartbeats.get()


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    application = web.Application()
    application.router.add_post("/api/v1/agent/status", gateway.take)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield gateway
    await runner.cleanup()


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path)
    await daemon.start()
    yield daemon
    await daemon.close()


def environment(gateway: Gateway) -> dict[str, str]:
    return {
        "DUMONT_GATEWAY_URL": gateway.url,
        "DUMONT_INSTANCE_ID": "inst_abc123",
        "DUMONT_AGENT_TOKEN": "dumont_agent_secret",
        "DUMONT_AGENT_INTERVAL_S": "1",
    }


async def test_heartbeats_carry_both_payload_forms_and_no_zero_for_what_is_not_there(
    daemon: Daemon, gateway: Gateway
) -> None:
    machine = await daemon.order("mach_1", agent_env=environment(gateway))
    first, second = await gateway.next(), await gateway.next()
    assert gateway.tokens == {"Bearer dumont_agent_secret"}
    for name in ("agent", "version", "agent_version", "status", "timestamp", "uptime", "hostname", "process_count"):
        assert name in first
    assert first["instance_id"] == "inst_abc123"
    assert first["process_count"] >= 2
    assert second["memory_total_mb"] > 0
    if "gpu_metrics" in second:
        assert second["gpu_metrics"]["gpu_count"] > 0
    else:
        assert "gpu_utilization" not in second
    private = daemon.root / "machines" / machine["machine_id"] / ".dumont"
    assert msgspec.json.decode((private / "agent_status.json").read_bytes())["failures"] == 0
    written = b"".join(path.read_bytes() for path in private.glob("*.log")) + daemon.log.read_bytes()
    assert b"dumont_agent_secret" not in written


async def test_restart_gives_a_new_agent_in_the_same_machine(daemon: Daemon, gateway: Gateway) -> None:
    machine = await daemon.order("mach_1", agent_env=environment(gateway))
    for _ in range(2):  # the second says that the first was answered and noted
        await gateway.next()
    status = daemon.root / "machines" / machine["machine_id"] / ".dumont" / "agent_status.json"
    before = msgspec.json.decode(status.read_bytes())["pid"]
    gateway.answer = {"success": True, "commands": [{"command": "restart"}]}
    async with asyncio.timeout(START_TIMEOUT_S):
        while msgspec.json.decode(status.read_bytes())["pid"] == before:
            await gateway.next()
    assert await daemon.until(machine["machine_id"], "running") == machine


async def test_prepare_hibernate_is_reported_as_syncing(daemon: Daemon, gateway: Gateway) -> None:
    await daemon.order("mach_1", agent_env=environment(gateway))
    gateway.answer = {"action": "prepare_hibernate", "next_heartbeat_in": 1}
    async with asyncio.timeout(START_TIMEOUT_S):
        while (await gateway.next())["status"] != "syncing":
            pass


async def test_the_start_command_waits_until_the_machine_carries_the_instance_and_runs_once_per_boot(
    daemon: Daemon, gateway: Gateway
) -> None:
    """As a promoted standby's does. It was not run at all, so nothing served after a failover to the warm pool."""
    command = {"DUMONT_AGENT_START_COMMAND": "echo $WHO >> started", "DUMONT_AGENT_START_ENV": '{"WHO": "mine"}'}
    machine_id = (await daemon.order("mach_1", agent_env=environment(gateway) | command))["machine_id"]
    started = daemon.root / "machines" / machine_id / "workspace" / "started"
    for _ in range(2):
        await gateway.next()
    assert not started.exists()
    for answer in ({"carries": True}, {"carries": True, "commands": ["restart"]}, {"carries": True}):
        gateway.answer = {**answer, "next_heartbeat_in": 1}
        for _ in range(2):  # the second says that the first was answered
            await gateway.next()
    async with asyncio.timeout(START_TIMEOUT_S):
        while not started.exists():
            await gateway.next()
    assert started.read_text().split() == ["mine"]
    for verb, status in (("stop", "stopped"), ("start", "running")):
        await daemon.call("POST", f"/v1/machines/{machine_id}/{verb}")
        await daemon.until(machine_id, status)
    gateway.answer = {"carries": True, "next_heartbeat_in": 1}
    async with asyncio.timeout(START_TIMEOUT_S):
        while started.read_text().split() != ["mine", "mine"]:
            await gateway.next()


async def test_shutdown_ends_the_machine_in_order(daemon: Daemon, gateway: Gateway) -> None:
    machine = await daemon.order("mach_1", agent_env=environment(gateway))
    await gateway.next()
    gateway.answer = {"action": "shutdown"}
    ended = await daemon.until(machine["machine_id"], "exited")
    assert "interruption" not in ended
    assert (daemon.root / "machines" / machine["machine_id"] / "workspace").exists()


async def test_the_agent_never_gives_up_on_a_gateway_that_fails(daemon: Daemon, gateway: Gateway) -> None:
    gateway.status = 500
    await daemon.order("mach_1", agent_env=environment(gateway))
    await gateway.next()
    await gateway.next()
    gateway.status = 200
    assert (await gateway.next())["instance_id"] == "inst_abc123"
