"""What the sandbox charges: by the minute, up to the cent, late, and the same after a restart."""

from __future__ import annotations

from pathlib import Path

from services.sandbox.bills import Bills, machine_item, volume_item
from services.sandbox.records import Record, Volume

PRICE = 1_215_210


def a_record() -> Record:
    return Record(
        machine_id="sbx_1", label="mach_1", status="running", wanted="running", offer_id="o", host_id="h", gpu="H100",
        gpu_count=1, region="r", kind="gpu", billing="spot", price_usd_micros_per_hour=PRICE, created_at=0.0, image="i",
        slots=1,
    )  # fmt: skip


ITEM = machine_item(a_record())


def test_a_stretch_is_charged_once_by_the_minute_and_published_late(tmp_path: Path):
    bills = Bills(tmp_path, delay_s=60)
    bills.note(ITEM, 990, is_on=False)
    bills.note(ITEM, 1_000, is_on=True)
    bills.note(ITEM, 1_010, is_on=True)
    bills.note(ITEM, 1_061, is_on=False)
    bills.note(ITEM, 1_070, is_on=False)
    assert bills.published(0, 1_120) == []
    (charge,) = bills.published(0, 1_121)
    assert (charge.label, charge.since, charge.until) == ("mach_1", 1_000, 1_061)
    assert charge.usd_micros == 50_000, "two minutes are 40,507 micros, which is five cents"
    assert bills.published(1, 9_999) == []


def test_a_restart_forgets_no_charge_and_no_machine_that_runs(tmp_path: Path):
    before = Bills(tmp_path, delay_s=0)
    before.note(ITEM, 1_000, is_on=True)
    before.note(ITEM, 1_030, is_on=False)
    before.note(ITEM, 2_000, is_on=True)
    after = Bills(tmp_path, delay_s=0)
    after.note(ITEM, 2_010, is_on=False)
    assert [(charge.number, charge.since) for charge in after.published(0, 3_000)] == [(1, 1_000), (2, 2_000)]


def test_what_runs_for_long_is_charged_by_the_hour_as_it_goes(tmp_path: Path):
    bills = Bills(tmp_path, delay_s=60)
    bills.note(ITEM, 1_000, is_on=True)
    for now in (4_599, 8_300, 8_301):
        bills.note_time([ITEM], now)
    hours = [(charge.since, charge.until, charge.usd_micros) for charge in bills.published(0, 8_301)]
    assert hours == [(1_000, 4_600, 1_220_000), (4_600, 8_200, 1_220_000)]
    again = Bills(tmp_path, delay_s=60)
    again.note(ITEM, 8_260, is_on=False)
    assert [(charge.number, charge.since) for charge in again.published(2, 9_000)] == [(3, 8_200)]
    again.note_time([ITEM], 99_000)
    assert len(again.published(0, 99_999)) == 3


def test_a_volume_is_charged_by_the_day_and_for_what_is_left_when_it_goes(tmp_path: Path):
    bills, volume = Bills(tmp_path, delay_s=0), volume_item(Volume("vol_1", "mach_1", "h", 100), 137)
    bills.note(volume, 0, is_on=True)
    bills.note_time([ITEM, volume], 2 * 86_400 + 60)
    bills.note(volume, 2 * 86_400 + 60, is_on=False)
    found = bills.published(0, 3 * 86_400)
    assert [(one.machine_id, one.label, one.usd_micros, one.is_volume) for one in found] == [
        ("vol_1", "mach_1", 330_000, True),
        ("vol_1", "mach_1", 330_000, True),
        ("vol_1", "mach_1", 10_000, True),
    ]
