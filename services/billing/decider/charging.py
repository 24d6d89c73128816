"""Charging: what a tick, a rate that changes and the end of an instance add to the bill. Pure; called by `account`.

The one invariant: what was charged for a meter is `cost_at(meter, until)`, where `until` is the account's
`charged_until` or the meter's own `paid_until`, whichever is later. Whatever is heard, and in whatever order, moves
both sides together, so a repetition finds nothing left to charge.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from libs.refusal import Refused
from proto.billing.commands import NoteEnd, NoteRate, Tick
from proto.billing.events import InstanceEnded, MeterChanged, UsageCharged
from proto.billing.ledger import Boundary, Meter
from proto.billing.words import Beyond, Line, UsageLine
from services.billing.decider.folding import evolve
from services.billing.decider.grants import burn
from services.billing.decider.ladder import next_tick_at
from services.billing.decider.metering import (
    closed_segments,
    cost_at,
    day_start,
    heard_since,
    is_live,
    paid_until,
    running_segment,
    usage_between,
    with_boundary,
)
from services.billing.decider.state import Account

# What one account meters, with what ended within the hour: a line and a day's closing line of each, some 50 bytes, must
# fit a commit (896 KB). Starts are refused far below it (`account.RUNNING_MAX`), so no running thing goes unmetered.
METERS_MAX = 8_000
LINES_PER_COMMIT_MAX = 2 * METERS_MAX
DAYS_PER_COMMIT_MAX = 62  # two months; a commit has room for 100 facts
DAY = timedelta(days=1)


def tick(ledger: Account, command: Tick, beyond: Beyond) -> Sequence[UsageCharged]:
    """Charge up to now, a day at a time, because days and months are closed at midnight UTC.

    After a long outage one commit takes as many days as fit; the next tick is due at once.
    """
    if ledger.charged_until is None:
        return []
    said: list[UsageCharged] = []
    lines = 0
    while ledger.charged_until is not None and command.now > ledger.charged_until:
        midnight = day_start(ledger.charged_until) + DAY
        live = [m for m in ledger.meters.values() if is_live(m, ledger.charged_until)]
        is_full = lines + 2 * len(live) > LINES_PER_COMMIT_MAX or len(said) >= DAYS_PER_COMMIT_MAX
        if not live or is_full:
            break
        charged = _charge(ledger, live, min(midnight, command.now), beyond, is_day_end=midnight <= command.now)
        lines += len(charged.lines) + len(charged.day_lines)
        said.append(charged)
        ledger = evolve(ledger, charged)
    if said:
        due_at = command.now if said[-1].until < command.now else next_tick_at(ledger, command.now, since=command.now)
        said[-1] = replace(said[-1], next_tick_at=due_at if ledger.is_metering else None)
    return said


def _charge(
    ledger: Account, live: Sequence[Meter], until: datetime, beyond: Beyond, *, is_day_end: bool
) -> UsageCharged:
    assert ledger.charged_until is not None
    lines: list[UsageLine] = []
    day_lines: list[UsageLine] = []
    revenue: dict[Line, int] = {}
    day = day_start(ledger.charged_until)
    for meter in live:
        since = paid_until(meter, ledger.charged_until)
        if until > since:
            seconds, micros = usage_between(meter, since, until)
            lines.append(UsageLine(meter.meter_id, seconds, micros))
            revenue[meter.line] = revenue.get(meter.line, 0) + micros
        # Readers add what the present rate has come to; what ran at another, or has ended, no later line would tell.
        if is_day_end or meter.meter_id in ledger.uneven:
            day_lines.append(UsageLine(meter.meter_id, *usage_between(meter, day, until)))
    return UsageCharged(
        account_id=ledger.account_id,
        since=ledger.charged_until,
        until=until,
        lines=tuple(lines),
        revenue=revenue,
        burns=burn(ledger, sum(revenue.values()), beyond),
        is_day_end=is_day_end,
        day_lines=tuple(day_lines),
    )


def note_rate(ledger: Account, command: NoteRate, beyond: Beyond) -> Sequence[MeterChanged]:
    """A rate that is known already, or too old to matter, changes nothing."""
    oldest = heard_since(ledger)
    if oldest is not None and command.at < oldest:
        return []
    known = ledger.meters.get(command.meter_id)
    before = known or Meter(
        command.meter_id,
        command.instance_id,
        command.line,
        command.label,
        ended_at=ledger.ended.get(command.instance_id),
    )
    boundary = Boundary(command.at, command.rate_usd_micros_per_hour, command.machine_id)
    after = with_boundary(before, boundary)
    if after is before:
        return []
    if known is None and len(ledger.meters) >= METERS_MAX:
        raise Refused("QUOTA_EXCEEDED", instance_id=command.instance_id, limit=METERS_MAX)
    return [_changed(ledger, before, after, command, beyond, is_new=known is None)]


def note_end(ledger: Account, command: NoteEnd, beyond: Beyond) -> Sequence[InstanceEnded | MeterChanged]:
    """Every meter of the instance ends; so will one that is heard of later."""
    oldest = heard_since(ledger)
    known = ledger.ended.get(command.instance_id)
    if (known is not None and known <= command.at) or (oldest is not None and command.at < oldest):
        return []
    said: list[InstanceEnded | MeterChanged] = [
        InstanceEnded(account_id=ledger.account_id, instance_id=command.instance_id, at=command.at)
    ]
    for meter in ledger.of_instance(command.instance_id):
        note = NoteRate(
            now=command.now,
            account_id=ledger.account_id,
            meter_id=meter.meter_id,
            instance_id=meter.instance_id,
            line=meter.line,
            at=command.at,
        )
        changed = _changed(ledger, meter, replace(meter, ended_at=command.at), note, beyond, is_new=False)
        said.append(replace(changed, is_end=True))
        ledger = evolve(ledger, said[-1])
    return said


def _changed(
    ledger: Account, before: Meter, after: Meter, note: NoteRate, beyond: Beyond, *, is_new: bool
) -> MeterChanged:
    """Charge the one meter up to `at` when that is today; what is further back is a correction, further on a tick."""
    charged_until = _starting_point(ledger, note.at)
    was_paid = paid_until(before, charged_until)
    until = was_paid
    if was_paid < note.at < day_start(was_paid) + DAY and not is_new:
        until = note.at
    micros = cost_at(after, until) - cost_at(before, was_paid)
    today = day_start(until)
    adjustment = cost_at(after, today) - cost_at(before, today)
    day_seconds, day_micros = usage_between(after, today, until)
    running = running_segment(after)
    changed = MeterChanged(
        account_id=ledger.account_id,
        meter_id=after.meter_id,
        instance_id=after.instance_id,
        line=after.line,
        at=note.at,
        rate_usd_micros_per_hour=note.rate_usd_micros_per_hour,
        machine_id=note.machine_id,
        label=note.label or after.label,
        usd_micros=micros,
        adjustment_usd_micros=adjustment,
        day=today.date().isoformat(),
        day_seconds=day_seconds,
        day_usd_micros=day_micros,
        meter_until=until,
        charged_until=charged_until,
        since=running.at if running is not None else None,
        segments=closed_segments(after, known=before),
        burns=burn(ledger, micros, beyond),
    )
    return replace(changed, next_tick_at=_tick_after(ledger, changed, note.now))


def _starting_point(ledger: Account, at: datetime) -> datetime:
    """Where charging goes on from. While nothing runs, time passes without being charged."""
    if ledger.charged_until is None:
        return at
    return ledger.charged_until if ledger.is_metering else max(ledger.charged_until, at)


def _tick_after(ledger: Account, changed: MeterChanged, now: datetime) -> datetime | None:
    """A closed meter may need one more tick; a day that was not closed needs one at once."""
    after = evolve(ledger, changed)
    assert after.charged_until is not None
    if not after.is_metering:
        return None
    is_behind = day_start(max(now, changed.at)) > day_start(after.charged_until)
    if is_behind or not after.running:
        return now
    return min(next_tick_at(after, now, since=after.charged_until) or now, after.charged_until + DAY)
