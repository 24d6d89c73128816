"""The warm pool service's process. The rooms as one value are in `rooms.py`."""

from functools import partial

from libs import process
from libs.hosting import Ground, host
from libs.runtime.service import Service
from services.warmpool.effects import World
from services.warmpool.queries import pools_of
from services.warmpool.rooms import ROOMS, SERVICE


async def build(ground: Ground) -> tuple[Service, World]:
    return SERVICE, World(partial(pools_of, ground.database))


async def serve(running: process.Running) -> None:
    await host(SERVICE.name, ROOMS, build, running)


def main() -> None:
    process.run(serve)


if __name__ == "__main__":
    main()
