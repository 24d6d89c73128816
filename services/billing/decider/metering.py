"""What a meter costs: pure functions of the set of its boundaries. Used by the account's rules, by queries, by tests.

Cost is computed on the cumulative whole seconds of each segment, so any partition of the time gives the same total,
and on the *set* of boundaries, so any order and repetition of what was heard gives the same total. What was charged is
always `cost_at(meter, charged_until)`: a late fact moves the cost, and the difference is a correction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time, timedelta

from msgspec.structs import replace

from libs.money import charge_micros, cost_micros
from proto.billing.ledger import Boundary, Ledger, Meter
from proto.billing.words import Segment

# Facts of one account reach us in order but for milliseconds; a day covers any backlog that replays out of order.
REORDER_MAX = timedelta(days=1)
# An account where thousands of things come and go remembers those that have ended for an hour only.
CROWDED_METERS = 2_000
REORDER_WHEN_CROWDED_MAX = timedelta(hours=1)
SECOND = timedelta(seconds=1)
FAR = datetime.max.replace(tzinfo=UTC)


def segments(meter: Meter, until: datetime = FAR) -> Iterator[tuple[datetime, datetime, Boundary]]:
    """(start, end, what ran) in order; equal neighbours are one segment, so a repeated fact does not cut it in two."""
    return _segments(meter.boundaries, _end_of(meter, until))


def _end_of(meter: Meter, until: datetime) -> datetime:
    return until if meter.ended_at is None else min(until, meter.ended_at)


def _segments(boundaries: Sequence[Boundary], end_of_all: datetime) -> Iterator[tuple[datetime, datetime, Boundary]]:
    running: Boundary | None = None
    for boundary in boundaries:
        if boundary.at >= end_of_all:
            break
        if _same(running, boundary):
            continue
        if running is not None and running.rate_usd_micros_per_hour and boundary.at > running.at:
            yield running.at, boundary.at, running
        running = boundary
    if running is not None and running.rate_usd_micros_per_hour and end_of_all > running.at:
        yield running.at, end_of_all, running


def _same(running: Boundary | None, boundary: Boundary) -> bool:
    return (
        running is not None
        and running.rate_usd_micros_per_hour == boundary.rate_usd_micros_per_hour
        and running.machine_id == boundary.machine_id
    )


def whole_seconds(since: datetime, until: datetime) -> int:
    return (until - since) // SECOND if until > since else 0


def cost_at(meter: Meter, until: datetime) -> int:
    """What the meter comes to, from its beginning until then."""
    return meter.settled_usd_micros + sum(
        cost_micros(whole_seconds(since, end), ran.rate_usd_micros_per_hour)
        for since, end, ran in segments(meter, until)
    )


def usage_between(meter: Meter, since: datetime, until: datetime) -> tuple[int, int]:
    """(seconds, micros) that fall between two instants, cut on cumulative seconds so that neighbours add up."""
    seconds = micros = 0
    boundaries = meter.boundaries
    if len(boundaries) > 1:
        boundaries = boundaries[_first_after(boundaries, since) :]
    if len(boundaries) == 1 and meter.ended_at is None:  # nearly all there are: one stretch, still running
        (ran,) = boundaries
        if until <= ran.at or not ran.rate_usd_micros_per_hour:
            return 0, 0
        before, now = whole_seconds(ran.at, since), whole_seconds(ran.at, until)
        return now - before, charge_micros(before, now, ran.rate_usd_micros_per_hour)
    for start, end, ran in _segments(boundaries, _end_of(meter, until)):
        if end <= since:
            continue
        before, now = whole_seconds(start, since), whole_seconds(start, end)
        seconds += now - before
        micros += charge_micros(before, now, ran.rate_usd_micros_per_hour)
    return seconds, micros


def running_segment(meter: Meter) -> Boundary | None:
    """What runs now and with no end known, dated from the start of its segment."""
    last = None
    for last in segments(meter):  # noqa: B007 - the last one is wanted
        pass
    return last[2] if last is not None and last[1] == FAR else None


def rate_of(meter: Meter) -> int:
    """Micros per hour that the meter costs from now on."""
    if meter.ended_at is not None or not meter.boundaries:
        return 0
    return meter.boundaries[-1].rate_usd_micros_per_hour


def with_boundary(meter: Meter, boundary: Boundary) -> Meter:
    """The set with one more element. At one instant the lowest rate counts: a doubt is the customer's."""
    if boundary in meter.boundaries:
        return meter
    boundaries = sorted((*meter.boundaries, boundary), key=_order)
    return replace(meter, boundaries=tuple(boundaries))


