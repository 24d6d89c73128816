"""Whether the money lasts: what is available, for how long, and what is said on the way down and up. Pure.

ok -> grace -> suspended -> ok. The hold of ten minutes of burn is what grace lives on: it begins when nothing but the
hold is left, and ends with half of it left, so that what is suspended can be hibernated. What still runs then is named
again at every tick, with the balance, and just when nothing is left; whoever hears that stops it. What runs beyond
that, and the storage that is kept, is not collected: usage never takes a prepaid balance below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from libs.ids import derive_id
from libs.money import SECONDS_PER_HOUR, cost_micros
from proto.billing.events import (
    AlertRearmed,
    BalanceExhausted,
    BalanceLow,
    BalanceRestored,
    BalanceStorageExpired,
    BalanceStorageExpiring,
    BalanceSuspended,
    TopUpFailed,
    TopUpWanted,
)
from proto.billing.ledger import Meter
from proto.billing.words import LowReason
from services.billing.decider import retention
from services.billing.decider.metering import day_start, paid_until, rate_of, usage_between, whole_seconds
from services.billing.decider.state import Account

Step: TypeAlias = (
    AlertRearmed
    | BalanceExhausted
    | BalanceLow
    | BalanceRestored
    | BalanceStorageExpired
    | BalanceStorageExpiring
    | BalanceSuspended
    | TopUpFailed
    | TopUpWanted
)

HOLD_S = 600  # ten minutes of burn are set aside for whatever runs (design 7)
GRACE_S_MAX = 300  # half of what the hold covers; the rest is for stopping and for the last tick
TICK_S = 600  # a balance that lasts is charged this often; reads add what has run since
TICK_SOON_S = 60  # one that may run out is watched closely: at most this much burn can be missing
JUST_AFTER_S = 2  # whole seconds and rounding of each meter
SOON_S = 7_200  # closer than this is soon; two ordinary ticks fit in many times
RUNWAY_LOW_S = 86_400  # contract dumont 2: less than 24 hours left
RUNWAY_REARM_S = 108_000  # 30 hours: a quarter above, so that a price change does not warn twice
TOP_UPS_A_DAY = 3  # unless the customer says otherwise: an error that spends is found after three payments
REASON = "insufficient_balance"


class Standing(Struct, frozen=True, kw_only=True):
    """What an account comes to at one instant. `wanted`: what should be set aside; `held`: what is there for it."""

    posted_usd_micros: int
    wanted_usd_micros: int
    burn_usd_micros_per_hour: int

    @property
    def held_usd_micros(self) -> int:
        return min(self.wanted_usd_micros, max(self.posted_usd_micros, 0))

    @property
    def available_usd_micros(self) -> int:
        return self.posted_usd_micros - self.held_usd_micros

    @property
    def free_usd_micros(self) -> int:
        """What may be set aside for more; below zero, when not even what runs is covered."""
        return self.posted_usd_micros - self.wanted_usd_micros

    @property
    def runway_s(self) -> int | None:
        """Seconds until nothing is left; None: nothing runs."""
        if self.burn_usd_micros_per_hour == 0:
            return None
        return max(0, self.posted_usd_micros * SECONDS_PER_HOUR // self.burn_usd_micros_per_hour)


class Bounds(NamedTuple):
    """An account stands somewhere between these two."""

    worst: Standing
    best: Standing


def bounds(ledger: Account, now: datetime, *, prepaid: bool = True) -> Bounds:
    """Without a look at each meter: what has run since the last tick is at least nothing, and at most what all that
    runs would have cost since. Where both lead to the same, that is what follows."""
    most = _accrued_at_most(ledger, now)
    best = _standing(ledger, 0, prepaid)
    return Bounds(_standing(ledger, most, prepaid) if most else best, best)


def _accrued_at_most(ledger: Account, now: datetime) -> int:
    """An even meter rounds its time up by less than a second and its cost by less than a micro."""
    if ledger.charged_until is None or now <= ledger.charged_until:
        return 0
    seconds = whole_seconds(ledger.charged_until, now) + 1
    most = cost_micros(seconds, ledger.burn_usd_micros_per_hour) + ledger.running + 1
    return most + sum(_accrued(ledger.meters[key], ledger.charged_until, now) for key in ledger.uneven)


def standing(ledger: Account, now: datetime, *, prepaid: bool = True) -> Standing:
    """With what has run since the last tick, whether it is charged yet or not, to the micro-unit: it looks at every
    meter. A prepaid account is not asked for more than it has."""
    accrued = 0
    if ledger.charged_until is not None and now > ledger.charged_until:
        accrued = sum(_accrued(meter, ledger.charged_until, now) for meter in ledger.meters.values())
    return _standing(ledger, accrued, prepaid)


def _accrued(meter: Meter, charged_until: datetime, now: datetime) -> int:
    since = paid_until(meter, charged_until)
    return usage_between(meter, since, now)[1] if now > since else 0


def _standing(ledger: Account, accrued: int, prepaid: bool) -> Standing:
    posted = ledger.posted_usd_micros
    return Standing(
        posted_usd_micros=max(posted - accrued, min(posted, 0)) if prepaid else posted - accrued,
        wanted_usd_micros=cost_micros(HOLD_S, ledger.burn_usd_micros_per_hour) + ledger.pending_usd_micros,
        burn_usd_micros_per_hour=ledger.burn_usd_micros_per_hour,
    )


def next_tick_at(ledger: Account, now: datetime, *, since: datetime) -> datetime | None:
    """When to charge next, `since` having charged last; None: nothing runs. Facts in between do not put it off."""
    left_alone_until = quiet_until(ledger, now)
    if left_alone_until is not None:
        return left_alone_until
    worst, best = bounds(ledger, now)
    due_at = _due_at(ledger, worst, now, since)
    if worst.posted_usd_micros > 0 and due_at == _due_at(ledger, best, now, since):
        return due_at
    return _due_at(ledger, standing(ledger, now), now, since)


def _due_at(ledger: Account, stands: Standing, now: datetime, since: datetime) -> datetime | None:
    if stands.runway_s is None:
        return None
    is_soon = stands.runway_s < SOON_S and (ledger.stage != "suspended" or running(ledger))
    tick_s = TICK_SOON_S if is_soon else TICK_S
    due_at = max(now, since + timedelta(seconds=tick_s))
    if stands.posted_usd_micros > 0 and stands.runway_s < tick_s:  # looked at again just when nothing is left
        due_at = min(due_at, now + timedelta(seconds=stands.runway_s + JUST_AFTER_S))
    if ledger.stage == "grace" and ledger.grace_until is not None and ledger.grace_until > now:
        return min(due_at, ledger.grace_until)
    return due_at


def quiet_until(ledger: Account, now: datetime) -> datetime | None:
    """Until when time changes nothing on an empty account of which only files are left; None: it may at any tick.

    Until its files are named or given up, or (days are closed then) midnight UTC: 30 ticks in a month, not 4,320.
    """
    is_empty = ledger.stage == "suspended" and ledger.posted_usd_micros <= 0 and not running(ledger)
    if not is_empty or not ledger.burn_usd_micros_per_hour or ledger.alerts.auto_top_up.amount_usd_micros:
        return None
    midnight = day_start(now) + timedelta(days=1)
    due_at = retention.next_step_at(ledger)
    if due_at is None:
        return midnight
    return min(midnight, due_at) if due_at > now else None


def steps(
    ledger: Account,
    now: datetime,
    *,
    is_refilled: bool = False,
    started: Collection[str] | None = None,
    storage_kept: timedelta | None = None,
) -> Sequence[Step]:
    """What is to be said about the balance as it stands. `storage_kept`: how long unpaid, None for ever.

    Asked again at once, it says no more but a suspension. Of a suspended account only the instances that have
    `started` just now are named (None: all that run): each is told once, and again at the next tick if it runs on.
    """

    def said(stands: Standing) -> Sequence[Step]:
        return _steps(ledger, stands, now, is_refilled=is_refilled, started=started, storage_kept=storage_kept)

    return _said(said, bounds(ledger, now), lambda: standing(ledger, now))


def _said(
    said: Callable[[Standing], Sequence[Step]], between: Bounds, exactly: Callable[[], Standing]
) -> Sequence[Step]:
    """Each step has a threshold: who says nothing at worst and nothing at best says nothing in between."""
    if not said(between.worst) and not said(between.best):
        return []
    return said(exactly())


def _steps(
    ledger: Account,
    stands: Standing,
    now: datetime,
    *,
    is_refilled: bool,
    started: Collection[str] | None,
    storage_kept: timedelta | None,
) -> Sequence[Step]:
    stage = [_with_storage(ledger, one, now, storage_kept) for one in _stage(ledger, stands, now, is_refilled, started)]
    if started is None and ledger.stage == "suspended" and not any(isinstance(one, BalanceRestored) for one in stage):
        stage += _storage(ledger, stands, now, storage_kept)
    return [*_alerts(ledger, stands), *stage, *_top_up(ledger, stands, now)]


def _with_storage(ledger: Account, said: Step, now: datetime, storage_kept: timedelta | None) -> Step:
    """A suspension says until when the files are kept; said again, it says the same."""
    if not isinstance(said, BalanceSuspended) or storage_kept is None:
        return said
    return replace(said, storage_kept_until=ledger.storage_kept_until or now + storage_kept)


def _storage(ledger: Account, stands: Standing, now: datetime, storage_kept: timedelta | None) -> Sequence[Step]:
    if storage_kept is None:
        return []
    if ledger.storage_kept_until is None and retention.stored(ledger):  # suspended before there was such a time
        return [_with_storage(ledger, _suspended(ledger, stands, now, ()), now, storage_kept)]
    return retention.steps(ledger, now, REASON)


def warnings(ledger: Account, now: datetime) -> Sequence[Step]:
    """As `steps`, for who pays afterwards: nothing is stopped."""
    between = bounds(ledger, now, prepaid=False)
    return _said(lambda stands: _alerts(ledger, stands), between, lambda: standing(ledger, now, prepaid=False))


def _alerts(ledger: Account, stands: Standing) -> Sequence[Step]:
    said: list[Step] = []
    threshold = ledger.alerts.low_usd_micros
    if stands.posted_usd_micros >= threshold:
        if not ledger.is_money_armed:
            said.append(AlertRearmed(account_id=ledger.account_id, reason="money"))
    elif ledger.is_money_armed:
        said.append(_low(ledger, stands, "money", threshold))
    runway_s = stands.runway_s
    if runway_s is None:
        return said
    if runway_s < RUNWAY_LOW_S and ledger.is_runway_armed:
        in_a_day = stands.burn_usd_micros_per_hour * RUNWAY_LOW_S // SECONDS_PER_HOUR
        said.append(_low(ledger, stands, "runway", in_a_day))
    elif runway_s >= RUNWAY_REARM_S and not ledger.is_runway_armed:
        said.append(AlertRearmed(account_id=ledger.account_id, reason="runway"))
    return said


def _low(ledger: Account, stands: Standing, reason: LowReason, threshold: int) -> BalanceLow:
    return BalanceLow(
        account_id=ledger.account_id,
        reason=reason,
        balance_usd_micros=stands.posted_usd_micros,
        threshold_usd_micros=threshold,
        hourly_cost_usd_micros=stands.burn_usd_micros_per_hour,
        runway_s=stands.runway_s,
    )


def _stage(
    ledger: Account, stands: Standing, now: datetime, is_refilled: bool, started: Collection[str] | None
) -> Sequence[Step]:
    is_covered = stands.posted_usd_micros >= stands.wanted_usd_micros and stands.posted_usd_micros > 0
    runway_s = stands.runway_s
    if is_covered or runway_s is None:
        is_news = ledger.stage != "ok" and is_covered and (is_refilled or runway_s is not None)
        return [_restored(ledger, stands, is_refilled)] if is_news else []
    if ledger.stage == "ok":
        grace_s = max(0, min(GRACE_S_MAX, runway_s - TICK_SOON_S))
        if grace_s > 0:
            return [_exhausted(ledger, stands, runway_s, now, grace_s)]
        return [_exhausted(ledger, stands, runway_s, now, 0), _suspended(ledger, stands, now, running(ledger))]
    is_grace = ledger.stage == "grace" and ledger.grace_until is not None and now < ledger.grace_until
    if is_grace and runway_s > TICK_SOON_S:  # less, when more runs than did when grace began
        return []
    named = running(ledger)
    if ledger.stage == "suspended" and started is not None:
        named &= set(started)
    return [_suspended(ledger, stands, now, named)] if named or ledger.stage == "grace" else []


def _restored(ledger: Account, stands: Standing, is_refilled: bool) -> BalanceRestored:
    return BalanceRestored(
        account_id=ledger.account_id,
        reason="credits_added" if is_refilled else "less_is_running",
        balance_usd_micros=stands.posted_usd_micros,
    )


def _exhausted(ledger: Account, stands: Standing, runway_s: int, now: datetime, grace_s: int) -> BalanceExhausted:
    """Said by a tick or by whatever else took the money: the next tick is due as if a tick had said it."""
    return BalanceExhausted(
        account_id=ledger.account_id,
        reason=REASON,
        balance_usd_micros=stands.posted_usd_micros,
        hourly_cost_usd_micros=stands.burn_usd_micros_per_hour,
        runway_s=runway_s,
        grace_until=now + timedelta(seconds=grace_s),
        next_tick_at=now + timedelta(seconds=min(grace_s, TICK_SOON_S)),
    )


def running(ledger: Account) -> set[str]:
    """Instances of which a machine costs money now."""
    return {meter.instance_id for meter in ledger.meters.values() if meter.line != "volume" and rate_of(meter)}


def _suspended(ledger: Account, stands: Standing, now: datetime, instance_ids: Collection[str]) -> BalanceSuspended:
    wait_s = TICK_SOON_S
    if stands.posted_usd_micros > 0 and stands.runway_s is not None:
        wait_s = min(wait_s, stands.runway_s + JUST_AFTER_S)
    return BalanceSuspended(
        account_id=ledger.account_id,
        reason=REASON,
        balance_usd_micros=stands.posted_usd_micros,
        instance_ids=tuple(sorted(instance_ids)),
        next_tick_at=now + timedelta(seconds=wait_s) if instance_ids else None,
    )


def _top_up(ledger: Account, stands: Standing, now: datetime) -> Sequence[Step]:
    """One at a time, after a refusal or a refill not at once again, and no more on a day than the customer allows."""
    wish = ledger.alerts.auto_top_up
    is_waiting = ledger.top_up_id or (ledger.top_up_after is not None and now < ledger.top_up_after)
    if not wish.amount_usd_micros or is_waiting or stands.posted_usd_micros >= wish.threshold_usd_micros:
        return []
    today = day_start(now)
    asked = ledger.top_up_day_usd_micros if ledger.top_up_day == today.date().isoformat() else 0
    if asked + wish.amount_usd_micros > (wish.day_usd_micros_max or TOP_UPS_A_DAY * wish.amount_usd_micros):
        tomorrow = today + timedelta(days=1)
        return [TopUpFailed(account_id=ledger.account_id, payment_id="", again_at=tomorrow, reason="daily_maximum")]
    return [
        TopUpWanted(
            account_id=ledger.account_id,
            payment_id=derive_id("pay", ledger.account_id, "top_up", str(ledger.top_ups + 1)),
            usd_micros=wish.amount_usd_micros,
            wanted_at=now,
        )
    ]
