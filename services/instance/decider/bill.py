"""What a cloud charged us for one machine: each of its charges is told once. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from proto.base import Event
from proto.instance.host_commands import ReportBill
from proto.instance.host_events import MachineBilled

CHARGES_REMEMBERED_MAX = 2_048  # a machine of a month is charged by the hour: 744


class Bill(Struct, frozen=True):
    """The charges of one machine that were told."""

    charge_ids: tuple[str, ...] = ()


NO_BILL = Bill()


def decide(state: Bill, command: ReportBill) -> Sequence[Event]:
    if command.charge_id in state.charge_ids:
        return []
    return [
        MachineBilled(
            account_id=command.account_id,
            instance_id=command.instance_id,
            machine_id=command.machine_id,
            provider=command.provider,
            charge_id=command.charge_id,
            number=command.number,
            since=command.since,
            until=command.until,
            usd_micros=command.usd_micros,
        )
    ]


def evolve(state: Bill, event: MachineBilled) -> Bill:
    return Bill((*state.charge_ids, event.charge_id)[-CHARGES_REMEMBERED_MAX:])
