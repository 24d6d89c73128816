"""What we know of one provider host from our own attempts, and when to avoid it (contract dumont 7).

Automatic entries hold for the whole platform (account ""), manual ones for the account that made them. A cancelled
attempt says nothing about the host and is not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from libs.refusal import Refused
from proto.base import Event
from proto.instance.host_commands import Blacklist, HostCommand, RecordAttempt, Unblacklist
from proto.instance.host_events import AttemptRecorded, HostBlacklisted, HostEvent, HostUnblacklisted
from proto.instance.words import AttemptOutcome, AttemptStage

WINDOW_HOURS = 72
ATTEMPTS_MIN = 3
CONSECUTIVE_FAILURES = 3
FAILURE_RATE_PPM = 700_000
BLOCK_HOURS = 24
CRITICAL_STAGES: frozenset[AttemptStage | None] = frozenset({"rejected", "loading", "creating"})
CRITICAL_FACTOR = 2
RECENT_MAX = 500  # attempts of one host that we remember: more than a host can be given in 72 h
PLATFORM = ""
REASON_CHARS_MAX = 500


class Attempt(Struct, frozen=True):
    at: datetime
    outcome: AttemptOutcome
    stage: AttemptStage | None


class Host(Struct, frozen=True):
    """`recent` by attempt id, oldest first; `entries` maps an account ("" = platform) to its newest blacklist entry,
    `lifted` to when it took one back."""

    recent: dict[str, Attempt] = {}
    attempts_total: int = 0
    successes_total: int = 0
    entries: dict[str, HostBlacklisted] = {}
    lifted: dict[str, datetime] = {}


NO_HOST = Host()


def decide(state: Host, command: HostCommand) -> Sequence[Event]:
    """Record an attempt and judge the host, or keep an account's own list."""
    match command:
        case RecordAttempt():
            return _record(state, command)
        case Blacklist():
            return _blacklist(state, command)
        case Unblacklist():
            return _unblacklist(state, command)
        case _:
            raise TypeError(f"{type(command).__name__} is not a wish for a host")


def _record(state: Host, command: RecordAttempt) -> Sequence[Event]:
    if command.attempt_id in state.recent:
        return []
    counted = command.outcome != "cancelled"
    recorded = AttemptRecorded(
        provider=command.provider,
        host_id=command.host_id,
        attempt_id=command.attempt_id,
        offer=command.offer,
        outcome=command.outcome,
        instance_id=command.instance_id,
        attempted_at=command.now,
        stage=command.stage,
        reason=command.reason[:REASON_CHARS_MAX],
        took_ms=command.took_ms,
        attempts_total=state.attempts_total + counted,
        successes_total=state.successes_total + (command.outcome == "success"),
    )
    if command.outcome != "failure" or _is_active(state.entries.get(PLATFORM), command.now):
        return [recorded]
    verdict = _judge(_evolve_attempt(state, recorded), recorded)
    return [recorded] if verdict is None else [recorded, verdict]


def _judge(state: Host, failure: AttemptRecorded) -> HostBlacklisted | None:
    """The automatic rule, after a failure: on the counted attempts of the window, at least three of them."""
    since = failure.attempted_at - timedelta(hours=WINDOW_HOURS)
    attempts = [a for a in state.recent.values() if a.outcome != "cancelled" and a.at > since]
    failures = [a for a in attempts if a.outcome == "failure"]
    if len(attempts) < ATTEMPTS_MIN:
        return None
    if all(attempt.outcome == "failure" for attempt in attempts[-CONSECUTIVE_FAILURES:]):
        reason, hours = f"{CONSECUTIVE_FAILURES} failures in a row", BLOCK_HOURS
    elif len(failures) * 1_000_000 >= FAILURE_RATE_PPM * len(attempts):
        is_critical = any(attempt.stage in CRITICAL_STAGES for attempt in failures)
        reason = f"{len(failures)} of {len(attempts)} attempts failed"
        hours = BLOCK_HOURS * CRITICAL_FACTOR if is_critical else BLOCK_HOURS
    else:
        return None
    return HostBlacklisted(
        provider=failure.provider,
        host_id=failure.host_id,
        kind="auto",
        reason=reason,
        account_id=PLATFORM,
        gpu=failure.offer.gpu,
        expires_at=failure.attempted_at + timedelta(hours=hours),
        attempts_total=len(attempts),
        attempts_failed=len(failures),
        last_failure=failure.reason,
    )


def _is_active(entry: HostBlacklisted | None, now: datetime) -> bool:
    return entry is not None and (entry.expires_at is None or entry.expires_at > now)


def _blacklist(state: Host, command: Blacklist) -> Sequence[Event]:
    failures = [attempt for attempt in state.recent.values() if attempt.outcome == "failure"]
    entry = HostBlacklisted(
        provider=command.provider,
        host_id=command.host_id,
        kind=command.kind,
        reason=command.reason[:REASON_CHARS_MAX],
        account_id=command.account_id,
        gpu=command.gpu,
        expires_at=command.expires_at,
        attempts_total=state.attempts_total,
        attempts_failed=len(failures),
    )
    return [] if state.entries.get(command.account_id) == entry else [entry]


def _unblacklist(state: Host, command: Unblacklist) -> Sequence[Event]:
    """An account may lift its own entry; it may not lift the platform's."""
    if state.lifted.get(command.account_id) == command.now:
        return []  # the same wish, repeated
    if not _is_active(state.entries.get(command.account_id), command.now):
        raise Refused("BLACKLIST_ENTRY_NOT_FOUND", provider=command.provider, host_id=command.host_id)
    return [
        HostUnblacklisted(
            provider=command.provider, host_id=command.host_id, lifted_at=command.now, account_id=command.account_id
        )
    ]


def evolve(state: Host, event: HostEvent) -> Host:
    match event:
        case AttemptRecorded():
            return _evolve_attempt(state, event)
        case HostBlacklisted():
            return replace(state, entries={**state.entries, event.account_id: event})
        case HostUnblacklisted():
            entries = {account: entry for account, entry in state.entries.items() if account != event.account_id}
            return replace(state, entries=entries, lifted={**state.lifted, event.account_id: event.lifted_at})


def _evolve_attempt(state: Host, event: AttemptRecorded) -> Host:
    recent = dict(state.recent)
    since = event.attempted_at - timedelta(hours=WINDOW_HOURS)
    for attempt_id, attempt in state.recent.items():  # ends at the first that is to stay: a busy host has hundreds
        if attempt.at > since and len(recent) < RECENT_MAX:
            break
        del recent[attempt_id]
    recent[event.attempt_id] = Attempt(event.attempted_at, event.outcome, event.stage)
    return replace(state, recent=recent, attempts_total=event.attempts_total, successes_total=event.successes_total)