def _order(boundary: Boundary) -> tuple[datetime, int, str]:
    return boundary.at, -boundary.rate_usd_micros_per_hour, boundary.machine_id


def is_live(meter: Meter, charged_until: datetime) -> bool:
    """Whether time still adds to it: it runs, or its end has not been charged yet."""
    last = meter.ended_at
    if last is None:
        if not meter.boundaries:
            return False
        last = meter.boundaries[-1].at
        if meter.boundaries[-1].rate_usd_micros_per_hour:
            return True
    return last > charged_until and (meter.paid_until is None or last > meter.paid_until)


def has_run_evenly(meter: Meter, charged_until: datetime) -> bool:
    """Whether nothing but its present rate has run since it was paid last."""
    boundaries = meter.boundaries
    return len(boundaries) == 1 or _first_after(boundaries, paid_until(meter, charged_until)) == len(boundaries) - 1


def paid_until(meter: Meter, charged_until: datetime) -> datetime:
    return charged_until if meter.paid_until is None else max(meter.paid_until, charged_until)


def day_start(instant: datetime) -> datetime:
    """Midnight UTC before it: days and months are closed in UTC."""
    return datetime.combine(instant.date(), time(), UTC)


def horizon(ledger: Ledger) -> datetime | None:
    """Facts older than this are repetitions of what was settled; what they could change has been folded away."""
    if ledger.newest_fact_at is None or ledger.charged_until is None:
        return None
    return min(ledger.newest_fact_at - REORDER_MAX, day_start(ledger.charged_until))


def heard_since(ledger: Ledger) -> datetime | None:
    """Facts older than this change nothing: what they are about was folded away, or forgotten."""
    oldest, forgotten = horizon(ledger), ledger.forgotten_until
    return oldest if forgotten is None or oldest is None else max(oldest, forgotten)


def forgets_until(ledger: Ledger) -> datetime | None:
    """Meters that ended before then are forgotten. Never goes back: what was forgotten would be charged again."""
    oldest, newest = heard_since(ledger), ledger.newest_fact_at
    if oldest is None or newest is None or len(ledger.meters) <= CROWDED_METERS:
        return oldest
    return max(oldest, newest - REORDER_WHEN_CROWDED_MAX)


def folded(meter: Meter, before: datetime) -> Meter:
    """Without the boundaries that ended before then; their cost is kept."""
    keep = _first_after(meter.boundaries, before)
    if keep <= 0:
        return meter
    kept = meter.boundaries[keep:]
    settled = cost_at(meter, kept[0].at)
    return replace(meter, boundaries=kept, settled_usd_micros=settled)


def _first_after(boundaries: Sequence[Boundary], since: datetime) -> int:
    """The boundary that begins the segment of that instant: what is before it is of no concern from there on."""
    first = len(boundaries) - 1
    while first > 0 and boundaries[first].at > since:
        first -= 1
    while first > 0 and _same(boundaries[first - 1], boundaries[first]):
        first -= 1
    return max(first, 0)


def is_over(meter: Meter, before: datetime) -> bool:
    """It stopped before then, and all that was heard of it is older: nothing more comes of it."""
    instants = [boundary.at for boundary in meter.boundaries[-1:]]
    if meter.ended_at is not None:
        instants.append(meter.ended_at)
    return not rate_of(meter) and max(instants, default=before) < before


def closed_segments(meter: Meter, *, known: Meter | None) -> tuple[Segment, ...]:
    """Closed segments that `known` did not have, or had otherwise."""
    before = set(segments(known)) if known is not None else set[tuple[datetime, datetime, Boundary]]()
    return tuple(
        Segment(
            since=since,
            until=end,
            rate_usd_micros_per_hour=ran.rate_usd_micros_per_hour,
            usd_micros=cost_micros(whole_seconds(since, end), ran.rate_usd_micros_per_hour),
            machine_id=ran.machine_id,
        )
        for since, end, ran in segments(meter)
        if end != FAR and (since, end, ran) not in before
    )
