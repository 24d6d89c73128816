"""The instance service's process: its clouds and its world. The rooms as one value are in `rooms.py`."""

import random
from contextlib import AsyncExitStack

import aiohttp

from libs import config, process
from libs.hosting import Ground, host
from libs.runtime.service import Service
from services.instance.config import InstanceSettings
from services.instance.effects.storing import storage_of
from services.instance.effects.world import World
from services.instance.providers.sandbox import SandboxProvider
from services.instance.rooms import ROOMS, SERVICE


async def serve(running: process.Running) -> None:
    settings = config.read(InstanceSettings)
    async with AsyncExitStack() as open_until_end:
        sandbox = SandboxProvider(settings.sandbox_url, settings.sandbox_key.reveal(), platform=settings.platform)
        open_until_end.push_async_callback(sandbox.close)
        http = await open_until_end.enter_async_context(aiohttp.ClientSession())

        async def build(ground: Ground) -> tuple[Service, World]:
            chance = random.Random(settings.secret.reveal())  # noqa: S311 - spreads retries, keeps no secret
            about = (ground.clock, chance, settings.secret, settings.gateway_url, http, ground.database, ground.logger)
            more = (*settings.patience, storage_of(settings, http), *settings.pace)
            clouds = {sandbox.name: sandbox}
            return SERVICE, World(clouds, *about, *more, bills=clouds, recent=ground.recent)

        await host(SERVICE.name, ROOMS, build, running)


def main() -> None:
    process.run(serve)


if __name__ == "__main__":
    main()
