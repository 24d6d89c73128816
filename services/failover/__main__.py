"""The failover service's process. The rooms as one value are in `rooms.py`."""

from functools import partial

from libs import config, process
from libs.hosting import Ground, host
from libs.runtime.service import Service
from proto.failover.words import Limits
from services.failover.config import FailoverConfig
from services.failover.effects import World
from services.failover.queries import choosers_of, settings_of
from services.failover.rooms import ROOMS, SERVICE


async def serve(running: process.Running) -> None:
    chosen = config.read(FailoverConfig)
    limits = Limits(
        failovers_per_day_max=chosen.failovers_per_day_max,
        spacing_s=chosen.failover_spacing_s,
        breaker_failures_max=chosen.breaker_failures_max,
        breaker_open_s=chosen.breaker_open_s,
    )

    async def build(ground: Ground) -> tuple[Service, World]:
        settings, choosers = partial(settings_of, ground.recent, ground.database), partial(choosers_of, ground.database)
        return SERVICE, World(settings, ground.clock, limits, choosers)

    await host(SERVICE.name, ROOMS, build, running)


def main() -> None:
    process.run(serve)


if __name__ == "__main__":
    main()
