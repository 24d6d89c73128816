"""A customer with thousands of running things: metered to the last, in commits that fit, and loaded from one fact."""

from __future__ import annotations

import sys

import msgspec
import pytest
from msgspec.structs import replace

from libs.money import cost_micros
from libs.refusal import Refused
from libs.runtime.codec import encode_commit
from proto.base import COMMIT_BYTES_MAX, Command, Event
from proto.billing.events import BroughtForward
from proto.billing.ledger import Boundary, Meter
from services.billing.decider.account import ACCOUNT, RUNNING_MAX
from services.billing.decider.charging import METERS_MAX
from services.billing.decider.folding import PRUNE_SHARE
from services.billing.decider.metering import CROWDED_METERS
from services.billing.decider.packing import NotALedger, pack, unpack
from services.billing.decider.state import Account, added_up
from tests.spec.billing.ledgers import GPU_PRICE, at, bought, end, hold, rate, revenue, run, tick

HOUR = 3_600
RICH = run([bought(900_000)])


def name(number: int) -> str:
    """As long as real ids, and as little alike."""
    return f"inst_{number * 2_654_435_761 % 2**32:026x}"


def runs(number: int) -> Boundary:
    return Boundary(at(number % 60), GPU_PRICE, f"mach{name(number)}")


def with_meters(count: int) -> Account:
    meters = {
        name(number): Meter(
            name(number),
            name(number),
            "gpu",
            "RTX 4090",
            (Boundary(at(number % 60), GPU_PRICE, f"mach{name(number)}"),),
        )
        for number in range(count)
    }
    return added_up(replace(RICH, meters=meters, charged_until=at(60), newest_fact_at=at(60)))


def commit_bytes(events: list[Event]) -> int:
    return len(encode_commit("cmt_1", 1, at(0), events, cause="x" * 80, correlation="x" * 80, trace="x" * 80))


def test_the_end_of_a_day_with_all_that_may_run_fits_a_commit_with_the_whole_account():
    """14:00 UTC is the end of the stories' day."""
    for weight in (0, METERS_MAX):
        full = replace(with_meters(METERS_MAX), weight=weight)
        events = list(ACCOUNT.decide(full, tick(14 * HOUR)))
        assert commit_bytes(events) < COMMIT_BYTES_MAX
    half = replace(with_meters(RUNNING_MAX), weight=RUNNING_MAX)
    events = list(ACCOUNT.decide(half, tick(HOUR)))
    assert isinstance(events[0], BroughtForward)
    assert commit_bytes(events) < COMMIT_BYTES_MAX


def test_an_account_is_packed_when_it_is_large_and_comes_back_as_it_was():
    small, large = with_meters(10), with_meters(RUNNING_MAX)
    assert not pack(small).packed
    for ledger in (small, large):
        read_back = msgspec.json.decode(msgspec.json.encode(pack(ledger)), type=BroughtForward)
        assert ACCOUNT.evolve(Account(), read_back) == ledger
    with pytest.raises(NotALedger):
        unpack(replace(pack(large), packed=pack(large).packed[:-8]))


def test_a_start_beyond_the_limit_is_refused_and_what_runs_is_metered_on():
    full = with_meters(RUNNING_MAX)
    with pytest.raises(Refused) as refused:
        ACCOUNT.decide(full, hold(1, "inst_more", seconds=61))
    assert (refused.value.code, refused.value.facts["limit"]) == ("QUOTA_EXCEEDED", RUNNING_MAX)
    standby = rate(70, GPU_PRICE, instance_id=name(1), meter_id="mach_standby", line="warm_pool")
    assert "mach_standby" in run([standby], full).meters
    assert "inst_more" in run([end(62, name(1)), hold(1, "inst_more", seconds=63)], full).holds


def test_where_thousands_come_and_go_what_has_ended_is_forgotten_within_the_hour_and_never_charged_again():
    ended = {
        key: replace(meter, boundaries=(*meter.boundaries, Boundary(at(100), 0)))
        for key, meter in with_meters(CROWDED_METERS + 1).meters.items()
    }
    ledger = added_up(replace(RICH, meters=ended, charged_until=at(200), newest_fact_at=at(200)))
    starts = CROWDED_METERS // PRUNE_SHARE + 16  # facts that pay for a look at all that have ended, and at themselves
    ledger = run([rate(2 * HOUR + n, GPU_PRICE, instance_id=f"inst_{n}") for n in range(starts)], ledger)
    assert len(ledger.meters) <= starts
    assert ledger.forgotten_until is not None
    again = [rate(number % 60, GPU_PRICE, instance_id=name(number), now=3 * HOUR) for number in range(50)]
    stops = [rate(3 * HOUR, 0, instance_id=f"inst_{n}") for n in range(starts)]
    ledger = run([*again, *stops, *again, tick(4 * HOUR)], ledger)
    assert revenue(ledger) == sum(cost_micros(HOUR - n, GPU_PRICE) for n in range(starts))


def calls_of(ledger: Account, wish: Command) -> int:
    """How many calls it takes to decide and fold, on any machine. A copy of a dict is none."""
    calls = 0

    def count(_frame: object, what: str, _argument: object) -> None:
        nonlocal calls
        calls += what == "call"

    sys.setprofile(count)
    try:
        for event in ACCOUNT.decide(ledger, wish):
            ledger = ACCOUNT.evolve(ledger, event)
    finally:
        sys.setprofile(None)
    return calls


def test_a_wish_takes_as_many_steps_whether_ten_things_run_or_thousands():
    started = rate(61, GPU_PRICE, instance_id="inst_more")
    wishes = [hold(1, "inst_more", seconds=61), started, rate(90, 0, instance_id=name(1)), end(90, name(2))]
    few, many = (run([tick(60.5)], with_meters(count)) for count in (10, 3_000))
    assert many.stage == "ok"
    for wish in wishes:
        assert calls_of(many, wish) == calls_of(few, wish) > 0
