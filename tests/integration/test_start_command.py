"""The customer's start command: once per boot, also when the agent is killed at the worst moment."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp

from libs.clock import SystemClock
from services.agent.settings import AgentSettings
from services.agent.transfer import Transfer
from services.agent.work import Work

DEADLINE_S = 60
COMMAND = "echo ran >> ran; echo $$ > pid.new; mv pid.new pid; exec sleep 600"
AGENTS_AT_ONCE = 3
KILLED = {-signal.SIGKILL}
# An agent's life: it is told to run the command, and is gone at once.
LIFE = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.integration.test_start_command import told
asyncio.run(told(Path(sys.argv[1])))
os.kill(os.getpid(), signal.SIGKILL)
"""


async def told(workspace: Path) -> None:
    """An agent hears that its machine carries the instance."""
    settings = AgentSettings(
        gateway_url="http://127.0.0.1:9",
        instance_id="inst_1",
        agent_dir=str(workspace.parent),
        agent_workspace=str(workspace),
        agent_start_command=COMMAND,
    )
    async with aiohttp.ClientSession() as http:
        async with asyncio.TaskGroup() as group:
            work = Work(settings, Transfer(settings, SystemClock(), http, http), SystemClock(), group)
        work.run_start_command()


def agents(workspace: Path, count: int = 1) -> set[int]:
    """How they ended that were told so at the same time."""
    lives = [subprocess.Popen([sys.executable, "-c", LIFE, str(workspace)]) for _ in range(count)]
    return {life.wait(DEADLINE_S) for life in lives}


async def has_run(workspace: Path) -> list[str]:
    """How often, when it runs and one more agent has heard of it; then it is ended."""
    async with asyncio.timeout(DEADLINE_S):
        while not (workspace / "pid").exists():
            await asyncio.sleep(0.01)
    try:
        assert agents(workspace) == KILLED
        return (workspace / "ran").read_text().split()
    finally:
        os.killpg(int((workspace / "pid").read_text()), signal.SIGKILL)


async def test_agents_that_are_killed_as_soon_as_they_have_begun_it_neither_lose_nor_repeat_it(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    assert agents(workspace, AGENTS_AT_ONCE) == KILLED
    assert await has_run(workspace) == ["ran"]


async def test_what_could_not_be_begun_is_begun_when_the_agent_hears_of_it_again(tmp_path: Path) -> None:
    """It was noted before it was begun, so the next agent took it for done."""
    workspace = tmp_path / "workspace"
    assert agents(workspace) == {1}, "there is no workspace yet"
    workspace.mkdir()
    assert agents(workspace) == KILLED
    assert await has_run(workspace) == ["ran"]
