"""Reconciliation of one machine: what its provider charged us, against what we charged for it. Pure.

Providers charge late, by the minute or the hour, and rounded. A charge counts once, by the provider's own id. A
difference is reported only when it has changed, and forgiven as far as rounding explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, assert_never

from msgspec import Struct
from msgspec.structs import replace

from libs.money import cost_micros
from libs.runtime.service import Aggregate
from proto.base import Event
from proto.billing.commands import NoteProviderCharge, ReconcileMachine
from proto.billing.events import MachineEvent, MachineReconciled, ProviderChargeNoted
from proto.billing.words import DriftKind

MachineCommand: TypeAlias = NoteProviderCharge | ReconcileMachine

# A provider rounds each charge to a cent and to a minute, and counts booting and stopping, which we do not charge.
TOLERANCE_S_PER_CHARGE = 60
TOLERANCE_USD_MICROS_PER_CHARGE = 10_000
TOLERANCE_PPM = 50_000
CHARGE_IDS_MAX = 2_048  # a machine of a month is charged by the hour: 744


class Machine(Struct, frozen=True):
    account_id: str = ""
    provider: str = ""
    theirs_usd_micros: int = 0
    charges: int = 0
    charge_ids: tuple[str, ...] = ()
    told: tuple[int, int] | None = None


def decide(state: Machine, command: MachineCommand) -> Sequence[Event]:
    match command:
        case NoteProviderCharge():
            if command.charge_id in state.charge_ids:
                return []
            return [
                ProviderChargeNoted(
                    account_id=command.account_id,
                    machine_id=command.machine_id,
                    instance_id=command.instance_id,
                    provider=command.provider,
                    charge_id=command.charge_id,
                    since=command.since,
                    until=command.until,
                    usd_micros=command.usd_micros,
                )
            ]
        case ReconcileMachine():
            found = (command.ours_usd_micros, state.theirs_usd_micros)
            rate = command.rate_usd_micros_per_hour
            if found == state.told:
                return []
            return [
                MachineReconciled(
                    account_id=command.account_id,
                    machine_id=command.machine_id,
                    provider=command.provider or state.provider,
                    kind=drift_kind(*found, charges=state.charges, rate_usd_micros_per_hour=rate),
                    ours_usd_micros=command.ours_usd_micros,
                    theirs_usd_micros=state.theirs_usd_micros,
                    reconciled_at=command.now,
                )
            ]
        case _:
            assert_never(command)


def drift_kind(ours: int, theirs: int, *, charges: int, rate_usd_micros_per_hour: int) -> DriftKind:
    """How the two sides compare; nothing charged by the provider is a matter of its own, and so is nothing by us."""
    rounding = TOLERANCE_USD_MICROS_PER_CHARGE + cost_micros(TOLERANCE_S_PER_CHARGE, rate_usd_micros_per_hour)
    tolerance = charges * rounding + max(ours, theirs) * TOLERANCE_PPM // 1_000_000
    if abs(ours - theirs) <= tolerance:
        return "matched"
    if not charges:
        return "only_ours"
    return "amount" if ours else "only_theirs"


def evolve(state: Machine, event: MachineEvent) -> Machine:
    match event:
        case ProviderChargeNoted():
            return replace(
                state,
                account_id=event.account_id,
                provider=event.provider,
                theirs_usd_micros=state.theirs_usd_micros + event.usd_micros,
                charges=state.charges + 1,
                charge_ids=(*state.charge_ids, event.charge_id)[-CHARGE_IDS_MAX:],
            )
        case MachineReconciled():
            return replace(state, told=(event.ours_usd_micros, event.theirs_usd_micros))
        case _:
            assert_never(event)


MACHINE = Aggregate("machine", Machine(), decide, evolve, MachineEvent)
