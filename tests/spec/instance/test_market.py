"""Which offers fit a wish, and in which order they are tried (contract dumont 1, novita A7)."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from proto.instance.words import MachineSpec, Offer
from services.instance.decider.market import CANDIDATES_MAX, Choice, Stock, choose, is_in_region, parse_gpu
from tests.spec.instance.controls import OFFER, SPEC


def offer(number: int, **changes: Any) -> Offer:
    return replace(OFFER, offer_id=f"offer_{number}", host_id=f"host_{number}", **changes)


def chosen(offers: list[Offer], spec: MachineSpec = SPEC, **options: Any) -> Choice:
    return choose(spec, Stock(offers), **{"blocked": set(), "known_models": set(), **options})


def ids(choice: Choice) -> list[str]:
    return [offer.offer_id for offer in choice.offers]


@pytest.mark.parametrize("name", ["RTX 4090", "RTX_4090", "rtx-4090", "NVIDIA GeForce RTX 4090", "rtx4090"])
def test_a_gpu_has_one_name_in_every_spelling(name: str) -> None:
    assert parse_gpu(name) == ("RTX4090", 0)


def test_a_size_in_the_name_is_memory_and_not_part_of_the_model() -> None:
    assert parse_gpu("RTX 4090 24GB") == ("RTX4090", 24)
    assert parse_gpu("A100_80GB") == ("A100", 80)


def test_a_size_tells_two_sizes_of_one_model_apart_and_no_size_takes_both() -> None:
    offers = [offer(1, gpu="A100 40GB", gpu_memory_gb=40), offer(2, gpu="A100", gpu_memory_gb=80)]
    assert ids(chosen(offers, replace(SPEC, gpu="A100 80GB"))) == ["offer_2"]
    assert ids(chosen(offers, replace(SPEC, gpu="A100"))) == ["offer_1", "offer_2"]


def test_a_model_nobody_ever_offered_is_unknown_and_a_sold_out_one_is_not() -> None:
    assert chosen([], known_models=set()).code == "PRODUCT_NOT_FOUND"
    assert chosen([], known_models={"RTX4090"}).code == "NO_AVAILABLE_PRODUCTS"


@pytest.mark.parametrize(
    "misfit",
    [
        {"billing": "on_demand"},
        {"gpu_count": 0},
        {"disk_gb": 10},
        {"price_usd_micros_per_hour": 1_000_001},
        {"host_id": "host_blocked"},
    ],
)
def test_an_offer_that_does_not_fit_is_no_candidate(misfit: dict[str, Any]) -> None:
    spec = replace(SPEC, price_usd_micros_per_hour_max=1_000_000)
    unfit = replace(offer(1), **misfit)
    assert chosen([unfit], spec, blocked={("sandbox", "host_blocked")}).code == "NO_AVAILABLE_PRODUCTS"


def test_the_preferred_region_comes_first_then_the_fallback_order_then_the_price() -> None:
    offers = [
        offer(1, region="US-CA-06", price_usd_micros_per_hour=1),
        offer(2, region="AS-SGP-02", price_usd_micros_per_hour=9),
        offer(3, region="CN-HK-01", price_usd_micros_per_hour=8),
        offer(4, region="CN-HK-01", price_usd_micros_per_hour=7),
    ]
    assert ids(chosen(offers)) == ["offer_4", "offer_3", "offer_2", "offer_1"]


def test_without_a_region_the_cheapest_comes_first() -> None:
    offers = [offer(1, price_usd_micros_per_hour=9), offer(2, region="EU-DE-01", price_usd_micros_per_hour=8)]
    assert ids(chosen(offers, replace(SPEC, region=""))) == ["offer_2", "offer_1"]


def test_no_more_gpus_than_asked_for_while_there_are_such_offers() -> None:
    offers = [offer(1, gpu_count=4, price_usd_micros_per_hour=1), offer(2, gpu_count=2)]
    assert ids(chosen(offers, replace(SPEC, gpu_count=2))) == ["offer_2", "offer_1"]


def test_candidates_are_few_and_on_different_hosts() -> None:
    offers = [replace(offer(number), host_id=f"host_{number // 2}") for number in range(20)]
    candidates = chosen(offers).offers
    assert len({candidate.host_id for candidate in candidates}) == len(candidates) == CANDIDATES_MAX


def test_a_chosen_offer_stands_alone_even_on_a_blocked_host() -> None:
    choice = chosen([offer(1), offer(2)], offer_id="offer_2", blocked={("sandbox", "host_2")})
    assert ids(choice) == ["offer_2"]
    assert chosen([offer(1)], offer_id="offer_9").code == "OFFER_UNAVAILABLE"


def test_a_continent_stands_for_its_regions() -> None:
    assert is_in_region("EU-DE-01", "EU")
    assert is_in_region("AS-IN-01", "asia")
    assert not is_in_region("US-CA-06", "EU")
    assert not is_in_region("US-CA-06", "Atlantis")


def test_what_a_host_has_is_ranked_as_it_is_among_all() -> None:
    offers = [replace(offer(number), host_id=f"host_{number % 3}") for number in range(9)]
    offers += [replace(offer(20, gpu="A100"), host_id="host_1"), replace(offer(21, kind="cpu"), host_id="host_1")]
    offers = [replace(each, price_usd_micros_per_hour=1_000 * (20 - at)) for at, each in enumerate(offers)]
    stock = Stock(offers)
    for host_id in ("host_0", "host_1", "host_9"):
        assert stock.ranked_on_host(SPEC, host_id) == tuple(o for o in stock.ranked(SPEC) if o.host_id == host_id)
    assert len(stock.ranked_on_host(SPEC, "host_1")) == 3


def test_when_a_standby_is_to_be_beside_it_a_host_with_room_goes_before_a_cheaper_one() -> None:
    cheap, one = offer(1), offer(2)
    two = replace(offer(3, gpu_count=2), host_id=one.host_id)
    assert ids(chosen([cheap, one, two])) == [cheap.offer_id, one.offer_id]
    assert ids(chosen([cheap, one, two], host_gpus_min=2)) == [one.offer_id, cheap.offer_id], (
        "the rest is kept for when that host is gone"
    )
