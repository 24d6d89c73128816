"""The account as its rules hold it: the ledger, and what its meters and holds add up to. Pure.

Used by the account's rules. A wish of a customer with thousands of running things is decided on these sums, not by a
look at each thing. Meters and holds are changed here only, so the sums are never behind; the log has the ledger alone,
and whoever reads it there adds up anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from msgspec import field
from msgspec.structs import replace

from proto.billing.ledger import Hold, Ledger, Meter
from services.billing.decider.metering import has_run_evenly, is_live, rate_of


class Account(Ledger, frozen=True, omit_defaults=True, gc=False):
    """`meters_of`: ids of each instance's meters. `uneven`: ids of the meters that time adds to otherwise than by the
    rate they have run at since they were paid last; few, because a stop or a new price is paid up to its instant."""

    running: int = 0
    burn_usd_micros_per_hour: int = 0
    pending_usd_micros: int = 0
    uneven: frozenset[str] = frozenset()
    meters_of: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def is_metering(self) -> bool:
        """Whether time adds to the bill, or an end has not been charged yet."""
        return self.running > 0 or bool(self.uneven)

    def of_instance(self, instance_id: str) -> tuple[Meter, ...]:
        return tuple(self.meters[meter_id] for meter_id in self.meters_of.get(instance_id, ()))


def added_up(ledger: Ledger) -> Account:
    """Looks at everything once."""
    rates = [rate_of(meter) for meter in ledger.meters.values()]
    return Account(
        **{name: getattr(ledger, name) for name in Ledger.__struct_fields__},
        running=sum(rate > 0 for rate in rates),
        burn_usd_micros_per_hour=sum(rates),
        pending_usd_micros=sum(hold.usd_micros for hold in ledger.holds.values()),
        uneven=frozenset(key for key, meter in ledger.meters.items() if _is_uneven(meter, ledger.charged_until)),
        meters_of=_by_instance(ledger.meters),
    )


def ledger_of(account: Account) -> Ledger:
    """What the log is told of it."""
    return Ledger(**{name: getattr(account, name) for name in Ledger.__struct_fields__})


def with_meter(account: Account, meter: Meter, *, charged_until: datetime) -> Account:
    known = account.meters.get(meter.meter_id)
    before, rate = 0 if known is None else rate_of(known), rate_of(meter)
    meters_of = account.meters_of
    if known is None:
        others = meters_of.get(meter.instance_id, ())
        meters_of = {**meters_of, meter.instance_id: (*others, meter.meter_id)}
    meters = {**account.meters, meter.meter_id: meter}
    return replace(
        account,
        meters=meters,
        meters_of=meters_of,
        charged_until=charged_until,
        running=account.running + (rate > 0) - (before > 0),
        burn_usd_micros_per_hour=account.burn_usd_micros_per_hour + rate - before,
        uneven=_still_uneven(account.uneven | {meter.meter_id}, meters, charged_until),
    )


def charged(account: Account, until: datetime) -> Account:
    """All meters up to then."""
    return replace(account, charged_until=until, uneven=_still_uneven(account.uneven, account.meters, until))


def with_only(account: Account, meters: dict[str, Meter]) -> Account:
    """Without what has ended and is paid; the others with less of their past."""
    is_fewer = len(meters) < len(account.meters)
    return replace(account, meters=meters, meters_of=_by_instance(meters) if is_fewer else account.meters_of)


def with_hold(account: Account, instance_id: str, hold: Hold) -> Account:
    known = account.holds.get(instance_id)
    more = hold.usd_micros - (0 if known is None else known.usd_micros)
    holds = {**account.holds, instance_id: hold}
    return replace(account, holds=holds, pending_usd_micros=account.pending_usd_micros + more)


def without_hold(account: Account, instance_id: str) -> Account:
    known = account.holds.get(instance_id)
    if known is None:
        return account
    holds = {key: hold for key, hold in account.holds.items() if key != instance_id}
    return replace(account, holds=holds, pending_usd_micros=account.pending_usd_micros - known.usd_micros)


def _still_uneven(suspects: frozenset[str], meters: Mapping[str, Meter], charged_until: datetime) -> frozenset[str]:
    return frozenset(key for key in suspects if _is_uneven(meters[key], charged_until))


def _is_uneven(meter: Meter, charged_until: datetime | None) -> bool:
    if charged_until is None or not is_live(meter, charged_until):
        return False
    return not rate_of(meter) or not has_run_evenly(meter, charged_until)


def _by_instance(meters: Mapping[str, Meter]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for meter_id, meter in meters.items():
        found.setdefault(meter.instance_id, []).append(meter_id)
    return {instance_id: tuple(ids) for instance_id, ids in found.items()}
