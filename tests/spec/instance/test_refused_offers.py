"""What one machine was refused the next ones do not ask for: candidates are chosen when a machine is decided, and those
of a burst are rented long after the first of them are sold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from libs.config import Secret
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Job
from libs.sim.chance import CALM, Chance
from libs.sim.life import Life
from libs.spec.hand_clock import HandClock
from libs.telemetry import logger
from proto.base import Heard
from proto.instance.commands import ReportFailed, ReportRented
from proto.instance.events import MachineRequested
from proto.instance.words import BillingMode, Offer, Volume
from services.instance.decider import INSTANCE
from services.instance.decider.market import CANDIDATES_MAX, Stock
from services.instance.effects.intake import choose_offers
from services.instance.effects.renting import MARKET_ROUNDS_MAX, rent
from services.instance.effects.world import MARKET_AGE_MAX_S, World
from services.instance.providers import Capabilities, MachineOrder, OfferGone, ProviderMachine
from tests.sim.rows import RowsDatabase
from tests.spec.instance.controls import ACCOUNT, CREATE, NOW, OFFER, SPEC, after

HERE, ELSEWHERE = "CN-HK-01", "EU-DE-01"
SIZES = (1, 2, 4)
BILLINGS: Sequence[BillingMode] = ("spot", "on_demand")
CAPABILITIES = Capabilities(
    spot=True, regional_volumes=False, shared_volume=False, stopped_keeps_gpu=False, push_signals=False,
    idempotent_create=True, list_lag_s=0.0,
)  # fmt: skip


class Cloud:
    """Hosts with so many GPUs left, in the order of their prices. `offers` of one host overlap."""

    name = "sandbox"
    capabilities = CAPABILITIES

    def __init__(self, *gpus_left: int, region: str = HERE) -> None:
        self.left = dict(enumerate(gpus_left))
        self.regions = dict.fromkeys(self.left, region)
        self.asked = 0
        self.refused: list[str] = []

    async def offers(self) -> Sequence[Offer]:
        self.asked += 1
        listed = [an_offer(n, gpus, self.regions[n]) for n, left in self.left.items() for gpus in SIZES if gpus <= left]
        await asyncio.sleep(0)
        return listed

    async def create(self, order: MachineOrder) -> ProviderMachine:
        await asyncio.sleep(0)  # others order at the same time
        host = int(order.offer.host_id.removeprefix("host_"))
        if self.left[host] < order.offer.gpu_count:
            self.refused.append(order.offer.offer_id)
            raise OfferGone(order.offer.offer_id)
        self.left[host] -= order.offer.gpu_count
        return ProviderMachine(f"sb_{order.label}", order.label, "creating")


def an_offer(host: int, gpus: int = 1, region: str = HERE) -> Offer:
    name = f"host_{host}"
    price = gpus * (300_000 + host)
    return replace(
        OFFER, offer_id=f"{name}.{gpus}", host_id=name, gpu_count=gpus, region=region, price_usd_micros_per_hour=price
    )


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOW)


def world_of(cloud: Cloud, clock: HandClock) -> World:
    rows = cast("Any", RowsDatabase(MemoryStore(), Life("instance", 1, Chance(1, replace(CALM, delay_share=0.0)))))
    around = {"gateway_url": "", "http": cast("Any", None), "pool": rows, "logger": logger("instance")}
    return World({"sandbox": cast("Any", cloud)}, clock, random.Random(1), Secret("00"), **around)


async def decided(number: int, world: World, **changes: Any) -> Job:
    """A machine with the candidates that the market shows now, waiting to be rented."""
    choice = await choose_offers(changes.get("spec", SPEC), ACCOUNT, world)
    wish = replace(
        CREATE, now=world.clock.now(), instance_id=f"inst_{number}", machine_id=f"mach_{number}", offers=choice.offers
    )
    facts = after(replace(wish, **changes))
    state = None
    for fact in facts:
        state = INSTANCE.evolve(state, fact)
    requested = next(fact for fact in facts if isinstance(fact, MachineRequested))
    heard = Heard(requested, f"{number}.0", wish.instance_id, wish.now, "EVT_INSTANCE", number)
    return Job(heard, state, 1, maybe_done=False)


async def rented(job: Job, world: World) -> str:
    """What it was rented as; the code when it was not."""
    report = next(iter(await rent(job, world)))
    match report:
        case ReportRented(offer=offer):
            return offer.offer_id
        case ReportFailed(code=code):
            return code
        case _:
            raise AssertionError(report)


async def test_each_full_host_of_a_burst_refuses_once_and_the_cloud_is_asked_once(clock: HandClock) -> None:
    cloud = Cloud(*[10] * 30)
    world = world_of(cloud, clock)
    jobs = [await decided(number, world) for number in range(295)]
    assert {job.heard.event.offers for job in jobs} == {jobs[0].heard.event.offers}  # all decided on the same market
    hosts = [await rented(job, world) for job in jobs]
    assert hosts == [an_offer(number // 10).offer_id for number in range(295)]  # each the cheapest that was left
    assert cloud.refused == [an_offer(number).offer_id for number in range(29)]
    assert cloud.asked == 1


async def test_those_that_are_rented_at_once_are_all_rented_and_ask_the_cloud_together(clock: HandClock) -> None:
    cloud = Cloud(*[8] * 10, *[0] * 10)
    world = world_of(cloud, clock)
    jobs = [await decided(number, world) for number in range(96)]
    cloud.left |= dict.fromkeys(range(10, 20), 8)  # what the market in hand does not show
    offers = await asyncio.gather(*(rented(job, world) for job in jobs))
    assert sorted(offers) == sorted(an_offer(number // 8).offer_id for number in range(96))
    assert cloud.asked == 2


@pytest.mark.parametrize("gpus", [1, 2, 4])
async def test_machines_rented_at_once_do_not_take_each_others_last_gpus_while_there_are_others(
    clock: HandClock, gpus: int
) -> None:
    cloud = Cloud(*[gpus] * 100)
    world = world_of(cloud, clock)
    jobs = [await decided(number, world) for number in range(64)]
    offers = await asyncio.gather(*(rented(job, world) for job in jobs))
    assert "OFFER_UNAVAILABLE" not in offers
    assert len(cloud.refused) <= 64 * CANDIDATES_MAX  # those of the decision, and then each has its own
    assert cloud.asked == 1
    assert not world.market.gpus_ordered


async def test_what_has_come_back_is_found_when_the_cloud_is_asked_next(clock: HandClock) -> None:
    cloud = Cloud(1, 5)
    world = world_of(cloud, clock)
    first, second, third = [await decided(number, world) for number in range(3)]
    assert [await rented(job, world) for job in (first, second)] == ["host_0.1", "host_1.1"]
    cloud.left[0] = 1
    assert await rented(third, world) == "host_1.1"
    assert cloud.refused == ["host_0.1"]
    clock.wait(seconds=MARKET_AGE_MAX_S + 0.1)
    assert await rented(await decided(4, world), world) == "host_0.1"


async def test_what_a_newer_listing_does_not_show_is_not_asked_for(clock: HandClock) -> None:
    cloud = Cloud(1, 5)
    world = world_of(cloud, clock)
    job = await decided(1, world)
    cloud.left[0] = 0
    clock.wait(seconds=MARKET_AGE_MAX_S + 0.1)
    await decided(2, world)
    assert await rented(job, world) == "host_1.1"
    assert not cloud.refused


async def test_a_replica_whose_listing_is_older_than_the_decision_tries_the_candidates(clock: HandClock) -> None:
    cloud = Cloud(0, 5)
    other, world = world_of(cloud, clock), world_of(cloud, clock)
    await decided(1, world)
    cloud.left[0] = 1
    clock.wait(seconds=MARKET_AGE_MAX_S + 0.1)
    assert await rented(await decided(2, other), world) == "host_0.1"


async def test_a_chosen_offer_is_tried_though_others_were_refused_it(clock: HandClock) -> None:
    cloud = Cloud(1, 5)
    world = world_of(cloud, clock)
    chosen = {"offer_id": "host_0.1", "offers": (an_offer(0),)}
    jobs = [await decided(number, world, **chosen) for number in range(3)]
    assert [await rented(job, world) for job in jobs[:2]] == ["host_0.1", "OFFER_UNAVAILABLE"]
    cloud.left[0] = 1
    again = await choose_offers(SPEC, ACCOUNT, world, offer_id="host_0.1")
    assert again.offers == (an_offer(0),)
    assert await rented(jobs[2], world) == "host_0.1"


async def test_a_wish_is_not_refused_on_a_market_that_is_known_to_be_out_of_date(clock: HandClock) -> None:
    cloud = Cloud(1)
    world = world_of(cloud, clock)
    jobs = [await decided(number, world) for number in range(2)]
    assert [await rented(job, world) for job in jobs] == ["host_0.1", "OFFER_UNAVAILABLE"]
    cloud.left[0] = 1
    asked = cloud.asked
    world.market.stock.note_refused(an_offer(0))
    assert (await choose_offers(SPEC, ACCOUNT, world)).offers == (an_offer(0),)
    assert cloud.asked == asked + 1


async def test_what_is_sold_out_is_asked_for_once_by_a_thousand(clock: HandClock) -> None:
    cloud = Cloud(1)
    world = world_of(cloud, clock)
    jobs = [await decided(number, world) for number in range(1_000)]
    outcomes = await asyncio.gather(*(rented(job, world) for job in jobs))
    assert sorted(outcomes) == ["OFFER_UNAVAILABLE"] * 999 + ["host_0.1"]
    assert cloud.asked == 2


async def test_a_cloud_that_lists_what_it_refuses_is_not_asked_for_ever(clock: HandClock) -> None:
    cloud = Cloud(*[4] * 3)
    world = world_of(cloud, clock)
    job = await decided(1, world)

    async def refuse(order: MachineOrder) -> ProviderMachine:
        cloud.refused.append(order.offer.offer_id)
        raise OfferGone(order.offer.offer_id)

    cloud.create = refuse  # type: ignore[method-assign]
    assert await rented(job, world) == "OFFER_UNAVAILABLE"
    assert len(cloud.refused) == len(set(cloud.refused))  # nothing twice for one machine
    assert cloud.asked == 1 + MARKET_ROUNDS_MAX


async def test_a_volumes_region_that_is_full_in_the_market_in_hand_is_asked_for_anew(clock: HandClock) -> None:
    cloud = Cloud(1, *[9] * 9, region=ELSEWHERE)
    cloud.regions[0] = HERE
    world = world_of(cloud, clock)
    volume = Volume("vol_1", "sandbox", "", 10, region=HERE)
    jobs = [await decided(number, world) for number in range(3)]
    jobs = [Job(job.heard, replace(job.state, volume=volume), 1, maybe_done=False) for job in jobs]
    assert [await rented(job, world) for job in jobs[:2]] == ["host_0.1", "OFFER_UNAVAILABLE"]
    cloud.left[0] = 1
    world.market.stock.note_refused(an_offer(0))
    assert await rented(jobs[2], world) == "host_0.1"
    assert cloud.refused == ["host_0.1"]


def test_a_host_that_has_not_so_many_gpus_has_no_more_of_them_but_may_have_fewer() -> None:
    offers = [replace(an_offer(host, gpus), billing=mode) for host in (0, 1) for gpus in SIZES for mode in BILLINGS]
    stock = Stock(offers)
    assert not stock.has_refusals
    stock.note_refused(an_offer(0, 4))
    stock.note_refused(an_offer(0, 2))
    stock.note_refused(an_offer(0, 4))
    gone = [offer.offer_id for offer in offers if not stock.has(offer)]
    assert (gone, stock.has_refusals) == (["host_0.2", "host_0.4"], True)
    assert [offer for offer in offers if offer not in list(stock.left())] == [an_offer(0, 2), an_offer(0, 4)]
    assert stock.ranked_on_host(SPEC, "host_0") == (an_offer(0, 1),)
    assert not stock.has(an_offer(2))
    assert stock.has(replace(an_offer(2), provider="silent"))  # nothing of that cloud is listed
