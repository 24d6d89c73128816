"""The balance as of now: what is posted, less what has run since the last tick."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from libs.money import SECONDS_PER_HOUR, charge_micros, cost_micros
from proto.billing.queries import BalanceView, GetBalance, GetPayment, PaymentView
from proto.billing.words import AlertSettings, LedgerAccount
from services.billing.decider.ladder import HOLD_S
from services.billing.decider.metering import whole_seconds
from services.billing.queries.context import Context

_ACCOUNT_SQL = "select * from accounts where account_id = $1"
_RUNNING_SQL = """
select instance_id, line, rate, since, paid_until from meters where account_id = $1 and since is not null
"""
_HOLDS_SQL = "select coalesce(sum(usd_micros), 0)::bigint from holds where account_id = $1"
_PAYMENT_SQL = """
select p.*, e.usd_micros as credited, b.usd_micros as bonus
from payments p
left join entries e on e.account_id = p.account_id and e.type = 'credit_purchase' and e.reference_id = p.reference
left join entries b on b.account_id = p.account_id and b.type = 'credit_bonus' and b.reference_id = p.reference
where p.payment_id = $1 and p.account_id = $2
"""


async def get_balance(query: GetBalance, context: Context) -> BalanceView:
    now = context.world.clock.now()
    account = await context.pool.fetchrow(_ACCOUNT_SQL, query.account_id)
    if account is None or account["totals"] is None:
        return BalanceView(account_id=query.account_id, at=now, is_open=False)
    running = await context.pool.fetch(_RUNNING_SQL, query.account_id)
    pending = await context.pool.fetchval(_HOLDS_SQL, query.account_id)
    return _view(account, running, pending, now, prepaid=context.world.settings.prepaid)


def _view(account: Any, running: list[Any], pending: int, now: datetime, *, prepaid: bool) -> BalanceView:
    totals = msgspec.json.decode(account["totals"], type=dict[LedgerAccount, int])
    paid, bonus = totals.get("credits:paid", 0), totals.get("credits:bonus", 0)
    accrued = sum(accrued_micros(meter, account["charged_until"], now) for meter in running)
    if prepaid:  # what the credits do not cover is not collected
        accrued = min(accrued, paid + bonus)
    posted = paid + bonus + totals.get("owed", 0) - accrued
    burn = sum(meter["rate"] for meter in running)
    held = min(cost_micros(HOLD_S, burn) + pending, max(posted, 0))
    return BalanceView(
        account_id=account["account_id"],
        at=now,
        balance_usd_micros=posted,
        paid_usd_micros=paid - max(0, accrued - bonus),
        bonus_usd_micros=max(0, bonus - accrued),
        held_usd_micros=held,
        available_usd_micros=posted - held,
        hourly_cost_usd_micros=burn,
        runway_s=max(0, posted * SECONDS_PER_HOUR // burn) if burn else None,
        active_instances=len({meter["instance_id"] for meter in running if meter["line"] == "gpu"}),
        stage=account["stage"] or "ok",
        grace_until=account["grace_until"],
        storage_kept_until=account["storage_kept_until"],
        is_low=bool(account["is_low_money"] or account["is_low_runway"]),
        alerts=(msgspec.json.decode(account["alerts"], type=AlertSettings) if account["alerts"] else AlertSettings()),
        totals=totals,
    )


def accrued_micros(meter: Any, charged_until: datetime | None, now: datetime) -> int:
    """What one running meter has come to since it was charged last."""
    since = meter["since"]
    paid = max(instant for instant in (since, meter["paid_until"], charged_until) if instant is not None)
    if now <= paid:
        return 0
    return charge_micros(whole_seconds(since, paid), whole_seconds(since, now), meter["rate"])


async def get_payment(query: GetPayment, context: Context) -> PaymentView:
    row = await context.pool.fetchrow(_PAYMENT_SQL, query.payment_id, query.account_id)
    if row is None:
        return PaymentView(payment_id=query.payment_id, status="pending")
    balance = await get_balance(GetBalance(account_id=query.account_id), context)
    return PaymentView(
        payment_id=query.payment_id,
        status=row["status"],
        usd_micros=row["usd_micros"],
        bonus_usd_micros=row["bonus"] or 0,
        method=row["method"],
        reference=row["reference"],
        reason=row["reason"] or "",
        is_credited=row["credited"] is not None,
        balance_usd_micros=balance.balance_usd_micros,
    )
