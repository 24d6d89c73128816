"""What each fact leaves behind in an account. Pure; used by `account` and, to look ahead, by `charging`.

Folding never refuses: what is in the log has happened. It does check that every transaction balances, because a ledger
that does not is worse than a stopped one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from msgspec.structs import replace

from proto.billing.events import (
    AccountEvent,
    AlertRearmed,
    AlertsSet,
    BalanceExhausted,
    BalanceLow,
    BalanceRestored,
    BalanceStorageExpired,
    BalanceStorageExpiring,
    BalanceSuspended,
    BroughtForward,
    CreditsAdded,
    CreditsExpired,
    CreditsGranted,
    HoldPlaced,
    HoldReleased,
    InstanceEnded,
    LedgerAdjusted,
    LedgerOpened,
    MeterChanged,
    TickPlanned,
    TopUpFailed,
    TopUpWanted,
    UsageCharged,
)
from proto.billing.ledger import Boundary, Grant, Hold, Meter
from proto.billing.words import Burn
from services.billing.decider import grants
from services.billing.decider.metering import folded, forgets_until, horizon, is_live, is_over, with_boundary
from services.billing.decider.packing import unpack
from services.billing.decider.postings import applied
from services.billing.decider.state import Account, charged, with_hold, with_meter, with_only, without_hold

# A payment is repeated within a redelivery; the payment's own stream knows its reference for ever.
CREDIT_IDS_MAX = 256
TOP_UP_PAUSE = timedelta(minutes=10)  # after a refill that did not suffice
# Pruning looks at every meter, so a large account waits for more facts: a fact pays for as many looks.
PRUNE_EVERY_MIN = 16
PRUNE_SHARE = 16
LINES_PER_WEIGHT = 64  # a tick's line is read as fast as a 64th of a fact of its own
WELCOME = "welcome"


def evolve(ledger: Account, event: AccountEvent) -> Account:
    """The account after one fact. Raises Unbalanced."""
    if isinstance(event, BroughtForward):  # tells all of it, how much it weighs included
        return unpack(event)
    weight = ledger.weight + 1
    if isinstance(event, UsageCharged):
        weight += len(event.lines) // LINES_PER_WEIGHT
    after = _evolve(replace(ledger, totals=applied(ledger, event), weight=weight), event)
    step = max(PRUNE_EVERY_MIN, len(after.meters) // PRUNE_SHARE)
    return _pruned(after) if weight // step > ledger.weight // step else after


def _evolve(ledger: Account, event: AccountEvent) -> Account:
    match event:
        case UsageCharged():
            return charged(_burnt(ledger, event.burns), event.until)
        case MeterChanged():
            return _meter_changed(ledger, event)
        case InstanceEnded():
            return _with_facts_until(replace(ledger, ended={**ledger.ended, event.instance_id: event.at}), event)
        case HoldPlaced():
            return with_hold(ledger, event.instance_id, Hold(event.usd_micros, event.expires_at))
        case HoldReleased():
            return without_hold(ledger, event.instance_id)
        case LedgerOpened():
            return replace(ledger, account_id=event.account_id)
        case AlertsSet():
            is_other = event.alerts.auto_top_up != ledger.alerts.auto_top_up
            return replace(ledger, alerts=event.alerts, top_up_after=None if is_other else ledger.top_up_after)
        case CreditsAdded() | CreditsGranted() | CreditsExpired() | LedgerAdjusted():
            return _credited(ledger, event)
        case TopUpWanted() | TopUpFailed():
            return _topped_up(ledger, event)
        case AlertRearmed() | BalanceLow() | BalanceExhausted() | BalanceSuspended() | BalanceRestored():
            return _warned(ledger, event)
        case BalanceStorageExpiring():
            return replace(ledger, storage_kept_until=event.kept_until, is_storage_expiring=True)
        case BalanceStorageExpired() | TickPlanned():
            return ledger
        case BroughtForward():
            return unpack(event)
        case _:
            assert_never(event)


def _meter_changed(ledger: Account, event: MeterChanged) -> Account:
    known = ledger.meters.get(event.meter_id) or Meter(
        event.meter_id, event.instance_id, event.line, ended_at=ledger.ended.get(event.instance_id)
    )
    if event.is_end:
        changed = replace(known, ended_at=event.at)
    else:
        boundary = Boundary(event.at, event.rate_usd_micros_per_hour, event.machine_id)
        changed = replace(with_boundary(known, boundary), label=event.label)
    if event.meter_until > event.charged_until:
        changed = replace(changed, paid_until=event.meter_until)
    is_running = event.line == "gpu" and event.rate_usd_micros_per_hour > 0
    if is_running or event.is_end:
        ledger = without_hold(ledger, event.instance_id)
    ledger = with_meter(_burnt(ledger, event.burns), changed, charged_until=event.charged_until)
    return _with_facts_until(ledger, event)


def _burnt(ledger: Account, burns: Sequence[Burn]) -> Account:
    """After a charge: what is left of the grants, and what they did not suffice for."""
    uncollected = ledger.uncollected_usd_micros + grants.not_collected(burns)
    return replace(ledger, grants=grants.burnt(ledger.grants, burns), uncollected_usd_micros=uncollected)


def _with_facts_until(ledger: Account, event: MeterChanged | InstanceEnded) -> Account:
    newest = event.at if ledger.newest_fact_at is None else max(ledger.newest_fact_at, event.at)
    return replace(ledger, newest_fact_at=newest)


def _pruned(ledger: Account) -> Account:
    """Without what is too old for a late fact to change."""
    oldest, forgets = horizon(ledger), forgets_until(ledger)
    if oldest is None or forgets is None:
        return ledger
    meters = {
        key: folded(meter, oldest) for key, meter in ledger.meters.items() if not _is_done(ledger, meter, forgets)
    }
    return replace(
        with_only(ledger, meters),
        ended={key: at for key, at in ledger.ended.items() if at >= forgets},
        forgotten_until=forgets if forgets > oldest else ledger.forgotten_until,
    )


def _is_done(ledger: Account, meter: Meter, before: datetime) -> bool:
    """It ended before then, and has been charged to its end."""
    return is_over(meter, before) and (ledger.charged_until is None or not is_live(meter, ledger.charged_until))


def _credited(ledger: Account, event: CreditsAdded | CreditsGranted | CreditsExpired | LedgerAdjusted) -> Account:
    if not isinstance(event, CreditsExpired) and event.usd_micros > 0:  # money came: what was not collected is past
        ledger = replace(ledger, uncollected_usd_micros=0)
    match event:
        case CreditsExpired():
            return replace(
                ledger,
                grants=tuple(
                    replace(grant, left_usd_micros=grant.left_usd_micros - event.usd_micros, expired=True)
                    if grant.grant_id == event.grant_id
                    else grant
                    for grant in ledger.grants
                ),
            )
        case LedgerAdjusted():
            return _known(replace(ledger, grants=grants.burnt(ledger.grants, event.burns)), event.adjustment_id)
        case CreditsGranted():
            grant = Grant(
                event.credit_id,
                event.kind,
                event.usd_micros - event.repaid_usd_micros,
                used_usd_micros=event.repaid_usd_micros,
                priority=grants.BONUS_PRIORITY if event.kind == "bonus" else grants.PAID_PRIORITY,
                expires_at=event.expires_at,
            )
            granted = replace(ledger, grants=grants.with_grant(ledger.grants, grant))
            if event.credit_id == WELCOME:
                granted = replace(granted, is_welcomed=True)
            return _known(granted, event.credit_id)
        case CreditsAdded():
            return _purchased(ledger, event)


def _purchased(ledger: Account, event: CreditsAdded) -> Account:
    held = grants.with_grant(
        ledger.grants,
        Grant(
            event.credit_id,
            "paid",
            event.usd_micros - event.repaid_usd_micros,
            used_usd_micros=event.repaid_usd_micros,
            priority=grants.PAID_PRIORITY,
        ),
    )
    if event.bonus_usd_micros:
        bonus = Grant(
            bonus_id(event.credit_id),
            "bonus",
            event.bonus_usd_micros,
            priority=grants.BONUS_PRIORITY,
            expires_at=event.bonus_expires_at,
        )
        held = grants.with_grant(held, bonus)
    ledger = _known(replace(ledger, grants=held), event.credit_id)
    if event.credit_id != ledger.top_up_id:
        return ledger
    return replace(ledger, top_up_id="", top_up_after=event.added_at + TOP_UP_PAUSE)


def bonus_id(credit_id: str) -> str:
    """The grant that a purchase brings along."""
    return f"{credit_id}_bonus"


def _known(ledger: Account, credit_id: str) -> Account:
    return replace(ledger, credit_ids=(*ledger.credit_ids, credit_id)[-CREDIT_IDS_MAX:])


def _topped_up(ledger: Account, event: TopUpWanted | TopUpFailed) -> Account:
    if isinstance(event, TopUpWanted):
        day = event.wanted_at.date().isoformat() if event.wanted_at is not None else ""
        before = ledger.top_up_day_usd_micros if day == ledger.top_up_day else 0
        return replace(
            ledger,
            top_up_id=event.payment_id,
            top_ups=ledger.top_ups + 1,
            top_up_day=day,
            top_up_day_usd_micros=before + event.usd_micros,
        )
    return replace(ledger, top_up_id="", top_up_after=event.again_at)


def _warned(
    ledger: Account, event: AlertRearmed | BalanceLow | BalanceExhausted | BalanceSuspended | BalanceRestored
) -> Account:
    match event:
        case AlertRearmed(reason="money"):
            return replace(ledger, is_money_armed=True)
        case AlertRearmed():
            return replace(ledger, is_runway_armed=True)
        case BalanceLow(reason="money"):
            return replace(ledger, is_money_armed=False)
        case BalanceLow():
            return replace(ledger, is_runway_armed=False)
        case BalanceExhausted():
            return replace(ledger, stage="grace", grace_until=event.grace_until)
        case BalanceSuspended():
            until = event.storage_kept_until or ledger.storage_kept_until
            return replace(ledger, stage="suspended", grace_until=None, storage_kept_until=until)
        case BalanceRestored():
            kept = {"storage_kept_until": None, "is_storage_expiring": False}
            return replace(ledger, stage="ok", grace_until=None, **kept)
