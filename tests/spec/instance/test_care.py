"""How an account wants its machines watched and replaced: the newest word counts, and what it comes to."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.base import Heard
from proto.failover.events import CareChanged
from proto.instance.care import CareNoted, NoteCare
from services.instance.decider import ACCOUNT as AGGREGATE
from services.instance.decider.gpu_search import choose_preferred, choose_return
from services.instance.decider.market import Stock
from services.instance.policy import react
from services.instance.queries import cares
from tests.spec.instance.controls import ACCOUNT, NOW, OFFER, SPEC

CARE = NoteCare(now=NOW, account_id=ACCOUNT, health_check_s=2, heartbeat_misses_max=5, gpu_names=("A6000",))
NOTED = CareNoted(account_id=ACCOUNT, health_check_s=2, heartbeat_misses_max=5, gpu_names=("A6000",), said_at=NOW)
LOST = replace(OFFER, gpu_memory_gb=24, price_usd_micros_per_hour=700_000)
OTHER = replace(LOST, gpu="A6000", gpu_memory_gb=48, region="US-CA-06", billing=SPEC.billing)
STOCK = Stock(
    replace(OTHER, offer_id=name, host_id=f"host_{name}", **changes)
    for name, changes in {
        "near": {"region": SPEC.region},
        "far": {},
        "titan": {"gpu": "TITAN"},
        "small": {"gpu_memory_gb": 16},
        "dear": {"price_usd_micros_per_hour": 700_001},
        "3090": {"gpu": "RTX 3090", "gpu_memory_gb": 24},
    }.items()
)


def test_what_the_failover_settings_say_is_noted_once_and_an_older_word_is_no_news() -> None:
    said = CareChanged(account_id=ACCOUNT, health_check_s=2, heartbeat_misses_max=5, gpu_names=("A6000",))
    assert list(react(Heard(said, "cmt_1.0", ACCOUNT, NOW, "PUB", 1))) == [CARE]
    older = replace(CARE, now=NOW - timedelta(seconds=1), health_check_s=9)
    same = replace(CARE, now=NOW + timedelta(seconds=1))
    spec(AGGREGATE).given().when(CARE).then(NOTED).when(CARE, older, same).then_nothing()


def test_every_word_twice_is_once() -> None:
    commands = st.builds(
        NoteCare,
        now=st.integers(0, 3).map(lambda s: NOW + timedelta(seconds=s)),
        account_id=st.just(ACCOUNT),
        health_check_s=st.integers(0, 2),
    )
    every_command_twice_is_once(AGGREGATE, commands, examples_max=30)


@pytest.mark.parametrize(
    ("check_s", "pace_s"),
    [(None, 30.0), (0, 30.0), (10, 30.0), (60, 30.0), (9, 9.0), (1, 1.0)],
)
def test_agents_report_as_often_as_their_account_wants_machines_looked_at(check_s: int | None, pace_s: float) -> None:
    assert cares.pace_s(check_s, heartbeat_s=30.0, poll_s=10.0) == pace_s


def ids(found: tuple) -> list[str]:
    return [offer.offer_id for offer in found]


def test_what_else_will_do_comes_in_the_order_of_the_account_and_nothing_else_does() -> None:
    def chosen(*names: str, is_bound_to_region: bool = False) -> list[str]:
        found = choose_preferred(SPEC, LOST, STOCK, names=names, blocked=set(), is_bound_to_region=is_bound_to_region)
        return ids(found)

    assert chosen("RTX_3090", "a6000") == ["3090", "near", "far"]
    assert chosen("A6000", "RTX_3090") == ["near", "far", "3090"]
    assert chosen("A6000", is_bound_to_region=True) == ["near"]
    assert chosen() == []


def test_on_the_way_back_what_the_account_prefers_comes_before_what_else_will_do() -> None:
    found = choose_return(SPEC, LOST, STOCK, names=("TITAN",), blocked=set(), known_models=set())
    assert ids(found.offers)[0] == "titan"
    assert set(ids(found.offers)) == {"titan", "near", "far", "3090"}
