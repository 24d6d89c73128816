"""A cloud's charge for a machine is told once, and an account without money has its instances stopped."""

from __future__ import annotations

from hypothesis import strategies as st

from libs.spec.properties import every_command_twice_is_once
from proto.base import Heard
from proto.billing.events import BalanceSuspended
from proto.instance.commands import StopInstance
from proto.instance.host_commands import ReportBill
from services.instance.decider import BILL
from services.instance.policy import react
from tests.spec.instance.controls import ACCOUNT, NOW


def bill(charge_id: str) -> ReportBill:
    return ReportBill(
        now=NOW, machine_id="mach_1", account_id=ACCOUNT, instance_id="inst_1", provider="sandbox",
        charge_id=charge_id, number=1, since=NOW, until=NOW, usd_micros=10_000,
    )  # fmt: skip


def test_every_bill_twice_is_once():
    every_command_twice_is_once(BILL, st.builds(bill, st.sampled_from(("c1", "c2"))), examples_max=30)


def test_what_an_empty_account_runs_is_stopped_with_the_reason():
    said = BalanceSuspended(
        account_id=ACCOUNT, reason="insufficient_balance", balance_usd_micros=1, instance_ids=("inst_1", "inst_2")
    )
    wishes = list(react(Heard(said, "cmt_1.0", ACCOUNT, NOW, "PUB", 1)))
    assert wishes == [
        StopInstance(now=NOW, instance_id=name, account_id=ACCOUNT, reason="insufficient_balance")
        for name in ("inst_1", "inst_2")
    ]
