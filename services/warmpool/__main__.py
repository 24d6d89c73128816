"""The warm pool service's process. The rooms as one value are in `rooms.py`; it needs nothing of the outside."""

from libs import process
from libs.hosting import Ground, host
from libs.runtime.service import Service
from services.warmpool.rooms import ROOMS, SERVICE


async def build(_ground: Ground) -> tuple[Service, None]:
    return SERVICE, None


async def serve(running: process.Running) -> None:
    await host(SERVICE.name, ROOMS, build, running)


def main() -> None:
    process.run(serve)


if __name__ == "__main__":
    main()
