"""A sandbox daemon for tests: a real process on a port the system picks, in a temporary folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

KEY = "test-key-of-the-sandbox"
START_TIMEOUT_S = 30.0
PAUSE_S = 0.02
REPOSITORY = Path(__file__).parents[2]


class Daemon:
    """One daemon; `start` and `kill` may be called again and again on the same folder."""

    def __init__(self, data_dir: Path, **options: Any) -> None:
        self.root = data_dir / "sandbox"
        self.data_dir = data_dir
        self.options = {"boot_delay_ms": {"min": 0, "max": 0}, **options}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.log = data_dir / "sandbox.log"

    async def start(self) -> None:
        environment = os.environ | {
            "DUMONT_DATA_DIR": str(self.data_dir),
            "DUMONT_SANDBOX_URL": self.url or "http://127.0.0.1:0",
            "DUMONT_SANDBOX_KEY": KEY,
            "DUMONT_SANDBOX_OPTIONS": msgspec.json.encode(self.options).decode(),
        }
        where = self.root / "daemon.json"
        where.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.sandbox"], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
            )
        async with asyncio.timeout(START_TIMEOUT_S):
            while not where.exists():
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(PAUSE_S)
        self.url = msgspec.json.decode(where.read_bytes())["url"]

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        if self.process is not None:
            await self._end(signal.SIGTERM)

    async def close(self) -> None:
        """Stop, and take the machines' directories away: they may lie outside the test's folder."""
        await self.stop()
        if (self.root / "machines").exists():
            shutil.rmtree((self.root / "machines").resolve())

    async def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, START_TIMEOUT_S)
        self.process = None

    async def call(self, method: str, path: str, body: Any = None, *, key: str = KEY) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}"}
        data = None if body is None else msgspec.json.encode(body)
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.request(method, self.url + path, data=data) as response,
        ):
            content = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, msgspec.json.decode(content) if is_json else content

    async def order(self, label: str, **fields: Any) -> dict[str, Any]:
        """Rent the cheapest 4090 and wait until it runs."""
        _, listed = await self.call("GET", "/v1/offers?gpu=RTX%204090&billing=spot")
        body = {"label": label, "offer_id": listed["offers"][0]["offer_id"], "image": "pytorch", **fields}
        status, machine = await self.call("POST", "/v1/machines", body)
        assert status == 201, machine
        return await self.until(machine["machine_id"], "running")

    async def until(self, machine_id: str, status: str) -> dict[str, Any]:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                _, machine = await self.call("GET", f"/v1/machines/{machine_id}")
                if machine.get("status", "gone") == status:
                    return machine
                assert machine.get("status") != "failed", machine
                await asyncio.sleep(PAUSE_S)


def port_of(machine: dict[str, Any], port: int) -> int:
    return next(endpoint["public_port"] for endpoint in machine["endpoints"] if endpoint["port"] == port)
