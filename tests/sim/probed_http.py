"""What probes of simulated machines see: a running one answers its ports, any other refuses the connection.

Used by `instance_scenario` as the `http` of the instance service's world.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import aiohttp

from libs.sim.life import Life
from tests.sim.cloud import PORTS_PER_MACHINE, FakeCloud


class CloudHttp:
    """`get` of an HTTP session."""

    def __init__(self, cloud: FakeCloud, life: Life) -> None:
        self._cloud = cloud
        self._life = life

    @contextlib.asynccontextmanager
    async def get(self, url: str, **_options: object) -> AsyncGenerator[Answer, None]:
        await self._life.step()
        public_port = int(url.rsplit(":", 1)[1].rstrip("/"))
        machine = self._cloud.rented.get(f"pm-{public_port // PORTS_PER_MACHINE}")
        if machine is None or machine.status != "running":
            raise aiohttp.ClientConnectionError(url)
        yield Answer(503 if self._life.draws.happens(self._cloud.lies.probe_fails) else 200)


class Answer:
    """An HTTP answer without a body; it is its own empty content."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.content = self

    async def read(self, _size: int) -> bytes:
        return b""
