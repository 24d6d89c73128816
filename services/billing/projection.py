"""Which rows of `schema.sql` follow from one event. Pure; called by the runtime for every own event, in log order.

A tick writes one row per account, not one per running thing: what runs is in `meters` with its rate, and readers add
what has passed since. Only midnight writes a row per meter.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from libs.runtime.service import Row, deadline, no_deadline
from proto.base import Heard
from proto.billing.commands import ExpireCredits, ExpireHold, Tick
from proto.billing.events import (
    AlertRearmed,
    AlertsSet,
    BalanceExhausted,
    BalanceLow,
    BalanceRestored,
    BalanceStorageExpiring,
    BalanceSuspended,
    CreditsAdded,
    CreditsExpired,
    CreditsGranted,
    HoldPlaced,
    HoldReleased,
    LedgerAdjusted,
    LedgerOpened,
    MachineReconciled,
    MeterChanged,
    PaymentDeclined,
    PaymentRequested,
    PaymentSettled,
    ProviderChargeNoted,
    TickPlanned,
    UsageCharged,
)
from proto.billing.ledger import Transaction
from proto.billing.words import UNCOLLECTED, EntryType

TICK = "tick"


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one event; nothing for events of no interest."""
    event = heard.event
    if isinstance(event, Transaction) and event.totals:
        yield _account(heard, totals=event.totals)
    match event:
        case UsageCharged():
            yield from _usage(heard, event)
        case MeterChanged():
            yield from _meter(heard, event)
        case HoldPlaced():
            key = {"account_id": event.account_id, "instance_id": event.instance_id}
            yield Row("holds", key, {"usd_micros": event.usd_micros, "expires_at": event.expires_at})
            command = {"type": ExpireHold.__struct_config__.tag, **key}
            yield deadline(heard.aggregate_id, _hold(event.instance_id), event.expires_at, _json(command))
        case HoldReleased():
            yield from _no_hold(heard, event.account_id, event.instance_id)
        case PaymentRequested() | PaymentSettled() | PaymentDeclined():
            yield _payment(event)
        case ProviderChargeNoted() | MachineReconciled():
            yield from _reconciliation(event)
        case _:
            yield from _credit(heard)
            yield from _standing(heard)


def _account(heard: Heard, **columns: Any) -> Row:
    return Row("accounts", {"account_id": heard.aggregate_id}, {"changed_at": heard.at, **columns})


def _usage(heard: Heard, event: UsageCharged) -> Iterator[Row]:
    yield _account(heard, charged_until=event.until)
    day = event.since.date().isoformat()
    for line in event.day_lines:
        key = {"account_id": event.account_id, "day": day, "meter_id": line.meter_id}
        yield Row("usage_days", key, {"seconds": line.seconds, "usd_micros": line.usd_micros, "until": event.until})
    yield from _uncollected(event, day, event.until)
    yield _next_tick(heard, event.next_tick_at)


def _uncollected(event: UsageCharged | MeterChanged, day: str, until: datetime) -> Iterator[Row]:
    if any(one.grant_id == UNCOLLECTED for one in event.burns):
        key = {"account_id": event.account_id, "day": day}
        yield Row("uncollected_days", key, {"after": -event.totals.get("uncollected", 0), "until": until})


def _next_tick(heard: Heard, at: datetime | None) -> Row:
    if at is None:
        return no_deadline(heard.aggregate_id, TICK)
    command = {"type": Tick.__struct_config__.tag, "account_id": heard.aggregate_id}
    return deadline(heard.aggregate_id, TICK, at, _json(command))


def _meter(heard: Heard, event: MeterChanged) -> Iterator[Row]:
    yield _account(heard, charged_until=event.charged_until)
    key = {"account_id": event.account_id, "meter_id": event.meter_id}
    about = {"instance_id": event.instance_id, "line": event.line}
    running = {"rate": event.rate_usd_micros_per_hour, "since": event.since, "paid_until": event.meter_until}
    named = {"label": event.label} if event.label else {}
    machine = {"machine_id": event.machine_id} if event.machine_id else {}
    yield Row("meters", key, {**about, **running, **named, **machine})
    for segment in event.segments:
        stretch = {
            "until": segment.until,
            "rate": segment.rate_usd_micros_per_hour,
            "machine_id": segment.machine_id,
            "usd_micros": segment.usd_micros,
        }
        yield Row("segments", {**key, "since": segment.since}, {**about, **stretch})
    if event.usd_micros or event.day_usd_micros or event.day_seconds:
        come_to = {"seconds": event.day_seconds, "usd_micros": event.day_usd_micros, "until": event.meter_until}
        yield Row("usage_days", {**key, "day": event.day}, come_to)
    yield from _uncollected(event, event.day, event.meter_until)
    if event.adjustment_usd_micros:
        yield _entry(
            heard,
            "adjustment",
            -event.adjustment_usd_micros,
            heard.at,
            "Correction of usage on earlier days",
            instance_id=event.instance_id,
        )
    if event.is_end or (event.line == "gpu" and event.rate_usd_micros_per_hour):
        yield from _no_hold(heard, event.account_id, event.instance_id)
    yield _next_tick(heard, event.next_tick_at)


def _hold(instance_id: str) -> str:
    return f"hold:{instance_id}"


def _no_hold(heard: Heard, account_id: str, instance_id: str) -> Iterator[Row]:
    yield Row("holds", {"account_id": account_id, "instance_id": instance_id}, None)
    yield no_deadline(heard.aggregate_id, _hold(instance_id))


