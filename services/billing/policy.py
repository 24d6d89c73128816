"""How facts become the ledger's own wishes: what the instance says moves meters, what a payment says moves credit.

Called by the runtime for own events and for what others say. Pure. A meter is known by what it measures: the GPU by
the instance (it outlives machines), a standby by its machine, a volume by its id; the CPU standby that carries an
instance and the files of a hibernated one by the instance and a word. Charged is what the customer can use: a machine
from `instance.ready` until it stops, is lost, moves or fails; nothing while it starts or is stopped. Hibernated, an
instance costs the storage of its files and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from msgspec.structs import replace

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
from proto.billing.words import Line
from proto.instance.events import (
    InstanceDeleted,
    InstanceDeleting,
    InstanceFailed,
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
from proto.instance.host_events import MachineBilled
from proto.instance.return_events import HandedOver
from proto.instance.words import MachineRole
from proto.warmpool.events import StandbyReleased

GIGABYTE = 1_000_000_000

HEARS = (
    "pub.*.instance.starting",
    "pub.*.instance.ready",
    "pub.*.instance.stopping",
    "pub.*.instance.interrupted",
    "pub.*.instance.hibernated",
    "pub.*.instance.waking",
    "pub.*.instance.recovering",
    "pub.*.instance.failed",
    "pub.*.instance.deleting",
    "pub.*.instance.deleted",
    "pub.*.standby.handed_over",
    "pub.*.instance.standby_ready",
    "pub.*.instance.standby_failed",
    "pub.*.volume.attached",
    "pub.*.volume.given_up",
    "pub.*.warmpool.standby_released",
    "pub.*.machine.billed",
)
HEARS_EVENTS = (
    InstanceStarting
    | InstanceReady
    | InstanceStopping
    | InstanceInterrupted
    | InstanceHibernated
    | InstanceWaking
    | InstanceRecovering
    | InstanceFailed
    | InstanceDeleting
    | InstanceDeleted
    | HandedOver
    | StandbyReady
    | StandbyFailed
    | VolumeAttached
    | VolumeGivenUp
    | StandbyReleased
    | MachineBilled
)


def react(heard: Heard) -> Iterator[Command]:
    """Own commands that follow from one event."""
    match heard.event:
        case InstanceReady() as event:
            yield _rate(
                event,
                _primary(event),
                "cpu_standby" if event.on_cpu else "gpu",
                event.ready_at,
                rate=event.price_usd_micros_per_hour,
                machine_id=event.machine_id,
                label=event.gpu,
            )
        case InstanceStopping() | InstanceInterrupted() as event:
            yield _primary_off(heard, event)
        case InstanceHibernated() as event:
            yield _primary_off(heard, event)
            yield from _asleep(heard.at, event)
        case InstanceWaking() as event:
            yield _rate(event, _files(event), "volume", heard.at)
        case InstanceFailed() as event:
            yield _rate(event, event.instance_id, "gpu", heard.at)
            yield ReleaseHold(
                now=heard.at, account_id=event.account_id, instance_id=event.instance_id, reason="instance_failed"
            )
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
        case _:
            yield from _react_to_standbys(heard)
            yield from _react_to_money(heard)


def _react_to_standbys(heard: Heard) -> Iterator[Command]:
    match heard.event:
        case StandbyReady() as event:
            yield from _standby_on(heard.at, event)
        case VolumeAttached() as event:
            # From when it is the workspace, whether the instance runs or not.
            on = _rate(event, event.volume_id, "volume", heard.at, machine_id=event.volume_id)
            yield replace(on, volume_gb=event.size_gb)
        case VolumeGivenUp() as event:
            yield _rate(event, event.volume_id, "volume", heard.at)
        case StandbyFailed() as event:
            yield _rate(event, event.machine_id, _line_of(event.role), heard.at)
        case HandedOver() as event:  # to the GPU; when that is ready the CPU machine is its standby again
            yield _rate(event, f"{event.instance_id}.cpu", "cpu_standby", heard.at)
        case StandbyReleased() as event:
            yield _rate(event, event.machine_id, "warm_pool", heard.at)
        case InstanceStarting(on_standby=True) as event:
            yield _rate(event, event.machine_id, "cpu_standby" if event.on_cpu else "warm_pool", heard.at)
        case InstanceRecovering(rung="warm_pool") as event:
            yield _rate(event, event.machine_id, "warm_pool", heard.at)
        case InstanceRecovering(rung="cpu_standby") as event:
            yield _rate(event, event.machine_id, "cpu_standby", heard.at)
        case _:
            return


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


class _About(Protocol):
    """What every fact about an instance says."""

    @property
    def account_id(self) -> str: ...

    @property
    def instance_id(self) -> str: ...


def _rate(
    about: _About, meter_id: str, line: Line, at: datetime, *, rate: int = 0, machine_id: str = "", label: str = ""
) -> NoteRate:
    """From then on this meter runs at this rate; 0: not at all. `machine_id`: the machine, or volume, that its provider
    charges us for."""
    return NoteRate(
        now=at,
        account_id=about.account_id,
        meter_id=meter_id,
        instance_id=about.instance_id,
        line=line,
        at=at,
        rate_usd_micros_per_hour=rate,
        machine_id=machine_id,
        label=label,
    )


def _primary(event: InstanceReady | InstanceStopping | InstanceInterrupted | InstanceHibernated) -> str:
    return f"{event.instance_id}.cpu" if event.on_cpu else event.instance_id


def _primary_off(heard: Heard, event: InstanceStopping | InstanceInterrupted | InstanceHibernated) -> NoteRate:
    return _rate(event, _primary(event), "cpu_standby" if event.on_cpu else "gpu", heard.at)


def _files(event: InstanceHibernated | InstanceWaking) -> str:
    return f"{event.instance_id}.files"


def _asleep(at: datetime, event: InstanceHibernated) -> Iterator[NoteRate]:
    """Its files are in the storage, and its volume is given back."""
    if event.bytes:
        stored = _rate(event, _files(event), "volume", at, label="hibernated files")
        yield replace(stored, stored_gb=-(-event.bytes // GIGABYTE))
    if event.volume_id:
        yield _rate(event, event.volume_id, "volume", at)


def _line_of(role: MachineRole) -> Line:
    return "cpu_standby" if role == "cpu_standby" else "warm_pool"


def _standby_on(at: datetime, event: StandbyReady) -> Iterator[NoteRate]:
    """A stopped standby costs nothing but the volume, which both machines share; a CPU standby has no part in it."""
    if event.mode == "hot":
        yield _rate(
            event,
            event.machine_id,
            _line_of(event.role),
            at,
            rate=event.price_usd_micros_per_hour,
            machine_id=event.machine_id,
        )
    if event.volume_id and event.volume_gb and event.role == "standby":
        volume = _rate(event, event.volume_id, "volume", at, machine_id=event.volume_id)
        yield replace(volume, volume_gb=event.volume_gb)
