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
    TopUpFailed,
    TopUpWanted,
    UsageCharged,
)
from proto.billing.ledger import Boundary, Grant, Hold, Ledger, Meter
from proto.billing.words import Burn
from services.billing.decider import grants
from services.billing.decider.metering import folded, forgets_until, horizon, is_live, is_over, with_boundary
from services.billing.decider.packing import unpack
from services.billing.decider.postings import applied

# A payment is repeated within a redelivery; the payment's own stream knows its reference for ever.
CREDIT_IDS_MAX = 256
TOP_UP_PAUSE = timedelta(minutes=10)  # after a refill that did not suffice
PRUNE_EVERY = 16  # facts: it looks at every meter
WELCOME = "welcome"


def evolve(ledger: Ledger, event: AccountEvent) -> Ledger:
    """The account after one fact. Raises Unbalanced."""
    if isinstance(event, BroughtForward):
        return unpack(event)
    totals = applied(ledger, event)
    return _evolve(replace(ledger, totals=totals, weight=ledger.weight + 1), ledger, event)


def _evolve(ledger: Ledger, before: Ledger, event: AccountEvent) -> Ledger:
    match event:
        case UsageCharged():
            charged = replace(_burnt(ledger, event.burns), charged_until=event.until)
            return _pruned(charged) if ledger.weight % PRUNE_EVERY == 0 else charged
        case MeterChanged():
            return _meter_changed(ledger, event)
        case InstanceEnded():
            return _with_facts_until(replace(ledger, ended={**ledger.ended, event.instance_id: event.at}), event)
        case HoldPlaced():
            hold = Hold(event.usd_micros, event.expires_at)
            return replace(ledger, holds={**ledger.holds, event.instance_id: hold})
        case HoldReleased():
            return replace(ledger, holds=_without(ledger.holds, event.instance_id))
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
        case BalanceStorageExpired():
            return ledger
        case BroughtForward():
            return before
        case _:
            assert_never(event)


def _meter_changed(ledger: Ledger, event: MeterChanged) -> Ledger:
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
    ledger = replace(
        _burnt(ledger, event.burns),
        meters={**ledger.meters, event.meter_id: changed},
        holds=_without(ledger.holds, event.instance_id) if is_running or event.is_end else ledger.holds,
        charged_until=event.charged_until,
    )
    return _with_facts_until(ledger, event)


def _burnt(ledger: Ledger, burns: Sequence[Burn]) -> Ledger:
    """After a charge: what is left of the grants, and what they did not suffice for."""
    uncollected = ledger.uncollected_usd_micros + grants.not_collected(burns)
    return replace(ledger, grants=grants.burnt(ledger.grants, burns), uncollected_usd_micros=uncollected)


def _with_facts_until(ledger: Ledger, event: MeterChanged | InstanceEnded) -> Ledger:
    """Remember how far facts have come. Pruning looks at every meter, so it is done now and then."""
    newest = event.at if ledger.newest_fact_at is None else max(ledger.newest_fact_at, event.at)
    ledger = replace(ledger, newest_fact_at=newest)
    return _pruned(ledger) if ledger.weight % PRUNE_EVERY == 0 else ledger


def _pruned(ledger: Ledger) -> Ledger:
    """Without what is too old for a late fact to change."""
    oldest, forgets = horizon(ledger), forgets_until(ledger)
    if oldest is None or forgets is None:
        return ledger
    return replace(
        ledger,
        meters={
            key: folded(meter, oldest) for key, meter in ledger.meters.items() if not _is_done(ledger, meter, forgets)
        },
        ended={key: at for key, at in ledger.ended.items() if at >= forgets},
        forgotten_until=forgets if forgets > oldest else ledger.forgotten_until,
    )


def _is_done(ledger: Ledger, meter: Meter, before: datetime) -> bool:
    """It ended before then, and has been charged to its end."""
    return is_over(meter, before) and (ledger.charged_until is None or not is_live(meter, ledger.charged_until))


def _without(holds: dict[str, Hold], instance_id: str) -> dict[str, Hold]:
    if instance_id not in holds:
        return holds
    return {key: hold for key, hold in holds.items() if key != instance_id}


def _credited(ledger: Ledger, event: CreditsAdded | CreditsGranted | CreditsExpired | LedgerAdjusted) -> Ledger:
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


def _purchased(ledger: Ledger, event: CreditsAdded) -> Ledger:
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


def _known(ledger: Ledger, credit_id: str) -> Ledger:
    return replace(ledger, credit_ids=(*ledger.credit_ids, credit_id)[-CREDIT_IDS_MAX:])


def _topped_up(ledger: Ledger, event: TopUpWanted | TopUpFailed) -> Ledger:
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
    ledger: Ledger, event: AlertRearmed | BalanceLow | BalanceExhausted | BalanceSuspended | BalanceRestored
) -> Ledger:
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
