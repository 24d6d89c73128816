"""How facts become the ledger's own wishes: what the instance says moves meters, what a payment says moves credit.

Called by the runtime for own events and for what others say. Pure. A meter is known by what it measures: the GPU by
the instance (it outlives machines), a standby by its machine, a volume by its id. Charged is what the customer can use:
the GPU from `instance.ready` until it stops, is lost, moves or fails; nothing while it starts or is stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from proto.base import Command, Heard
from proto.billing.commands import (
    AddCredits,
    NoteEnd,
    NoteProviderCharge,
    NoteRate,
    NoteTopUpDeclined,
    ReleaseHold,
    RequestPayment,
)
from proto.billing.events import PaymentDeclined, PaymentSettled, TopUpWanted
from proto.instance.events import (
    InstanceDeleted,
    InstanceDeleting,
    InstanceFailed,
    InstanceHibernated,
    InstanceInterrupted,
    InstanceReady,
    InstanceRecovering,
    InstanceStopping,
    StandbyFailed,
    StandbyReady,
)
from proto.instance.host_events import MachineBilled
from proto.warmpool.events import StandbyReleased

HEARS = (
    "pub.*.instance.ready",
    "pub.*.instance.stopping",
    "pub.*.instance.interrupted",
    "pub.*.instance.hibernated",
    "pub.*.instance.recovering",
    "pub.*.instance.failed",
    "pub.*.instance.deleting",
    "pub.*.instance.deleted",
    "pub.*.instance.standby_ready",
    "pub.*.instance.standby_failed",
    "pub.*.warmpool.standby_released",
    "pub.*.machine.billed",
)
HEARS_EVENTS = (
    InstanceReady
    | InstanceStopping
    | InstanceInterrupted
    | InstanceHibernated
    | InstanceRecovering
    | InstanceFailed
    | InstanceDeleting
    | InstanceDeleted
    | StandbyReady
    | StandbyFailed
    | StandbyReleased
    | MachineBilled
)


def react(heard: Heard) -> Iterator[Command]:
    """Own commands that follow from one event."""
    match heard.event:
        case InstanceReady() as event:
            yield NoteRate(
                now=heard.at,
                account_id=event.account_id,
                meter_id=event.instance_id,
                instance_id=event.instance_id,
                line="gpu",
                at=event.ready_at,
                rate_usd_micros_per_hour=event.price_usd_micros_per_hour,
                machine_id=event.machine_id,
                label=event.gpu,
            )
        case InstanceStopping() | InstanceInterrupted() | InstanceHibernated() as event:
            yield _gpu_off(heard, event.account_id, event.instance_id)
        case InstanceFailed() as event:
            yield _gpu_off(heard, event.account_id, event.instance_id)
            yield ReleaseHold(
                now=heard.at, account_id=event.account_id, instance_id=event.instance_id, reason="instance_failed"
            )
        case InstanceRecovering() as event:
            yield _gpu_off(heard, event.account_id, event.instance_id)
            yield _standby_off(heard, event.account_id, event.instance_id, event.machine_id)
        case InstanceDeleting() | InstanceDeleted() as event:
            yield NoteEnd(now=heard.at, account_id=event.account_id, instance_id=event.instance_id, at=heard.at)
        case MachineBilled() as event:
            yield NoteProviderCharge(
                now=heard.at,
                machine_id=event.machine_id,
                account_id=event.account_id,
                instance_id=event.instance_id,
                provider=event.provider,
                charge_id=event.charge_id,
                since=event.since,
                until=event.until,
                usd_micros=event.usd_micros,
            )
        case StandbyReady() as event:
            yield from _standby_on(heard.at, event)
        case StandbyFailed() | StandbyReleased() as event:
            yield _standby_off(heard, event.account_id, event.instance_id, event.machine_id)
        case _:
            yield from _react_to_money(heard)


def _react_to_money(heard: Heard) -> Iterator[Command]:
    match heard.event:
        case PaymentSettled() as event:
            yield AddCredits(
                now=event.settled_at,
                account_id=event.account_id,
                credit_id=event.payment_id,
                usd_micros=event.usd_micros,
                method=event.method,
                reference=event.reference,
            )
        case PaymentDeclined(method="auto") as event:
            yield NoteTopUpDeclined(now=heard.at, account_id=event.account_id, payment_id=event.payment_id)
        case TopUpWanted() as event:
            yield RequestPayment(
                now=heard.at,
                payment_id=event.payment_id,
                account_id=event.account_id,
                usd_micros=event.usd_micros,
                method="auto",
                reference=event.payment_id,
            )
        case _:
            return


def _gpu_off(heard: Heard, account_id: str, instance_id: str) -> NoteRate:
    return NoteRate(
        now=heard.at,
        account_id=account_id,
        meter_id=instance_id,
        instance_id=instance_id,
        line="gpu",
        at=heard.at,
    )


def _standby_on(at: datetime, event: StandbyReady) -> Iterator[NoteRate]:
    """A stopped standby costs nothing but the volume, which both machines share."""
    if event.mode == "hot":
        yield NoteRate(
            now=at,
            account_id=event.account_id,
            meter_id=event.machine_id,
            instance_id=event.instance_id,
            line="warm_pool",
            at=at,
            rate_usd_micros_per_hour=event.price_usd_micros_per_hour,
            machine_id=event.machine_id,
        )
    if event.volume_id and event.volume_gb:
        yield NoteRate(
            now=at,
            account_id=event.account_id,
            meter_id=event.volume_id,
            instance_id=event.instance_id,
            line="volume",
            at=at,
            volume_gb=event.volume_gb,
        )


def _standby_off(heard: Heard, account_id: str, instance_id: str, machine_id: str) -> NoteRate:
    return NoteRate(
        now=heard.at,
        account_id=account_id,
        meter_id=machine_id,
        instance_id=instance_id,
        line="warm_pool",
        at=heard.at,
    )
