"""The platform that the demo plays on: `dumont up` in a folder, asked over HTTP, and stopped with all its machines.

Used by `verb` and `acts`. Owns the child process. Some settings differ from those of a plain `up`, so that a minute is
enough: failovers may follow each other at once (not one in 300 s), agents report every second (not every 30), snapshots
are taken every 3 s (not only when asked), and no other customers rent in the sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from libs.config import surroundings
from libs.embedded.files import private_folder
from libs.process import die_with_parent
from services.cli.api import Api, data_of
from services.cli.exits import FAILED, Exit, NotThere
from services.cli.running import ROOT

SETTINGS = {
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_SANDBOX_OPTIONS": '{"outside_demand_ppm": 0}',
    "DUMONT_PROVIDER_POLL_S": "1",
    "DUMONT_HEARTBEAT_S": "1",
    "DUMONT_SNAPSHOT_INTERVAL_S": "3",
}
CLEAR_S_MAX = 10.0  # for giving machines back; what is left then is ended with the platform
STOP_S_MAX = 20.0
POLL_S = 0.05
WAIT_S_MAX = 30.0  # for any one thing to come about; everything here takes a second or two

T = TypeVar("T")


@dataclass
class Stage:
    """A running platform: its process, its API and the stand-in cloud behind it."""

    process: subprocess.Popen[bytes]
    folder: Path
    started_in_s: float
    url: str
    api: Api
    cloud: Api

    @classmethod
    def start(cls, folder: Path) -> Stage:
        """From the main thread only: the child dies with the thread that made it. Exits when it does not come up."""
        began_s = time.monotonic()
        private_folder(folder)
        command = [sys.executable, "-m", "services.cli", "up", "--json", "--port", "0", "--data-dir", str(folder)]
        process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=_environment(),
            start_new_session=True,  # a Ctrl-C at our terminal reaches only us, who then stop it in order
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),  # noqa: PLW1509 - nothing has started a thread yet
        )
        assert process.stdout is not None
        try:
            said = msgspec.json.decode(process.stdout.readline() or _did_not_start(folder))
            state = msgspec.json.decode((folder / "state.json").read_bytes())
            return cls(
                process,
                folder,
                time.monotonic() - began_s,
                said["api_url"],
                Api(said["api_url"] + "/api/v1", said["api_key"]),
                Api(state["sandbox_url"], (folder / "secrets" / "sandbox").read_text().strip()),
            )
        except BaseException:
            _stop(process)
            raise

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """What the platform's API answers, without its envelope. Exits with its words when it refuses."""
        return data_of(await asyncio.to_thread(self.api.ask, method, path, query=query, body=body))

    async def until(self, path: str, holds: Callable[[Any], bool], what: str) -> Any:
        """Ask until it holds. Exits when it does not come about."""
        give_up_s = time.monotonic() + WAIT_S_MAX
        while True:
            seen = None
            with contextlib.suppress(NotThere):  # a fact was heard before its row was written
                seen = await self.ask("GET", path)
            if seen is not None and holds(seen):
                return seen
            if time.monotonic() > give_up_s:
                raise Exit(f"waited {WAIT_S_MAX:.0f} s for {what}; {path} says {msgspec.json.encode(seen).decode()}")
            await asyncio.sleep(POLL_S)

    async def machines(self) -> list[dict[str, Any]]:
        """Every machine that the cloud has: the witness of what really runs."""
        return (await asyncio.to_thread(self.cloud.ask, "GET", "/v1/machines"))["machines"]

    async def take_away(self, machine_id: str) -> None:
        """As a spot market does: its processes are killed and its files are gone."""
        path = f"/v1/machines/{machine_id}/interrupt"
        await asyncio.to_thread(self.cloud.ask, "POST", path, body={"reason": "spot_preemption"})

    async def clear(self) -> None:
        """Give every machine back and stop the platform. Never raises: it is called when something went wrong, too."""
        with contextlib.suppress(Exit, TimeoutError):
            async with asyncio.timeout(CLEAR_S_MAX):
                await self._give_back()
        await asyncio.to_thread(_stop, self.process)

    async def _give_back(self) -> None:
        for instance in await self.ask("GET", "/instances", limit=100):
            await self.ask("DELETE", f"/instances/{instance['id']}")
        while True:
            if all(machine["status"] == "gone" for machine in await self.machines()):
                return
            await asyncio.sleep(POLL_S)


def machines_folder(folder: Path) -> Path:
    """Where machines' directories really are: beside the data when their users could not enter it."""
    return (folder / "sandbox" / "machines").resolve()


def _did_not_start(folder: Path) -> NoReturn:
    raise Exit(f"the platform did not start; see {folder / 'logs'}", FAILED)


def _environment() -> dict[str, str]:
    """Nothing that configures another platform of this machine reaches ours."""
    ours = {name: value for name, value in surroundings().items() if not name.startswith("DUMONT_")}
    return {**ours, "PYTHONPATH": str(ROOT), **SETTINGS}


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
