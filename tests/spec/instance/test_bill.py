"""A cloud's charge for a machine is told once."""

from __future__ import annotations

from hypothesis import strategies as st

from libs.spec.properties import every_command_twice_is_once
from proto.instance.host_commands import ReportBill
from services.instance.decider import BILL
from tests.spec.instance.controls import ACCOUNT, NOW


def bill(charge_id: str) -> ReportBill:
    return ReportBill(
        now=NOW, machine_id="mach_1", account_id=ACCOUNT, instance_id="inst_1", provider="sandbox",
        charge_id=charge_id, number=1, since=NOW, until=NOW, usd_micros=10_000,
    )  # fmt: skip


def test_every_bill_twice_is_once():
    every_command_twice_is_once(BILL, st.builds(bill, st.sampled_from(("c1", "c2"))), examples_max=30)