def _payment(event: PaymentRequested | PaymentSettled | PaymentDeclined) -> Row:
    key = {"payment_id": event.payment_id}
    match event:
        case PaymentRequested():
            return Row(
                "payments",
                key,
                {
                    "account_id": event.account_id,
                    "usd_micros": event.usd_micros,
                    "method": event.method,
                    "reference": event.reference,
                    "status": "pending",
                    "requested_at": event.requested_at,
                },
            )
        case PaymentSettled():
            return Row("payments", key, {"status": "settled"})
        case PaymentDeclined():
            return Row("payments", key, {"status": "declined", "reason": event.reason})


def _credit(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case CreditsAdded() as event:
            paid = f"Credits ({event.method})"
            yield _entry(heard, "credit_purchase", event.usd_micros, event.added_at, paid, reference=event.reference)
            if event.bonus_usd_micros:
                yield _entry(
                    heard,
                    "credit_bonus",
                    event.bonus_usd_micros,
                    event.added_at,
                    "Bonus on a purchase",
                    reference=event.reference,
                    suffix=".bonus",
                )
            if event.bonus_expires_at is not None:
                yield _expiry(heard, f"{event.credit_id}_bonus", event.bonus_expires_at)
        case CreditsGranted() as event:
            kind: EntryType = "welcome_credit" if event.reason == "welcome_credit" else "credit_bonus"
            yield _entry(heard, kind, event.usd_micros, event.granted_at, event.reason)
            if event.expires_at is not None:
                yield _expiry(heard, event.credit_id, event.expires_at)
        case CreditsExpired() as event:
            yield _entry(heard, "credit_expired", -event.usd_micros, event.expired_at, "Bonus expired unused")
            yield no_deadline(heard.aggregate_id, f"expire:{event.grant_id}")
        case LedgerAdjusted() as event:
            yield _entry(
                heard,
                "adjustment",
                event.usd_micros,
                event.adjusted_at,
                event.reason,
                reference=event.adjustment_id,
                instance_id=event.instance_id,
            )
        case _:
            return


def _expiry(heard: Heard, grant_id: str, at: datetime) -> Row:
    command = {"type": ExpireCredits.__struct_config__.tag, "account_id": heard.aggregate_id, "grant_id": grant_id}
    return deadline(heard.aggregate_id, f"expire:{grant_id}", at, _json(command))


def _entry(
    heard: Heard,
    kind: EntryType,
    usd_micros: int,
    at: datetime,
    description: str,
    *,
    reference: str = "",
    instance_id: str = "",
    suffix: str = "",
) -> Row:
    """`entry_id` is the event's own id, so that a replay meets its own row."""
    columns = {
        "type": kind,
        "usd_micros": usd_micros,
        "created_at": at,
        "description": description,
        "reference_id": reference or None,
        "instance_id": instance_id or None,
    }
    return Row("entries", {"account_id": heard.aggregate_id, "entry_id": f"{heard.event_id}{suffix}"}, columns)


def _standing(heard: Heard) -> Iterator[Row]:
    match heard.event:
        case LedgerOpened() as event:
            yield _account(heard, currency=event.currency, stage="ok", totals={})
        case AlertsSet() as event:
            yield _account(heard, alerts=event.alerts)
        case BalanceLow(reason="money"):
            yield _account(heard, is_low_money=True)
        case BalanceLow():
            yield _account(heard, is_low_runway=True)
        case AlertRearmed(reason="money"):
            yield _account(heard, is_low_money=False)
        case AlertRearmed():
            yield _account(heard, is_low_runway=False)
        case BalanceExhausted() as event:
            yield _account(heard, stage="grace", grace_until=event.grace_until)
            if event.next_tick_at is not None:
                yield _next_tick(heard, event.next_tick_at)
        case BalanceSuspended() as event:
            kept = {} if event.storage_kept_until is None else {"storage_kept_until": event.storage_kept_until}
            yield _account(heard, stage="suspended", grace_until=None, **kept)
            if event.next_tick_at is not None:
                yield _next_tick(heard, event.next_tick_at)
        case TickPlanned() as event:
            yield _next_tick(heard, event.next_tick_at)
        case BalanceRestored():
            yield _account(heard, stage="ok", grace_until=None, storage_kept_until=None)
        case BalanceStorageExpiring() as event:
            yield _account(heard, storage_kept_until=event.kept_until)
        case _:
            return


def _reconciliation(event: ProviderChargeNoted | MachineReconciled) -> Iterator[Row]:
    if isinstance(event, ProviderChargeNoted):
        yield Row(
            "provider_charges",
            {"machine_id": event.machine_id, "charge_id": event.charge_id},
            {
                "account_id": event.account_id,
                "provider": event.provider,
                "instance_id": event.instance_id,
                "since": event.since,
                "until": event.until,
                "usd_micros": event.usd_micros,
            },
        )
        return
    yield Row(
        "reconciled",
        {"machine_id": event.machine_id},
        {
            "account_id": event.account_id,
            "provider": event.provider,
            "kind": event.kind,
            "ours": event.ours_usd_micros,
            "theirs": event.theirs_usd_micros,
            "reconciled_at": event.reconciled_at,
        },
    )


def _json(command: dict[str, Any]) -> str:
    return msgspec.json.encode(command).decode()
