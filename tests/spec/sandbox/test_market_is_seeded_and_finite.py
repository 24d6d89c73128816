"""The sandbox's market: the same seed shows the same world, and what is rented is gone."""

from __future__ import annotations

import pytest

from libs.tokens import AgentIdentity, check_agent_token, mint_agent_token
from services.agent.answers import Answer, read_answer
from services.sandbox.market import MODELS, REGIONS, Market
from services.sandbox.options import BadOptions, Options, decode

NOON_S = 1_800_000_000.0


def test_one_seed_shows_one_market_at_one_instant():
    assert Market(Options()).offers(NOON_S) == Market(Options()).offers(NOON_S)
    assert Market(Options()).offers(NOON_S) != Market(Options(seed=2)).offers(NOON_S)


def test_prices_and_capacity_move_with_time():
    market = Market(Options())
    assert market.offers(NOON_S) != market.offers(NOON_S + 3_600)


def test_every_model_exists_in_every_region():
    hosts = Market(Options()).hosts.values()
    assert {(host.model.name, host.region) for host in hosts if host.kind == "gpu"} == {
        (model.name, region) for model in MODELS for region in REGIONS
    }


@pytest.mark.parametrize(("options", "gpus"), [(Options(), 200), (Options(virtual=True), 2_000)])
def test_a_market_is_large_enough_at_any_time(options: Options, gpus: int):
    market = Market(options)
    assert all(market.rentable() >= gpus for hour in range(48) if market.offers(NOON_S + hour * 3_600))


def test_a_rented_slot_is_offered_to_nobody_else_until_it_is_given_back():
    market = Market(Options(outside_demand_ppm=0))
    host = next(host for host in market.hosts.values() if host.slots == 2)
    assert market.take(host.host_id, 2, NOON_S)
    assert not market.take(host.host_id, 1, NOON_S)
    assert not any(offer.host_id == host.host_id for offer in market.offers(NOON_S))
    market.give_back(host.host_id, 2)
    assert market.take(host.host_id, 1, NOON_S)


def test_spot_is_cheaper_than_on_demand_on_the_same_host():
    prices = {(offer.host_id, offer.gpu_count, offer.billing): offer for offer in Market(Options()).offers(NOON_S)}
    for (host_id, count, billing), offer in prices.items():
        if billing == "spot":
            dear = prices[host_id, count, "on_demand"]
            assert 0 < offer.price_usd_micros_per_hour < dear.price_usd_micros_per_hour


@pytest.mark.parametrize(
    "offer_id", ["", "host-0000", "host-0000.3.spot", "host-0000.1.free", "host-0000.².spot", "x.1.spot"]
)
def test_an_offer_id_that_was_never_offered_means_nothing(offer_id: str):
    assert Market(Options()).lot(offer_id) is None


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"sed": 1}', '{"create_failure_ppm": 1000001}', '{"boot_delay_ms": {"min": 2, "max": 1}}']
)
def test_options_that_cannot_be_are_refused(text: str):
    with pytest.raises(BadOptions):
        decode(text)


def test_a_token_speaks_for_one_instance_in_one_generation():
    token = mint_agent_token("secret", machine_id="mach_1", instance_id="inst_1", generation=3)
    assert check_agent_token("secret", token, instance_id="inst_1") == AgentIdentity("mach_1", "inst_1", 3)
    assert check_agent_token("secret", token, instance_id="inst_2") is None
    assert check_agent_token("other", token, instance_id="inst_1") is None
    for forged in (
        token.replace(".3.", ".4."),
        token.replace(".3.", ".03."),
        token.upper(),
        token + "0",
        "",
        "x" * 5_000,
    ):
        assert check_agent_token("secret", forged, instance_id="inst_1") is None


def test_both_forms_of_an_answer_are_understood():
    said = b'{"action":"prepare_hibernate","commands":["restart",{"command":"dance"}],"next_heartbeat_in":9e9}'
    assert read_answer(b'{"success":true,"data":' + said + b"}") == Answer(
        ("prepare_hibernate", "restart"), ("dance",), 300.0
    )
    assert read_answer(b'{"received":true,"action":"shutdown"}') == Answer(("shutdown",))
    for nonsense in (b"", b"<html>", b"[]", b'{"data":{"commands":7}}'):
        assert read_answer(nonsense) == Answer()
