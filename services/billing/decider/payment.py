"""One top-up: asked for, settled or declined once. Pure; its hand is the payment adapter in `effects`.

A payment is found by its reference for ever, because its id is derived from it; so paying twice under one reference is
paying once, and another amount under a known reference is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

from msgspec import Struct
from msgspec.structs import replace

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Event
from proto.billing.commands import ReportDeclined, ReportPaid, RequestPayment
from proto.billing.events import PaymentDeclined, PaymentEvent, PaymentRequested, PaymentSettled
from proto.billing.words import PaymentMethod, PaymentStatus

PaymentCommand: TypeAlias = RequestPayment | ReportPaid | ReportDeclined


class Payment(Struct, frozen=True):
    """`usd_micros` zero: nobody asked for it yet."""

    payment_id: str = ""
    account_id: str = ""
    usd_micros: int = 0
    method: PaymentMethod = "manual"
    reference: str = ""
    status: PaymentStatus = "pending"


def decide(state: Payment, command: PaymentCommand) -> Sequence[Event]:
    """What follows from a wish or from what the adapter reports. Raises Refused."""
    match command:
        case RequestPayment():
            return _request(state, command)
        case ReportPaid():
            if not state.usd_micros or state.status != "pending":
                return []
            return [
                PaymentSettled(
                    payment_id=state.payment_id,
                    account_id=state.account_id,
                    usd_micros=state.usd_micros,
                    method=state.method,
                    reference=state.reference,
                    settled_at=command.now,
                )
            ]
        case ReportDeclined():
            if not state.usd_micros or state.status != "pending":
                return []
            return [
                PaymentDeclined(
                    payment_id=state.payment_id,
                    account_id=state.account_id,
                    method=state.method,
                    reason=command.reason,
                    declined_at=command.now,
                )
            ]
        case _:
            assert_never(command)


def _request(state: Payment, command: RequestPayment) -> Sequence[Event]:
    if state.usd_micros:
        if (state.usd_micros, state.method) != (command.usd_micros, command.method):
            raise Refused("REFERENCE_CONFLICT", reference=command.reference)
        return []
    return [
        PaymentRequested(
            payment_id=command.payment_id,
            account_id=command.account_id,
            usd_micros=command.usd_micros,
            method=command.method,
            reference=command.reference,
            requested_at=command.now,
        )
    ]


def evolve(state: Payment, event: PaymentEvent) -> Payment:
    match event:
        case PaymentRequested():
            return Payment(event.payment_id, event.account_id, event.usd_micros, event.method, event.reference)
        case PaymentSettled():
            return replace(state, status="settled")
        case PaymentDeclined():
            return replace(state, status="declined")
        case _:
            assert_never(event)


PAYMENT = Aggregate("payment", Payment(), decide, evolve, PaymentEvent)
