"""The known values of the instance service's specs, taken from the seeds' examples, and wishes about them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from proto.base import Event
from proto.instance.commands import (
    CreateInstance,
    DeleteInstance,
    ReportBooted,
    ReportDestroyed,
    ReportHealthy,
    ReportRented,
    ReportStopped,
    StartInstance,
    StopInstance,
)
from proto.instance.words import Endpoint, MachineSpec, Offer, Port
from services.instance.decider import INSTANCE

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
INSTANCE_ID = "inst_abc123"
ACCOUNT = "acct_default"
OTHER_ACCOUNT = "acct_7"
MACHINE = "mach_1"
MACHINE_2 = "mach_2"
SPEC = MachineSpec(
    gpu="RTX 4090", image="pytorch/pytorch", region="CN-HK-01", ports=(Port(22, "tcp"), Port(8888, "http"))
)
OFFER = Offer(
    offer_id="offer_1",
    provider="sandbox",
    host_id="host_1",
    gpu="RTX 4090",
    price_usd_micros_per_hour=380_000,
    region="CN-HK-01",
)
OFFER_2 = Offer(
    offer_id="offer_2",
    provider="sandbox",
    host_id="host_2",
    gpu="RTX 4090",
    price_usd_micros_per_hour=400_000,
    region="CN-HK-01",
)
ENDPOINTS = (Endpoint(22, "127.0.0.1", 40022, "tcp"), Endpoint(8888, "127.0.0.1", 40888, "http"))
PROVIDER_ID = "sb_1"
AUTO_STOP_MINUTES = 20

CREATE = CreateInstance(
    now=NOW,
    instance_id=INSTANCE_ID,
    account_id=ACCOUNT,
    name="my-instance",
    spec=SPEC,
    machine_id=MACHINE,
    offers=(OFFER, OFFER_2),
    request_hash="hash_1",
    auto_stop_minutes=AUTO_STOP_MINUTES,
)
RENTED = ReportRented(
    now=NOW,
    instance_id=INSTANCE_ID,
    machine_id=MACHINE,
    provider="sandbox",
    provider_machine_id=PROVIDER_ID,
    offer=OFFER,
)
BOOTED = ReportBooted(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE, endpoints=ENDPOINTS)
HEALTHY = ReportHealthy(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE)
STOP = StopInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT)
START = StartInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, machine_id=MACHINE_2, offers=(OFFER_2,))
DELETE = DeleteInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT)
STOPPED = ReportStopped(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE, requested=True)
DESTROYED = ReportDestroyed(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE, requested=True)
PREEMPTED = ReportStopped(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE, reason="spot_preemption")
GONE = ReportDestroyed(now=NOW, instance_id=INSTANCE_ID, machine_id=MACHINE, reason="provider_lost")


def comes_up(now: datetime, machine_id: str, offer: Offer = OFFER) -> tuple[ReportRented, ReportBooted, ReportHealthy]:
    """A machine is rented, boots and is healthy."""
    return (
        replace(RENTED, now=now, machine_id=machine_id, provider_machine_id=f"sb_{machine_id}", offer=offer),
        replace(BOOTED, now=now, machine_id=machine_id),
        replace(HEALTHY, now=now, machine_id=machine_id),
    )


TO_READY = (CREATE, RENTED, BOOTED, HEALTHY)
TO_STOPPED = (*TO_READY, STOP, STOPPED)


def after(*commands: object) -> tuple[Event, ...]:
    """The facts to which these wishes lead: the past of a story."""
    state, facts = None, []
    for command in commands:
        for event in INSTANCE.decide(state, command):
            state = INSTANCE.evolve(state, event)
            facts.append(event)
    return tuple(facts)


def minutes(count: int) -> datetime:
    """That many minutes after NOW."""
    return NOW + timedelta(minutes=count)
