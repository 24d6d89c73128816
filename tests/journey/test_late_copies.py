"""A copy to the CPU standby that is cut off, and one that comes too late: neither is ever what a customer is served.

The agent is met in the middle of a copy by stopping it when the first part of that copy is in the standby's inbox and
its manifest is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import pytest
from aiohttp import web

from libs.clock import SystemClock
from libs.config import Secret
from services.agent.answers import SyncOrder
from services.agent.settings import AgentSettings
from services.agent.syncing import DRAFT_SUFFIX, INBOX, MANIFEST_SUFFIX, Syncer
from services.agent.transfer import Transfer
from services.instance.queries.sync_keys import private_key
from tests.journey.platform import Platform, eventually
from tests.journey.prefix import home, in_sync, standby_of
from tests.journey.test_failover import call, over, running_instance, take_away, until

INTERVAL_S = 1
WAIT_MAX_S = 60.0
BIG_BYTES = 18 * 1024 * 1024  # two parts, so that there is a middle


@pytest.fixture
def up(survival: Platform) -> Platform:
    return survival


@functools.cache
def version(number: int) -> dict[str, bytes]:
    return {"big.bin": random.Random(number).randbytes(BIG_BYTES), "note.txt": b"version %d" % number}


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Whole files under their names, so that a copy has the old or the new one."""
    for name, content in files.items():
        (folder.parent / name).write_bytes(content)
    for name in files:
        (folder.parent / name).chmod(0o644)
        (folder.parent / name).rename(folder / name)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def standby_home(up: Platform, instance_id: str) -> Path:
    machines = up.cloud("GET", f"/v1/machines?label={up.label_of(standby_of(up, instance_id))}")["machines"]
    return home(up, machines[0]["machine_id"])


def stopped_in_the_middle(primary: Path, standby: Path) -> int:
    """The pid of the primary's agent, stopped while a copy with parts has arrived in part."""
    pid = int(json.loads((primary / ".dumont" / "agent_status.json").read_text())["pid"])

    def is_met() -> bool:
        os.kill(pid, signal.SIGSTOP)
        names = [path.name for path in (standby / ".dumont" / "inbox").glob("*/*")]
        whole = max(
            (name.removesuffix(MANIFEST_SUFFIX) for name in names if name.endswith(MANIFEST_SUFFIX)), default=""
        )
        if any(name.partition("-")[0] > whole for name in names if "-" in name):
            return True
        os.kill(pid, signal.SIGCONT)
        return False

    eventually(is_met, timeout_s=WAIT_MAX_S, what="an agent in the middle of a copy")
    return pid


def test_an_agent_killed_in_the_middle_of_a_copy_leaves_the_last_whole_one(up: Platform) -> None:
    before = running_instance(up)
    instance_id = before["id"]
    primary = home(up, before["provider_instance_id"])
    write(primary / "workspace", version(1))
    in_sync(up, instance_id, INTERVAL_S)
    standby = standby_home(up, instance_id)
    has = lambda number: content(standby / "workspace") == version(number)  # noqa: E731
    eventually(lambda: has(1), timeout_s=WAIT_MAX_S, what="the first version")

    write(primary / "workspace", version(2))
    os.kill(stopped_in_the_middle(primary, standby), signal.SIGKILL)
    assert has(1), "half a copy has been taken in"
    eventually(lambda: has(2), timeout_s=WAIT_MAX_S, what="the copy of the next agent")
    inbox = standby / ".dumont" / "inbox"
    drafts = lambda: list(inbox.glob("*/*" + DRAFT_SUFFIX))  # noqa: E731
    eventually(lambda: not drafts(), timeout_s=WAIT_MAX_S, what="no half copies", seen=drafts)

    write(primary / "workspace", version(3))
    stopped_in_the_middle(primary, standby)
    take_away(up, instance_id)  # kill -9 of everything in it, our agent first of all
    done = over(up, instance_id, 1)
    assert (done["success"], done["strategy_succeeded"]) == (True, "cpu_standby"), done
    until(up, f"/instances/{instance_id}", lambda seen: seen["status"] == "running", "the instance to run")
    assert has(2), sorted(content(standby / "workspace"))


