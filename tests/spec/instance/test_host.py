"""What our own attempts say about a host, and when it is avoided (contract dumont 7)."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from libs.spec.given import Given, spec
from proto.base import Event, Heard
from proto.instance.events import (
    MachineCancelled,
    MachineFailed,
    MachineHealthy,
    MachineRented,
)
from proto.instance.host_commands import Blacklist, RecordAttempt, Unblacklist
from proto.instance.host_events import AttemptRecorded, HostBlacklisted, HostUnblacklisted
from proto.instance.words import AttemptOutcome
from services.instance import policy
from services.instance.decider import HOST
from tests.spec.instance.controls import (
    ACCOUNT,
    INSTANCE_ID,
    MACHINE,
    NOW,
    OFFER,
    OFFER_2,
    OTHER_ACCOUNT,
    PROVIDER_ID,
    minutes,
)

BLOCK = Blacklist(now=NOW, provider="sandbox", host_id="host_1", account_id=ACCOUNT, reason="slow disk")
UNBLOCK = Unblacklist(now=minutes(1), provider="sandbox", host_id="host_1", account_id=ACCOUNT)


def attempt(number: int, outcome: AttemptOutcome, *, hours: int = 0, stage: str | None = "connecting") -> RecordAttempt:
    return RecordAttempt(
        now=NOW + timedelta(hours=hours),
        provider="sandbox",
        host_id="host_1",
        attempt_id=f"att_{number}",
        offer=OFFER,
        outcome=outcome,
        instance_id=INSTANCE_ID,
        stage=stage if outcome == "failure" else None,
        reason="no answer" if outcome == "failure" else "",
    )


def attempted(*outcomes: AttemptOutcome, stage: str = "connecting") -> Given:
    """A host after these attempts."""
    given = spec(HOST).given()
    for number, outcome in enumerate(outcomes):
        given = given.given(*given.when(attempt(number, outcome, stage=stage)).events)
    return given


def blacklisting(given: Given, command: RecordAttempt) -> HostBlacklisted | None:
    events = given.when(command).events
    return next((event for event in events if isinstance(event, HostBlacklisted)), None)


def test_an_attempt_is_recorded_once() -> None:
    attempted("success").when(attempt(0, "success")).then_nothing()


def test_totals_include_the_attempt_and_leave_cancelled_ones_out() -> None:
    given = attempted("success", "cancelled", "failure")
    recorded = given.when(attempt(9, "success")).events[0]
    assert isinstance(recorded, AttemptRecorded)
    assert (recorded.attempts_total, recorded.successes_total) == (3, 2)


def test_three_failures_in_a_row_block_the_host_for_a_day_for_everybody() -> None:
    entry = blacklisting(attempted("failure", "failure"), attempt(9, "failure"))
    assert entry is not None
    assert (entry.kind, entry.account_id, entry.expires_at) == ("auto", "", NOW + timedelta(hours=24))
    assert (entry.attempts_total, entry.attempts_failed, entry.last_failure) == (3, 3, "no answer")


def test_two_attempts_are_too_few_to_judge_a_host() -> None:
    assert blacklisting(attempted("failure"), attempt(9, "failure")) is None


def test_a_failure_rate_of_seventy_percent_blocks_the_host_for_a_day() -> None:
    entry = blacklisting(attempted("failure", "failure", "success"), attempt(9, "failure"))
    assert entry is not None
    assert entry.expires_at == NOW + timedelta(hours=24)


def test_a_failure_rate_with_failures_before_the_connection_blocks_the_host_for_two_days() -> None:
    entry = blacklisting(attempted("failure", "failure", "success", stage="loading"), attempt(9, "failure"))
    assert entry is not None
    assert entry.expires_at == NOW + timedelta(hours=48)


def test_a_failure_rate_below_seventy_percent_blocks_nothing() -> None:
    assert blacklisting(attempted("failure", "success"), attempt(9, "failure")) is None


def test_a_cancelled_attempt_neither_counts_nor_interrupts_a_row_of_failures() -> None:
    assert blacklisting(attempted("failure", "cancelled"), attempt(9, "failure")) is None
    assert blacklisting(attempted("failure", "failure", "cancelled"), attempt(9, "failure")) is not None


def test_attempts_older_than_three_days_are_forgotten() -> None:
    assert blacklisting(attempted("failure", "failure"), attempt(9, "failure", hours=72)) is None


def test_a_blocked_host_is_not_blocked_again_until_its_time_is_over() -> None:
    given = attempted("failure", "failure", "failure")
    assert blacklisting(given, attempt(8, "failure", hours=23)) is None
    assert blacklisting(given, attempt(9, "failure", hours=24)) is not None


def test_an_account_keeps_its_own_list() -> None:
    entry = HostBlacklisted(provider="sandbox", host_id="host_1", kind="manual", reason="slow disk", account_id=ACCOUNT)
    lifted = HostUnblacklisted(provider="sandbox", host_id="host_1", lifted_at=minutes(1), account_id=ACCOUNT)
    story = spec(HOST).given().when(BLOCK).then(entry).when(BLOCK).then_nothing()
    story.when(UNBLOCK).then(lifted).when(UNBLOCK).then_nothing()


def test_an_account_cannot_lift_what_it_did_not_block() -> None:
    other = replace(UNBLOCK, account_id=OTHER_ACCOUNT)
    spec(HOST).given(*spec(HOST).given().when(BLOCK).events).when(other).refused("BLACKLIST_ENTRY_NOT_FOUND")
    attempted("failure", "failure", "failure").when(UNBLOCK).refused("BLACKLIST_ENTRY_NOT_FOUND")


def test_an_entry_that_has_expired_is_not_found() -> None:
    block = replace(BLOCK, expires_at=minutes(1))
    spec(HOST).given(*spec(HOST).given().when(block).events).when(UNBLOCK).refused("BLACKLIST_ENTRY_NOT_FOUND")


def reactions(event: Event) -> list[tuple[str, str]]:
    heard = Heard(event, "c1.0", INSTANCE_ID, NOW, "EVT_INSTANCE", 7)
    commands = list(policy.react(heard))
    assert commands == list(policy.react(heard)), "the same event must give the same attempts"
    return [(command.host_id, command.outcome) for command in commands if isinstance(command, RecordAttempt)]


def test_a_machine_that_became_healthy_is_a_success_of_its_host() -> None:
    event = MachineHealthy(instance_id=INSTANCE_ID, machine_id=MACHINE, provider="sandbox", offer=OFFER, took_ms=5)
    assert reactions(event) == [("host_1", "success")]


def test_losing_an_offer_to_somebody_else_says_nothing_about_the_host() -> None:
    event = MachineRented(
        instance_id=INSTANCE_ID,
        machine_id=MACHINE,
        provider="sandbox",
        provider_machine_id=PROVIDER_ID,
        offer=OFFER,
        rejected=(OFFER_2,),
    )
    assert reactions(event) == [("host_2", "cancelled")]


def test_a_machine_that_failed_is_a_failure_of_every_host_it_was_tried_on() -> None:
    event = MachineFailed(
        instance_id=INSTANCE_ID, machine_id=MACHINE, stage="loading", reason="x", offers=(OFFER, OFFER_2)
    )
    assert reactions(event) == [("host_1", "failure"), ("host_2", "failure")]
    assert reactions(replace(event, stage="rejected")) == [("host_1", "cancelled"), ("host_2", "cancelled")]


def test_a_withdrawn_wish_says_nothing_about_the_host() -> None:
    event = MachineCancelled(instance_id=INSTANCE_ID, machine_id=MACHINE, offer=OFFER)
    assert reactions(event) == [("host_1", "cancelled")]
    assert reactions(replace(event, offer=None)) == []
