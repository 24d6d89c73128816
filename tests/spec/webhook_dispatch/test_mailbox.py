"""What becomes of deliveries: written down once, tried again on schedule, given up visibly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from libs.spec.given import spec
from libs.spec.properties import every_command_twice_is_once
from proto.base import Heard
from proto.webhook_dispatch.commands import ForgetDeliveries, Record, RecordDeliveries
from proto.webhook_dispatch.events import DeliveriesForgotten, DeliveriesRecorded, Forgotten, Recorded
from proto.webhook_dispatch.words import Attempt, AttemptOutcome, Delivery, Trigger
from services.webhook_dispatch.decider import MAILBOX
from services.webhook_dispatch.decider.mailbox import FORGOTTEN_AT_ONCE_MAX
from services.webhook_dispatch.decider.retry_schedule import PAUSES_S, TRIES_MAX, verdict
from services.webhook_dispatch.projection import project

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def delivery(number: int) -> Delivery:
    return Delivery(f"msg_{number}", f"cmt_{number}.0", "instance.ready", "inst_1", number, NOW, '{"id":1}')


def attempt(number: int, outcome: AttemptOutcome, trigger: Trigger = "event") -> Attempt:
    return Attempt(number, NOW, trigger, outcome, took_ms=0, status_code=200 if outcome == "delivered" else 500)


def record(*records: Record) -> RecordDeliveries:
    return RecordDeliveries(now=NOW, mailbox_id="whe_1_0", endpoint_id="whe_1", account_id="acct_1", records=records)


FORGET = ForgetDeliveries(now=NOW, mailbox_id="whe_1_0", endpoint_id="whe_1", account_id="acct_1")


def tried(number: int, outcome: AttemptOutcome, **more: object) -> Record:
    return Record("msg_1", delivery(1), attempt(number, outcome), **more)


def said(event: DeliveriesRecorded) -> list[tuple[str, int, int]]:
    return [(each.status, each.attempts, each.tries) for each in event.records]


def statuses(*commands: RecordDeliveries) -> list[tuple[str, int, int]]:
    outcome = spec(MAILBOX).given().when(*commands)
    outcome.then_kinds(*[DeliveriesRecorded] * len(outcome.events))
    return [line for event in outcome.events for line in said(event)]


def test_what_is_settled_is_forgotten_and_what_is_under_way_is_kept() -> None:
    begun = record(
        tried(1, "delivered"),
        Record("msg_2", delivery(2), attempt(1, "failed")),
        Record("msg_3", delivery(3), skipped="too many"),
    )
    outcome = spec(MAILBOX).given().when(begun, FORGET)
    forgotten = outcome.events[-1]
    assert isinstance(forgotten, DeliveriesForgotten)
    assert [(each.delivery_id, each.attempts) for each in forgotten.deliveries] == [("msg_1", 1), ("msg_3", 0)]
    assert not forgotten.has_more


def test_a_full_mailbox_is_forgotten_in_portions() -> None:
    total = 2 * FORGOTTEN_AT_ONCE_MAX
    begun = [
        record(
            *(Record(f"msg_{n}", delivery(n), attempt(1, "delivered")) for n in range(first, min(first + 100, total)))
        )
        for first in range(0, total, 100)
    ]
    outcome = spec(MAILBOX).given().when(*begun, FORGET, FORGET, FORGET)
    portions = [event for event in outcome.events if isinstance(event, DeliveriesForgotten)]
    assert [(len(event.deliveries), event.has_more) for event in portions] == [
        (FORGOTTEN_AT_ONCE_MAX, True),
        (FORGOTTEN_AT_ONCE_MAX, False),
    ]


def test_the_rows_of_a_mailbox_leave_thirty_days_after_its_last_word() -> None:
    done = DeliveriesRecorded(
        endpoint_id="whe_1", account_id="acct_1", records=(Recorded("msg_1", "delivered", 3, 3, delivery(1)),)
    )
    (due,) = (row for row in project(heard(done)) if row.table == "deadlines")
    assert due.columns is not None
    assert due.columns["due_at"] == NOW + timedelta(days=30)
    assert msgspec.json.decode(due.columns["command"], type=dict)["type"] == "forget_deliveries"
    gone = DeliveriesForgotten(endpoint_id="whe_1", account_id="acct_1", deliveries=(Forgotten("msg_1", 3),))
    rows = list(project(heard(gone)))
    assert [(row.table, row.columns) for row in rows] == [
        ("deliveries", None), *[("attempts", None)] * 3, ("deadlines", None),
    ]  # fmt: skip


def heard(event: Any) -> Heard:
    return Heard(event, "cmt_1.0", "whe_1_0", NOW, "EVT_WEBHOOK_DISPATCH", 1)


def test_an_outcome_told_twice_is_written_down_once() -> None:
    told = record(tried(1, "delivered"))
    assert statuses(told, told) == [("delivered", 1, 1)]


def test_the_bytes_are_written_down_with_the_first_word_only() -> None:
    outcome = spec(MAILBOX).given().when(record(Record("msg_1", delivery(1))), record(tried(1, "failed")))
    assert [each.delivery is not None for event in outcome.events for each in event.records] == [True, False]


def test_an_attempt_of_what_nobody_took_on_is_refused() -> None:
    spec(MAILBOX).given().when(record(Record("msg_1", None, attempt(1, "delivered")))).refused("DELIVERY_NOT_FOUND")


def test_ten_tries_and_then_it_is_given_up_visibly() -> None:
    lines = statuses(*(record(tried(number, "failed")) for number in range(1, TRIES_MAX + 1)))
    assert [status for status, _, _ in lines] == ["retrying"] * 9 + ["exhausted"]


def test_a_recovery_begins_again_with_what_was_given_up_and_only_that() -> None:
    again = record(Record("msg_1", delivery(1), reopened_after=1))
    assert statuses(record(tried(1, "failed", is_final=True)), again, again) == [("exhausted", 1, 1), ("waiting", 1, 0)]
    assert statuses(record(tried(1, "delivered")), again) == [("delivered", 1, 1)]


def test_a_failed_try_after_it_was_delivered_takes_nothing_away() -> None:
    assert statuses(record(tried(1, "delivered")), record(tried(2, "failed")))[-1] == ("delivered", 2, 2)


def test_a_failed_resend_takes_nothing_away() -> None:
    again = Record("msg_1", None, attempt(2, "failed", "resend"))
    assert statuses(record(tried(1, "delivered")), record(again)) == [("delivered", 1, 1), ("delivered", 2, 2)]
    outcome = spec(MAILBOX).given().when(record(tried(1, "failed")), record(again))
    first, second = (event.records[0] for event in outcome.events)
    assert (second.status, second.next_at) == ("retrying", first.next_at)


def test_too_many_waiting_is_visible() -> None:
    outcome = spec(MAILBOX).given().when(record(Record("msg_1", delivery(1), skipped="too many")))
    assert (outcome.events[0].records[0].status, outcome.events[0].records[0].reason) == ("skipped", "too many")


@pytest.mark.parametrize("tries", range(1, TRIES_MAX))
def test_the_schedule_is_the_specifications_within_a_fifth_either_way(tries: int) -> None:
    about = {"retry_after_s": 0, "pace_ppm": 1_000_000}
    soonest = verdict(tries, NOW, jitter_ppm=0, **about).next_at
    latest = verdict(tries, NOW, jitter_ppm=1_000_000, **about).next_at
    assert soonest == NOW + timedelta(seconds=PAUSES_S[tries - 1] * 0.8)
    assert latest == NOW + timedelta(seconds=PAUSES_S[tries - 1] * 1.2)


def test_retry_after_is_honoured_up_to_a_day() -> None:
    about = {"jitter_ppm": 0, "pace_ppm": 1_000_000}
    assert verdict(1, NOW, retry_after_s=600, **about).next_at == NOW + timedelta(minutes=10)
    assert verdict(1, NOW, retry_after_s=10**9, **about).next_at == NOW + timedelta(days=1)
    assert sum(PAUSES_S) == 75 * 3600 + 35 * 60 + 5


_RECORDS = st.builds(
    lambda number, tried_, reopened, skipped: Record(
        f"msg_{number}", delivery(number), tried_, reopened_after=reopened, skipped=skipped
    ),
    st.integers(1, 3),
    st.none() | st.builds(
        attempt, st.integers(1, 12), st.sampled_from(["delivered", "failed"]), st.sampled_from(["event", "resend"])
    ),
    st.none() | st.integers(0, 3),
    st.sampled_from(["", "too many"]),
)  # fmt: skip
_WISHES = st.lists(_RECORDS, min_size=1, max_size=4).map(lambda records: record(*records)) | st.just(FORGET)


def test_every_report_twice_is_once() -> None:
    every_command_twice_is_once(MAILBOX, _WISHES)
