"""What a lost machine may be replaced by, as the market and the account's settings stand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

from msgspec.structs import replace

from libs.config import Secret
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Row
from libs.sim.chance import CALM, Chance
from libs.sim.life import Life
from libs.spec.hand_clock import HandClock
from libs.telemetry import logger
from proto.instance.commands import ReplaceMachine
from proto.instance.words import Offer
from services.instance.effects.intake import with_offers_for_replacement
from services.instance.effects.world import World
from tests.sim.rows import RowsDatabase
from tests.spec.instance.controls import ACCOUNT, NOW, OFFER, SPEC

HERE, ELSEWHERE = "US-CA-06", "EU-DE-01"
LOST = replace(OFFER, gpu_memory_gb=24, region=HERE)
SAME_ELSEWHERE = replace(LOST, offer_id="same", host_id="host_same", region=ELSEWHERE)
OTHER_HERE = replace(LOST, offer_id="other", host_id="host_other", gpu="A6000", gpu_memory_gb=48)
OTHER_ELSEWHERE = replace(OTHER_HERE, offer_id="far", host_id="host_far", region=ELSEWHERE)
REPLACE = ReplaceMachine(
    now=NOW,
    instance_id="inst_1",
    machine_id="mach_2",
    replaces="mach_1",
    failover_id="fo_1",
    give_up_at=NOW,
    rung="regional_volume",
)
ROWS = (
    Row("instances", {"instance_id": "inst_1"}, {"account_id": ACCOUNT, "spec": SPEC, "volume": {"region": HERE}}),
    Row("machines", {"machine_id": "mach_1"}, {"instance_id": "inst_1", "role": "primary", "generation": 1,
                                               "offer": LOST}),
    Row("cares", {"account_id": ACCOUNT}, {"health_check_s": 0, "gpu_names": ["A6000"]}),
)  # fmt: skip


class Cloud:
    """Sells what it is told to."""

    def __init__(self, *for_sale: Offer) -> None:
        self.for_sale = for_sale

    async def offers(self) -> Sequence[Offer]:
        return self.for_sale


async def candidates(command: ReplaceMachine, *for_sale: Offer) -> tuple[Offer, ...]:
    store = MemoryStore()
    await store.project(ROWS, after_seq=0, seq=1)
    rows = cast("Any", RowsDatabase(store, Life("instance", 1, Chance(1, replace(CALM, delay_share=0.0)))))
    around = {"gateway_url": "", "http": cast("Any", None), "pool": rows, "logger": logger("instance")}
    world = World({"cloud": cast("Any", Cloud(*for_sale))}, HandClock(NOW), random.Random(1), Secret("00"), **around)
    return (await with_offers_for_replacement(command, world)).offers


async def test_a_volume_takes_another_model_of_its_region_though_its_own_is_to_be_had_elsewhere() -> None:
    assert await candidates(REPLACE, SAME_ELSEWHERE, OTHER_ELSEWHERE, OTHER_HERE) == (OTHER_HERE,)
    assert await candidates(REPLACE, SAME_ELSEWHERE, OTHER_HERE, LOST) == (LOST,)
    assert await candidates(REPLACE, SAME_ELSEWHERE, OTHER_ELSEWHERE) == ()


async def test_a_copy_goes_wherever_the_model_is_to_be_had() -> None:
    from_storage = replace(REPLACE, rung="cloud_storage")
    assert await candidates(from_storage, OTHER_HERE, SAME_ELSEWHERE) == (SAME_ELSEWHERE,)
    assert await candidates(from_storage, OTHER_HERE) == (OTHER_HERE,)
