"""A payment settles once; a provider's charge counts once, and a difference is told when it has changed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import strategies as st

from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.billing.commands import (
    NoteProviderCharge,
    ReconcileMachine,
    ReportDeclined,
    ReportPaid,
    RequestPayment,
)
from proto.billing.events import MachineReconciled, PaymentDeclined, PaymentRequested, PaymentSettled
from proto.billing.words import DriftKind
from services.billing.decider.machine import MACHINE, drift_kind
from services.billing.decider.payment import PAYMENT
from tests.spec.billing.ledgers import ACCOUNT_ID, NOW, USD

PAY = RequestPayment(
    now=NOW, payment_id="pay_1", account_id=ACCOUNT_ID, usd_micros=10 * USD, method="pix", reference="r"
)
PAID = ReportPaid(now=NOW, payment_id="pay_1")
DECLINED = ReportDeclined(now=NOW, payment_id="pay_1", reason="no funds")


def charge(charge_id: str, usd_micros: int) -> NoteProviderCharge:
    return NoteProviderCharge(
        now=NOW, machine_id="mach_1", account_id=ACCOUNT_ID, instance_id="inst_a", provider="sandbox",
        charge_id=charge_id, since=NOW, until=NOW + timedelta(hours=1), usd_micros=usd_micros,
    )  # fmt: skip


def compare(ours: int) -> ReconcileMachine:
    return ReconcileMachine(
        now=NOW, machine_id="mach_1", account_id=ACCOUNT_ID, provider="sandbox", ours_usd_micros=ours
    )


def test_every_wish_of_a_payment_twice_is_once():
    every_command_twice_is_once(PAYMENT, st.sampled_from((PAY, PAID, DECLINED)), examples_max=50)


def test_every_wish_of_a_machine_twice_is_once():
    amounts = st.integers(0, 2 * USD)
    every_command_twice_is_once(
        MACHINE,
        st.one_of(st.builds(charge, st.sampled_from(("c1", "c2")), amounts), st.builds(compare, amounts)),
        examples_max=100,
    )


def test_the_first_word_about_a_payment_counts():
    settled = spec(PAYMENT).when(PAY).then_kinds(PaymentRequested).when(PAID).then_kinds(PaymentSettled)
    settled.when(DECLINED, PAID, PAY).then_nothing()
    declined = spec(PAYMENT).when(PAY).then_kinds(PaymentRequested).when(DECLINED).then_kinds(PaymentDeclined)
    declined.when(PAID).then_nothing()


def test_a_reference_is_for_one_amount():
    other = RequestPayment(
        now=NOW, payment_id="pay_1", account_id=ACCOUNT_ID, usd_micros=11 * USD, method="pix", reference="r"
    )
    spec(PAYMENT).when(PAY).then_kinds(PaymentRequested).when(other).refused("REFERENCE_CONFLICT", reference="r")


@pytest.mark.parametrize(
    ("ours", "theirs", "charges", "kind"),
    [
        (USD, USD, 1, "matched"),
        (USD, USD + 10_000, 1, "matched"),  # rounded up to the cent
        (USD, USD + 25_000, 1, "matched"),  # and to the minute
        (USD, 2 * USD, 1, "amount"),
        (USD, 0, 0, "only_ours"),
        (0, USD, 2, "only_theirs"),
        (0, 0, 0, "matched"),
    ],
)
def test_a_difference_beyond_rounding_has_a_name(ours: int, theirs: int, charges: int, kind: DriftKind):
    assert drift_kind(ours, theirs, charges=charges, rate_usd_micros_per_hour=USD) == kind


def test_a_late_charge_is_news_and_the_same_comparison_is_not():
    story = spec(MACHINE).when(compare(USD)).then_kinds(MachineReconciled)
    story.when(compare(USD)).then_nothing()
    late = story.when(charge("c1", USD), charge("c1", USD), compare(USD), compare(USD))
    assert late.events[-1].kind == "matched"
    assert [type(event).__name__ for event in late.events] == ["ProviderChargeNoted", "MachineReconciled"]
