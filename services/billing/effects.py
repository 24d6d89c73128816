"""The outside of the billing service: payments, prices that a wish does not know, and the round of reconciliation.

Called by the runtime. A payment adapter is one function; `manual` settles at once, because the operator has the money
already and says so by its reference. Others are chosen by the composition root (services/billing/README.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, get_args

from msgspec.structs import replace

from libs.clock import Clock
from libs.money import cost_micros
from libs.postgres import Database
from libs.refusal import Refused, Transient
from libs.runtime.service import Effect, Handle, Job
from libs.telemetry import Logger, Metrics
from proto.base import Command, Event
from proto.billing.commands import (
    NoteRate,
    OpenAccount,
    PlaceHold,
    ReconcileMachine,
    ReportDeclined,
    ReportPaid,
)
from proto.billing.events import PaymentRequested
from proto.billing.words import DriftKind
from services.billing.config import BillingSettings
from services.billing.decider.ladder import HOLD_S
from services.billing.queries.reconciled import due_machines, summary, uncollected

PAYMENT_TRIES_MAX = 8
MICROS = 1_000_000
# Reference prices of contract dumont 2, in micros per GPU and hour: what a hold reckons with until an offer is taken.
REFERENCE_PRICES: Mapping[str, int] = {
    "RTX 3090": 300_000,
    "RTX 4090": 400_000,
    "A100 40GB": 1_200_000,
    "A100 80GB": 1_800_000,
    "A100": 1_800_000,
    "H100": 2_500_000,
}
_LAST_RATE_SQL = "select max(rate) from segments where account_id = $1 and instance_id = $2 and line = 'gpu'"

# Takes the money of one payment, once per `payment_id`: None when settled, else why it was declined. Raises Transient.
PaymentAdapter: TypeAlias = Callable[[PaymentRequested], Awaitable[str | None]]


class Instruments:
    """What reconciliation measures. Made once in a process's life: a replica leads again and again."""

    def __init__(self, metrics: Metrics) -> None:
        self.machines = metrics.gauge(
            "dumont_billing_reconciled_machines", "Ended machines by how their two bills compare.", ("kind",)
        )
        self.drift = metrics.gauge(
            "dumont_billing_drift_usd_micros",
            "What we charged for machines less what their provider charged.",
            ("kind",),
        )
        self.uncollected = metrics.gauge(
            "dumont_billing_uncollected_usd_micros", "What was used beyond prepaid balances and is asked of nobody."
        )


@dataclass(frozen=True)
class World:
    """`payments`: the adapter of each method; a method without one is declined."""

    clock: Clock
    database: Database
    settings: BillingSettings
    payments: Mapping[str, PaymentAdapter]
    logger: Logger
    instruments: Instruments


async def settle_by_hand(_payment: PaymentRequested) -> str | None:
    """The operator received the money before and gives its reference: nothing is left to do."""
    return None


async def pay(job: Job, world: World) -> Sequence[Command]:
    """Hand the payment to its adapter. The payment id is the adapter's idempotency key."""
    event = job.heard.event
    assert isinstance(event, PaymentRequested)
    adapter = world.payments.get(event.method)
    if adapter is None:
        return [_declined(event, world, f"method {event.method} is not set up here")]
    reason = await adapter(event)
    if reason is not None:
        return [_declined(event, world, reason)]
    return [ReportPaid(now=world.clock.now(), payment_id=event.payment_id)]


def _declined(event: PaymentRequested, world: World, reason: str) -> ReportDeclined:
    return ReportDeclined(now=world.clock.now(), payment_id=event.payment_id, reason=reason)


def _unreachable(job: Job, cause: str) -> Sequence[Command]:
    event = job.heard.event
    assert isinstance(event, PaymentRequested)
    return [ReportDeclined(now=job.heard.at, payment_id=event.payment_id, reason=f"payment provider: {cause}"[:200])]


# --- what a wish does not know ------------------------------------------------------------------------------------


async def with_welcome(command: OpenAccount, world: World) -> OpenAccount:
    return replace(command, welcome_usd_micros=world.settings.welcome_credit_usd * MICROS)


async def with_price(command: PlaceHold, world: World) -> PlaceHold:
    """Ten minutes at the caller's limit, else at this instance's last price, else at its GPU's reference price."""
    price = command.price_usd_micros_per_hour_max
    if not price:
        reference = REFERENCE_PRICES.get(command.gpu, world.settings.gpu_price_usd_micros_per_hour)
        price = reference * max(1, command.gpu_count)
        if not command.gpu:  # a start: the instance has run before
            price = await world.database.fetchval(_LAST_RATE_SQL, command.account_id, command.instance_id) or price
    return replace(
        command,
        usd_micros=cost_micros(HOLD_S, price),
        welcome_usd_micros=world.settings.welcome_credit_usd * MICROS,
    )


async def with_volume_price(command: NoteRate, world: World) -> NoteRate:
    if not command.volume_gb and not command.stored_gb:
        return command
    prices = world.settings
    rate = command.volume_gb * prices.volume_price_usd_micros_per_gb_hour
    rate += command.stored_gb * prices.storage_price_usd_micros_per_gb_hour
    return replace(command, rate_usd_micros_per_hour=rate)


# --- reconciliation -----------------------------------------------------------------------------------------------


async def reconcile(world: World, handle: Handle) -> None:
    """Compare machines that have ended with what their providers charged, for ever. Run by the leading replica."""
    while True:
        try:
            await reconcile_once(world, handle)
            found = {row["kind"]: row for row in await summary(world.database)}
            for kind in get_args(DriftKind):
                world.instruments.machines.set(found[kind]["machines"] if kind in found else 0, (kind,))
                world.instruments.drift.set(found[kind]["drift"] if kind in found else 0, (kind,))
            world.instruments.uncollected.set(await uncollected(world.database))
        except Transient as unwell:
            world.logger.info("reconcile.postponed", cause=str(unwell))
        await world.clock.sleep(world.settings.reconcile_every_s)


async def reconcile_once(world: World, handle: Handle) -> int:
    """One round; how many machines were compared."""
    now = world.clock.now()
    rows = await due_machines(world.database, now - timedelta(seconds=world.settings.reconcile_after_s))
    for row in rows:
        wish = ReconcileMachine(
            now=now,
            machine_id=row["machine_id"],
            account_id=row["account_id"],
            provider=row["provider"],
            ours_usd_micros=row["ours"],
            rate_usd_micros_per_hour=row["rate"],
        )
        try:
            await handle.execute(wish, cause="reconcile")
        except Refused as refused:
            world.logger.info("reconcile.refused", machine_id=row["machine_id"], code=refused.code)
    return len(rows)


EFFECTS: Mapping[type[Event], Effect] = {
    PaymentRequested: Effect(pay, tries_max=PAYMENT_TRIES_MAX, exhausted=_unreachable)
}
INTAKE: Mapping[type[Command], Callable[[Any, Any], Awaitable[Command]]] = {
    OpenAccount: with_welcome,
    PlaceHold: with_price,
    NoteRate: with_volume_price,
}
TASKS = (reconcile,)
