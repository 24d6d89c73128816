"""The rules of one customer's account: a prepaid double-entry ledger. Pure; called by the runtime.

Here: credits, holds, and the order in which a wish is carried out. What time adds to the bill is in `charging`, what is
said when money runs out in `ladder`, what a fact leaves behind in `folding`.

Prepaid means: a hold is refused when less is available than it needs, and usage never takes the balance below zero.
What runs between the last look and the stop, and the storage of an empty account, is revenue that is not collected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial, reduce
from typing import assert_never

import msgspec
from msgspec.structs import replace

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import COMMIT_BYTES_MAX, Event
from proto.billing.commands import (
    AddCredits,
    AdjustLedger,
    ExpireCredits,
    ExpireHold,
    NoteEnd,
    NoteRate,
    NoteTopUpDeclined,
    OpenAccount,
    PlaceHold,
    ReleaseHold,
    SetAlerts,
    Tick,
)
from proto.billing.events import (
    AccountEvent,
    AlertsSet,
    BroughtForward,
    CreditsAdded,
    CreditsExpired,
    CreditsGranted,
    HoldPlaced,
    HoldReleased,
    LedgerAdjusted,
    LedgerOpened,
    MeterChanged,
    TickPlanned,
    TopUpFailed,
)
from proto.billing.words import OWED, UNCOLLECTED, Beyond
from services.billing.decider import charging
from services.billing.decider.folding import WELCOME, evolve
from services.billing.decider.grants import BONUS_LIFETIME, bonus_of, burn
from services.billing.decider.ladder import bounds, next_tick_at, quiet_until, standing, steps, warnings
from services.billing.decider.metering import rate_of
from services.billing.decider.packing import pack
from services.billing.decider.postings import stamped
from services.billing.decider.retention import KEPT
from services.billing.decider.state import Account

# A machine may take ten minutes to come up; then its hold lapses (or its meter has taken over long ago).
HOLD_LIFETIME = timedelta(minutes=15)
# Running things and things about to run: a start beyond is refused. Their standbys and volumes are metered beside them.
RUNNING_MAX = 4_000
TOP_UP_RETRY = timedelta(hours=1)
# Facts that are read to load an account. Of a large one they are more, because telling it takes longer, but its ticks,
# with a line for each meter, weigh more as well (`folding.LINES_PER_WEIGHT`).
BROUGHT_FORWARD_EVERY_MIN = 256
BROUGHT_FORWARD_SHARE = 4
BROUGHT_FORWARD_BYTES_MAX = COMMIT_BYTES_MAX - 16 * 1024  # beside the facts of the same commit and their envelope
REASON_CHARS_MAX = 200

AccountCommand = (
    OpenAccount
    | PlaceHold
    | ReleaseHold
    | SetAlerts
    | AdjustLedger
    | NoteRate
    | NoteEnd
    | AddCredits
    | NoteTopUpDeclined
    | Tick
    | ExpireHold
    | ExpireCredits
)


def decide(
    ledger: Account, command: AccountCommand, *, prepaid: bool = True, storage_kept: timedelta | None = KEPT
) -> Sequence[Event]:
    """What follows from a wish or a fact that was heard. Raises Refused. The same again gives nothing.

    Not `prepaid` (a cloud of one's own): everything is counted and warned about, nothing is stopped.
    `storage_kept`: how long files are kept unpaid; None: for ever.
    """
    said: list[AccountEvent] = []
    before = ledger
    for event in _opening(ledger, command):
        said.append(stamped(ledger, event))
        ledger = evolve(ledger, said[-1])
    beyond = UNCOLLECTED if prepaid else OWED
    if isinstance(command, AddCredits | AdjustLedger | ExpireCredits) and _wished(ledger, command, beyond):
        # What ran until now was covered by what there was until now, or was not.
        for event in charging.tick(ledger, Tick(now=command.now, account_id=ledger.account_id), beyond):
            said.append(stamped(ledger, event))
            ledger = evolve(ledger, said[-1])
    for event in _wished(ledger, command, beyond):
        said.append(stamped(ledger, event))
        ledger = evolve(ledger, said[-1])
    if said and prepaid:
        is_refilled = any(isinstance(event, CreditsAdded | CreditsGranted | LedgerAdjusted) for event in said)
        changed = [event for event in said if isinstance(event, MeterChanged)]
        started = None if isinstance(command, Tick) else {event.instance_id for event in changed}
        told = steps(ledger, command.now, is_refilled=is_refilled, started=started, storage_kept=storage_kept)
        said += told
        if not changed and quiet_until(before, command.now) is not None:
            said += _planned(reduce(evolve, told, ledger), command.now)
    elif said:
        said += warnings(ledger, command.now)
    return _brought_forward(before, said)


def _planned(ledger: Account, now: datetime) -> Sequence[TickPlanned]:
    """An account that was empty and is not is charged as often as any, not at the far instant that was set for it."""
    if ledger.charged_until is None or quiet_until(ledger, now) is not None:
        return []
    due_at = next_tick_at(ledger, now, since=ledger.charged_until)
    return [] if due_at is None else [TickPlanned(account_id=ledger.account_id, next_tick_at=due_at)]


def _opening(ledger: Account, command: AccountCommand) -> Sequence[AccountEvent]:
    """An account opens with the first thing that happens to it."""
    said: list[AccountEvent] = []
    if not ledger.account_id and not isinstance(command, Tick | ExpireHold | ExpireCredits | NoteTopUpDeclined):
        said.append(LedgerOpened(account_id=command.account_id, currency="USD", opened_at=command.now))
    welcome = command.welcome_usd_micros if isinstance(command, OpenAccount | PlaceHold) else 0
    if welcome and not ledger.is_welcomed:
        said.append(
            CreditsGranted(
                account_id=command.account_id,
                credit_id=WELCOME,
                granted_at=command.now,
                usd_micros=welcome,
                reason="welcome_credit",
                repaid_usd_micros=min(welcome, -ledger.totals.get("owed", 0)),
            )
        )
    return said


def _wished(ledger: Account, command: AccountCommand, beyond: Beyond) -> Sequence[AccountEvent]:
    match command:
        case OpenAccount():
            return []
        case PlaceHold():
            return _hold(ledger, command)
        case ReleaseHold():
            return _release(ledger, command.instance_id, command.reason)
        case ExpireHold():
            hold = ledger.holds.get(command.instance_id)
            is_due = hold is not None and command.now >= hold.expires_at
            return _release(ledger, command.instance_id, "expired") if is_due else []
        case NoteRate():
            return charging.note_rate(ledger, command, beyond)
        case NoteEnd():
            ended = charging.note_end(ledger, command, beyond)
            return [*ended, *_release(ledger, command.instance_id, "instance_deleted")]
        case Tick():
            return charging.tick(ledger, command, beyond)
        case AddCredits():
            return _add_credits(ledger, command)
        case _:
            return _settled(ledger, command)


def _settled(
    ledger: Account, command: ExpireCredits | SetAlerts | AdjustLedger | NoteTopUpDeclined
) -> Sequence[AccountEvent]:
    match command:
        case ExpireCredits():
            return _expire(ledger, command)
        case SetAlerts():
            if command.alerts == ledger.alerts:
                return []
            return [AlertsSet(account_id=ledger.account_id, alerts=command.alerts)]
        case AdjustLedger():
            return _adjust(ledger, command)
        case NoteTopUpDeclined():
            if command.payment_id != ledger.top_up_id:
                return []
            again_at = command.now + TOP_UP_RETRY
            return [TopUpFailed(account_id=ledger.account_id, payment_id=command.payment_id, again_at=again_at)]
        case _:
            assert_never(command)


# --- holds --------------------------------------------------------------------------------------------------------


def _hold(ledger: Account, command: PlaceHold) -> Sequence[AccountEvent]:
    """Once per instance: what runs, or is about to, needs no second one."""
    if any(rate_of(meter) for meter in ledger.of_instance(command.instance_id) if meter.line == "gpu"):
        return []
    known = ledger.holds.get(command.instance_id)
    if known is not None and command.now < known.expires_at:
        return []
    if len(ledger.holds) + ledger.running >= RUNNING_MAX and known is None:
        raise Refused("QUOTA_EXCEEDED", instance_id=command.instance_id, limit=RUNNING_MAX)
    needed = command.usd_micros - (known.usd_micros if known else 0)
    if bounds(ledger, command.now).worst.free_usd_micros < needed:
        short = standing(ledger, command.now).free_usd_micros - needed
        if short < 0:
            available = max(short + command.usd_micros, 0)
            raise Refused("INSUFFICIENT_BALANCE", needed_usd_micros=command.usd_micros, available_usd_micros=available)
    return [
        HoldPlaced(
            account_id=ledger.account_id,
            instance_id=command.instance_id,
            usd_micros=command.usd_micros,
            expires_at=command.now + HOLD_LIFETIME,
        )
    ]


def _release(ledger: Account, instance_id: str, reason: str) -> Sequence[AccountEvent]:
    if instance_id not in ledger.holds:
        return []
    return [HoldReleased(account_id=ledger.account_id, instance_id=instance_id, reason=reason)]


# --- credits ------------------------------------------------------------------------------------------------------


def _add_credits(ledger: Account, command: AddCredits) -> Sequence[AccountEvent]:
    if command.credit_id in ledger.credit_ids:
        return []
    bonus = bonus_of(command.usd_micros)
    return [
        CreditsAdded(
            account_id=ledger.account_id,
            credit_id=command.credit_id,
            added_at=command.now,
            usd_micros=command.usd_micros,
            bonus_usd_micros=bonus,
            bonus_expires_at=command.now + BONUS_LIFETIME if bonus else None,
            repaid_usd_micros=min(command.usd_micros, -ledger.totals.get("owed", 0)),
            method=command.method,
            reference=command.reference,
        )
    ]


def _expire(ledger: Account, command: ExpireCredits) -> Sequence[AccountEvent]:
    for grant in ledger.grants:
        if grant.grant_id != command.grant_id or grant.expired or grant.expires_at is None:
            continue
        if command.now >= grant.expires_at:
            return [
                CreditsExpired(
                    account_id=ledger.account_id,
                    grant_id=grant.grant_id,
                    expired_at=grant.expires_at,
                    usd_micros=grant.left_usd_micros,
                )
            ]
    return []


def _adjust(ledger: Account, command: AdjustLedger) -> Sequence[AccountEvent]:
    if command.adjustment_id in ledger.credit_ids or not command.usd_micros:
        return []
    return [
        LedgerAdjusted(
            account_id=ledger.account_id,
            adjustment_id=command.adjustment_id,
            adjusted_at=command.now,
            usd_micros=command.usd_micros,
            reason=command.reason[:REASON_CHARS_MAX],
            burns=burn(ledger, -command.usd_micros),
            instance_id=command.instance_id,
        )
    ]


# --- the account as a whole ---------------------------------------------------------------------------------------


def _brought_forward(ledger: Account, said: Sequence[AccountEvent]) -> Sequence[Event]:
    """Now and then a commit begins with the whole account, so that loading it does not take its whole life.

    It must be the first fact of its commit: `libs.runtime.aggregates` starts to fold there (docs/adr/0015).
    """
    if not said or ledger.weight < max(BROUGHT_FORWARD_EVERY_MIN, len(ledger.meters) // BROUGHT_FORWARD_SHARE):
        return said
    whole = pack(replace(ledger, weight=0))
    beside = sum(len(msgspec.json.encode(event)) for event in said)
    if len(msgspec.json.encode(whole)) + beside > BROUGHT_FORWARD_BYTES_MAX:
        return said
    return [whole, *said]


ACCOUNT = Aggregate("account", Account(), decide, evolve, AccountEvent, whole=BroughtForward)


def account(*, prepaid: bool, storage_kept: timedelta | None) -> Aggregate:
    """As an installation wants it: paid before or afterwards, its unpaid files kept so long (None: for ever)."""
    return dataclasses.replace(ACCOUNT, decide=partial(decide, prepaid=prepaid, storage_kept=storage_kept))
