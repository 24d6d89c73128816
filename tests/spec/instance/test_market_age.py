"""How old what is known of the market may be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

from msgspec.structs import replace

from libs.config import Secret
from libs.spec.hand_clock import HandClock
from libs.telemetry import logger
from proto.instance.words import Offer
from services.instance.effects.intake import offers_on_host
from services.instance.effects.world import World
from tests.spec.instance.controls import NOW, OFFER, SPEC

HERE = replace(OFFER, host_id="host_here")
ELSEWHERE = replace(OFFER, host_id="host_elsewhere")


class Cloud:
    """Sells what it is told to."""

    def __init__(self) -> None:
        self.for_sale: Sequence[Offer] = ()
        self.asked = 0

    async def offers(self) -> Sequence[Offer]:
        self.asked += 1
        return self.for_sale


def world_with(cloud: Cloud, clock: HandClock) -> World:
    nothing = cast("Any", None)  # neither HTTP nor a database is asked
    around = {"gateway_url": "", "http": nothing, "pool": nothing, "logger": logger("instance")}
    return World({"cloud": cast("Any", cloud)}, clock, random.Random(1), Secret("00"), **around)


async def test_a_host_that_was_full_a_second_ago_is_looked_at_again() -> None:
    cloud, clock = Cloud(), HandClock(NOW)
    world = world_with(cloud, clock)
    cloud.for_sale = [ELSEWHERE]
    assert await offers_on_host(SPEC, "host_here", world) == ()
    clock.wait(seconds=1)
    cloud.for_sale = [ELSEWHERE, HERE]  # a machine there was lost
    assert await offers_on_host(SPEC, "host_here", world) == (HERE,)
    assert cloud.asked == 2


async def test_a_thousand_who_find_their_hosts_full_ask_the_cloud_together() -> None:
    cloud, clock = Cloud(), HandClock(NOW)
    world = world_with(cloud, clock)
    for number in range(1_000):
        assert await offers_on_host(SPEC, f"host_{number}", world) == ()
    assert cloud.asked == 1
