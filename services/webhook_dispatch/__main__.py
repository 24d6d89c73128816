"""The webhook dispatch process: its HTTP client, keys and world. The rooms as one value are in `rooms.py`."""

import random
from contextlib import AsyncExitStack

from libs import config, process
from libs.hosting import Ground, host
from libs.postgres import PostgresStore
from libs.runtime.service import Service
from libs.sealing import Sealer, signing_key
from proto.webhook_dispatch.words import SECRET_PURPOSE
from services.webhook_dispatch.config import DispatchSettings
from services.webhook_dispatch.effects.posting import Poster
from services.webhook_dispatch.effects.world import Instruments, World
from services.webhook_dispatch.rooms import ROOMS, SERVICE


async def serve(running: process.Running) -> None:
    settings = config.read(DispatchSettings)
    secret = settings.secret.reveal()
    keys = (Sealer(secret, purpose=SECRET_PURPOSE), signing_key(secret, purpose=SECRET_PURPOSE))
    async with AsyncExitStack() as open_until_end:

        async def build(ground: Ground) -> tuple[Service, World]:
            poster = Poster(settings.fence, ground.clock)
            open_until_end.push_async_callback(poster.close)
            store = PostgresStore(ground.database, fingerprint="")  # for cursors only
            chance = random.Random()  # noqa: S311 - spreads retries, keeps no secret
            about = (ground.log, store, ground.database, ground.clock, chance, *keys, poster, ground.logger)
            return SERVICE, World(*about, Instruments(ground.metrics), pace_ppm=settings.webhook_pace_ppm)

        await host(SERVICE.name, ROOMS, build, running)


def main() -> None:
    process.run(serve)


if __name__ == "__main__":
    main()