class LateMachine:
    """The primary that was, with the order it had: our own agent's syncer and bare SFTP. Its reports come to us."""

    def __init__(self, order: SyncOrder, folder: Path, url: str, reports: asyncio.Queue[dict[str, Any]]) -> None:
        self.order, self.reports = order, reports
        self._settings = AgentSettings(url, "inst_late", agent_dir=str(folder), agent_workspace=str(folder / "files"))

    async def copied(self) -> dict[str, Any]:
        """What its syncer says of one more whole copy."""
        async with aiohttp.ClientSession() as session:
            clock = SystemClock()
            transfer = Transfer(self._settings, clock, session, session)
            syncing = asyncio.create_task(
                Syncer(self.order, self._settings, transfer, clock, lambda _generation, _copy: None).run()
            )
            try:
                async with asyncio.timeout(WAIT_MAX_S):
                    return await self.reports.get()
            finally:
                syncing.cancel()
                await asyncio.wait((syncing,))

    @asynccontextmanager
    async def files(self) -> AsyncIterator[Any]:
        key: Any = asyncssh.import_private_key(self.order.private_key)
        where = {"port": self.order.port, "username": "root", "client_keys": [key], "known_hosts": None}
        async with asyncssh.connect(self.order.host, **where) as connection, connection.start_sftp_client() as files:
            yield files


@asynccontextmanager
async def late_machine(up: Platform, instance: Any, folder: Path) -> AsyncIterator[LateMachine]:
    reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        reports.put_nowait(await request.json())
        return web.json_response({"success": True, "data": {}})

    application = web.Application()
    application.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    shown = await asyncio.to_thread(call, up, "GET", f"/standby/associations/{instance['id']}")
    cpu = shown["cpu_standby"]
    secret = Secret((up.data_dir / "secrets" / "platform").read_text().strip())
    order = SyncOrder(
        cpu["name"], instance["generation"], cpu["ip"], cpu["ssh_port"], private_key(secret, cpu["name"]), 3_600
    )
    (folder / "files").mkdir()
    (folder / "files" / "late.txt").write_text("written after everybody had gone")
    try:
        yield LateMachine(order, folder, f"http://127.0.0.1:{runner.addresses[0][1]}", reports)
    finally:
        await runner.cleanup()


async def test_a_machine_of_an_old_generation_finds_no_place_to_write(up: Platform, tmp_path: Path) -> None:
    before = await asyncio.to_thread(running_instance, up)
    instance_id = before["id"]
    primary = home(up, before["provider_instance_id"])
    (primary / "workspace" / "note.txt").write_text("in time")
    await asyncio.to_thread(in_sync, up, instance_id, INTERVAL_S)
    standby = await asyncio.to_thread(standby_home, up, instance_id)
    folder = f"{INBOX}/{before['generation']}"
    async with late_machine(up, before, tmp_path) as late, late.files() as files:
        half = f"{folder}/999999999999999{MANIFEST_SUFFIX}"  # newer than any
        async with files.open(half + DRAFT_SUFFIX, "wb") as draft:
            await draft.write(b"the first half of a copy")
            await asyncio.to_thread(take_away, up, instance_id)
            done = await asyncio.to_thread(over, up, instance_id, 1)
            assert (done["success"], done["strategy_succeeded"]) == (True, "cpu_standby"), done
            served = content(standby / "workspace")
            assert served["note.txt"] == b"in time"
            with contextlib.suppress(asyncssh.SFTPError):
                await draft.write(b"and the other")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await files.posix_rename(half + DRAFT_SUFFIX, half)
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await files.put(str(tmp_path / "files" / "late.txt"), f"{folder}/late{DRAFT_SUFFIX}")
        told = await late.copied()
        assert (told["ok"], told["detail"].split(":")[0]) == (False, "SFTPNoSuchFile"), told
    assert content(standby / "workspace") == served
    assert list((standby / ".dumont" / "inbox").iterdir()) == []
    manifests = list((standby / ".dumont").glob("*/*/*" + MANIFEST_SUFFIX))
    assert all("999999999999999" not in path.name for path in manifests)
