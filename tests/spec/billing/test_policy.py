"""Which facts move which meter: each kind of thing has a line of its own, and a hibernated instance costs storage."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec.structs import replace

from proto.base import Event, Heard
from proto.billing.commands import NoteRate
from proto.instance.events import (
    InstanceDeleted,
    InstanceHibernated,
    InstanceInterrupted,
    InstanceReady,
    InstanceRecovering,
    InstanceStarting,
    InstanceStopping,
    InstanceWaking,
    StandbyFailed,
    StandbyReady,
    VolumeAttached,
    VolumeGivenUp,
)
from proto.instance.return_events import HandedOver
from proto.warmpool.events import StandbyReleased
from services.billing.decider.state import Account
from services.billing.policy import react
from tests.spec.billing.ledgers import ACCOUNT_ID, GPU_PRICE, at, bought, revenue, run, tick

ABOUT = {"instance_id": "inst_a", "account_id": ACCOUNT_ID, "name": "a", "gpu": "RTX 4090"}
OF = {"instance_id": "inst_a", "account_id": ACCOUNT_ID}
HOUR = 3_600
READY = InstanceReady(
    **ABOUT, machine_id="mach_1", generation=1, endpoints=(), ready_at=at(0), price_usd_micros_per_hour=GPU_PRICE
)
ON_CPU = replace(
    READY, machine_id="mach_cpu", generation=2, ready_at=at(HOUR), price_usd_micros_per_hour=20_000, on_cpu=True
)
STOPPING = InstanceStopping(**ABOUT)
LOST = InstanceInterrupted(**ABOUT, machine_id="mach_1", reason="spot_preemption")
RECOVERING = InstanceRecovering(**ABOUT, machine_id="mach_hot", generation=2, failover_id="fo_1")
ON_CPU_NEXT = replace(RECOVERING, machine_id="mach_cpu", rung="cpu_standby")
STANDBY = StandbyReady(
    **OF, machine_id="mach_hot", host_id="host_1", volume_id="vol_1", mode="hot",
    price_usd_micros_per_hour=50_000, volume_gb=100,
)  # fmt: skip
CPU = replace(STANDBY, machine_id="mach_cpu", price_usd_micros_per_hour=20_000, role="cpu_standby")
CPU_GONE = StandbyFailed(**OF, machine_id="mach_cpu", reason="instance_stopped", role="cpu_standby")
ASLEEP = InstanceHibernated(
    **ABOUT, snapshot_id="snap_1", idle_seconds=900, price_usd_micros_per_hour=GPU_PRICE, hibernated_at=at(HOUR),
    bytes=2_000_000_001, volume_id="vol_1",
)  # fmt: skip
WAKING = InstanceWaking(**ABOUT, snapshot_id="snap_1", waking_at=at(3 * HOUR))


def wishes(said: Iterable[tuple[float, Event]]) -> list[NoteRate]:
    """What the ledger makes of facts, with a GB at 100 (volume) and 10 (storage) micros an hour, as its intake does."""
    found = [wish for seconds, event in said for wish in react(heard(event, at(seconds)))]
    return [  # type: ignore[return-value]
        replace(wish, rate_usd_micros_per_hour=100 * wish.volume_gb + 10 * wish.stored_gb)
        if isinstance(wish, NoteRate) and (wish.volume_gb or wish.stored_gb)
        else wish
        for wish in found
    ]


def heard(event: Event, when: datetime) -> Heard:
    return Heard(event, "cmt_1.0", "inst_a", when, "PUB", 1)


def ledger(*said: tuple[float, Event], until: float) -> Account:
    return run([bought(100), *wishes(said), tick(until)])


def lines(found: Account) -> tuple[int, int, int, int]:
    """What was charged for GPU, CPU standby, volume and warm pool."""
    return revenue(found), revenue(found, "cpu_standby"), revenue(found, "volume"), revenue(found, "warm_pool")


def test_a_machine_costs_from_ready_until_it_stops():
    assert lines(ledger((0, READY), (HOUR, STOPPING), until=2 * HOUR)) == (GPU_PRICE, 0, 0, 0)


def test_a_hot_standby_and_its_volume_are_lines_of_their_own():
    said = ((0, READY), (0, STANDBY), (HOUR, StandbyReleased(**OF, machine_id="mach_hot", reason="disabled")))
    assert lines(ledger(*said, until=2 * HOUR)) == (2 * GPU_PRICE, 0, 20_000, 50_000)


def test_a_stopped_standby_costs_its_volume_only():
    assert lines(ledger((0, replace(STANDBY, mode="stopped")), until=HOUR)) == (0, 0, 10_000, 0)


def test_a_standby_that_takes_over_is_no_standby_any_more():
    promoted = replace(READY, machine_id="mach_hot", generation=2, ready_at=at(2 * HOUR))
    failover = ((0, READY), (0, STANDBY), (HOUR, LOST), (HOUR, RECOVERING), (2 * HOUR, promoted))
    started = InstanceStarting(**ABOUT, machine_id="mach_hot", on_standby=True)
    by_hand = ((0, READY), (0, STANDBY), (HOUR, LOST), (HOUR, started), (2 * HOUR, promoted))
    for said in (failover, by_hand):
        assert lines(ledger(*said, until=3 * HOUR)) == (2 * GPU_PRICE, 0, 30_000, 50_000)


def test_a_late_machine_of_an_old_generation_is_not_billed_as_the_primary():
    """Its `ready` may be heard after that of its successor, whose price holds; and never are two primaries charged."""
    successor = replace(
        READY, machine_id="mach_2", generation=2, ready_at=at(2 * HOUR), price_usd_micros_per_hour=1_000
    )
    in_time = ((0, READY), (HOUR, LOST), (2 * HOUR, successor))
    late = (*in_time, (2 * HOUR, READY), (3 * HOUR, READY))
    for said in (in_time, late):
        assert lines(ledger(*said, until=4 * HOUR)) == (GPU_PRICE + 2 * 1_000, 0, 0, 0)


def test_a_cpu_standby_has_its_line_whether_it_waits_or_carries_the_instance():
    waits = ((0, READY), (0, CPU), (HOUR, LOST), (HOUR, ON_CPU_NEXT))
    assert lines(ledger(*waits, until=2 * HOUR)) == (GPU_PRICE, 20_000, 0, 0)
    by_hand = InstanceStarting(**ABOUT, machine_id="mach_cpu", on_standby=True, on_cpu=True)
    started = ((0, READY), (0, CPU), (HOUR, LOST), (HOUR, by_hand), (HOUR, ON_CPU))
    assert lines(ledger(*started, until=2 * HOUR)) == (GPU_PRICE, 40_000, 0, 0)
    carries = (*waits, (HOUR, ON_CPU), (3 * HOUR, replace(STOPPING, on_cpu=True)))
    assert lines(ledger(*carries, until=4 * HOUR)) == (GPU_PRICE, 60_000, 0, 0)
    back = (*carries, (4 * HOUR, replace(READY, machine_id="mach_2", generation=3, ready_at=at(4 * HOUR))))
    assert lines(ledger(*back, until=5 * HOUR)) == (2 * GPU_PRICE, 60_000, 0, 0)
    handed_over = HandedOver(
        **OF, cpu_name="mach_cpu", machine_id="mach_3", generation=3, captured_at=at(3 * HOUR), files=1, bytes=1
    )
    gpu_again = replace(READY, machine_id="mach_3", generation=3, ready_at=at(4 * HOUR))
    returned = (*waits, (HOUR, ON_CPU), (3 * HOUR, handed_over), (4 * HOUR, gpu_again), (4 * HOUR, CPU))
    assert lines(ledger(*returned, until=5 * HOUR)) == (2 * GPU_PRICE, 80_000, 0, 0)
    given_back = ((0, READY), (0, CPU), (HOUR, STOPPING), (HOUR, CPU_GONE))
    assert lines(ledger(*given_back, until=2 * HOUR)) == (GPU_PRICE, 20_000, 0, 0)


def test_hibernated_an_instance_costs_the_storage_of_its_files_and_nothing_else():
    """Three started GB for two hours; the volume was given back; awake again it is the GPU that costs."""
    asleep = ((0, READY), (0, replace(STANDBY, mode="stopped")), (HOUR, ASLEEP))
    assert lines(ledger(*asleep, until=3 * HOUR)) == (GPU_PRICE, 0, 10_000 + 2 * 30, 0)
    woken = (*asleep, (3 * HOUR, WAKING), (4 * HOUR, replace(READY, ready_at=at(4 * HOUR))))
    assert lines(ledger(*woken, until=5 * HOUR)) == (2 * GPU_PRICE, 0, 10_060, 0)
    deleted = (*asleep, (3 * HOUR, InstanceDeleted(**ABOUT)))
    assert lines(ledger(*deleted, until=9 * HOUR)) == (GPU_PRICE, 0, 10_060, 0)


def test_lines_do_not_depend_on_the_order_in_which_facts_are_heard():
    lost_again = replace(LOST, machine_id="mach_cpu", on_cpu=True)
    said = ((0, READY), (0, CPU), (HOUR, LOST), (HOUR, ON_CPU_NEXT), (HOUR, ON_CPU), (2 * HOUR, lost_again))
    assert lines(ledger(*reversed(said), until=3 * HOUR)) == lines(ledger(*said, until=3 * HOUR)) == (
        GPU_PRICE, 40_000, 0, 0,
    )  # fmt: skip


def test_a_volume_of_a_region_runs_from_its_attachment_until_it_is_given_up() -> None:
    attached = VolumeAttached(
        **OF,
        machine_id="mach_1",
        volume_id="vol_1",
        provider="sandbox",
        region="EU-DE-01",
        size_gb=50,
        name="mach_1",
    )
    (on,) = react(heard(attached, at(0)))
    (off,) = react(heard(VolumeGivenUp(**OF, volume_id="vol_1", reason="moved"), at(HOUR)))
    assert isinstance(on, NoteRate)
    assert isinstance(off, NoteRate)
    assert (on.meter_id, on.line, on.volume_gb, on.at) == ("vol_1", "volume", 50, at(0))
    assert on.machine_id == "vol_1", "what its provider charges for it is compared with this"
    assert (off.meter_id, off.line, off.volume_gb, off.rate_usd_micros_per_hour) == ("vol_1", "volume", 0, 0)
