"""What became of deliveries: a mailbox is one endpoint's stretch of the public stream.

Every outcome is written down once however often it is reported: an attempt counts when its number is new, being taken
on counts the first time. So the dispatcher may be killed anywhere and report again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from libs.refusal import Refused
from proto.base import Event
from proto.webhook_dispatch.commands import ForgetDeliveries, Record, RecordDeliveries
from proto.webhook_dispatch.events import DeliveriesForgotten, DeliveriesRecorded, Forgotten, MailboxEvent, Recorded
from proto.webhook_dispatch.words import Attempt, Delivery, DeliveryStatus
from services.webhook_dispatch.decider.retry_schedule import verdict


class Progress(Struct, frozen=True):
    """How far one delivery is. `tries` counts attempts since it was last begun, `attempts` all of them."""

    status: DeliveryStatus
    attempts: int = 0
    tries: int = 0
    next_at: datetime | None = None


class Mailbox(Struct, frozen=True):
    """At most words.MAILBOX_SEQS deliveries, because a mailbox is that many messages of PUB."""

    deliveries: dict[str, Progress] = {}


EMPTY = Mailbox()
GIVEN_UP = frozenset({"exhausted", "skipped"})
SETTLED = GIVEN_UP | {"delivered"}
FORGOTTEN_AT_ONCE_MAX = 2_000  # about 50 bytes each: well within one commit


def decide(state: Mailbox, command: RecordDeliveries | ForgetDeliveries) -> Sequence[Event]:
    """One event with all that is new, or nothing."""
    if isinstance(command, ForgetDeliveries):
        return _forget(state, command)
    seen: dict[str, Progress] = {}
    said: list[Recorded] = []
    for record in command.records:
        known = seen.get(record.delivery_id) or state.deliveries.get(record.delivery_id)
        recorded = _taken_on(known, record) if record.attempt is None else _attempted(known, record, command.pace_ppm)
        if recorded is not None:
            said.append(recorded)
            seen[record.delivery_id] = _progress(recorded)
    if not said:
        return []
    return [DeliveriesRecorded(endpoint_id=command.endpoint_id, account_id=command.account_id, records=tuple(said))]


def _forget(state: Mailbox, command: ForgetDeliveries) -> Sequence[Event]:
    settled = [Forgotten(name, each.attempts) for name, each in state.deliveries.items() if each.status in SETTLED]
    if not settled:
        return []
    return [
        DeliveriesForgotten(
            endpoint_id=command.endpoint_id,
            account_id=command.account_id,
            deliveries=tuple(settled[:FORGOTTEN_AT_ONCE_MAX]),
            has_more=len(settled) > FORGOTTEN_AT_ONCE_MAX,
        )
    ]


def _taken_on(known: Progress | None, record: Record) -> Recorded | None:
    """New, or begun again after it had been given up."""
    if known is not None and (record.reopened_after != known.attempts or known.status not in GIVEN_UP):
        return None
    skipped = "" if record.reopened_after is not None else record.skipped
    return Recorded(
        delivery_id=record.delivery_id,
        status="skipped" if skipped else "waiting",
        attempts=0 if known is None else known.attempts,
        tries=0,
        delivery=_new(record) if known is None else None,
        reason=skipped,
    )


def _attempted(known: Progress | None, record: Record, pace_ppm: int) -> Recorded | None:
    attempt = record.attempt
    assert attempt is not None
    if known is not None and attempt.number <= known.attempts:
        return None
    tries = (known.tries if known else 0) + 1
    status, next_at, reason = _outcome(known, attempt, record, tries, pace_ppm)
    return Recorded(
        delivery_id=record.delivery_id,
        status=status,
        attempts=attempt.number,
        tries=tries,
        delivery=_new(record) if known is None else None,
        attempt=attempt,
        next_at=next_at,
        reason=reason,
    )


def _outcome(
    known: Progress | None, attempt: Attempt, record: Record, tries: int, pace_ppm: int
) -> tuple[DeliveryStatus, datetime | None, str]:
    if attempt.outcome == "delivered":
        return "delivered", None, ""
    if known is not None and (attempt.trigger == "resend" or known.status == "delivered"):
        return known.status, known.next_at, ""  # one more try by hand takes nothing away
    if record.is_final:
        return "exhausted", None, attempt.error or f"HTTP {attempt.status_code}"
    judged = verdict(
        tries,
        attempt.at + timedelta(milliseconds=attempt.took_ms),
        jitter_ppm=record.jitter_ppm,
        retry_after_s=record.retry_after_s,
        pace_ppm=pace_ppm,
    )
    return judged.status, judged.next_at, "" if judged.next_at else f"{tries} tries failed"


def _new(record: Record) -> Delivery:
    """Raises DELIVERY_NOT_FOUND: then the runtime looks whether somebody has written it down meanwhile."""
    if record.delivery is None:
        raise Refused("DELIVERY_NOT_FOUND", delivery_id=record.delivery_id)
    return record.delivery


def _progress(recorded: Recorded) -> Progress:
    return Progress(recorded.status, recorded.attempts, recorded.tries, recorded.next_at)


def evolve(state: Mailbox, event: MailboxEvent) -> Mailbox:
    if isinstance(event, DeliveriesForgotten):
        gone = {each.delivery_id for each in event.deliveries}
        return Mailbox({name: each for name, each in state.deliveries.items() if name not in gone})
    return Mailbox({**state.deliveries, **{each.delivery_id: _progress(each) for each in event.records}})
