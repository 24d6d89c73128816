"""The billing service as the gateway meets it on the bus: its real rules and its own reckoning, nothing ever lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from libs.money import cost_micros
from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Position, Reply, Request
from proto.billing import commands, queries
from services.billing.decider import ACCOUNT, PAYMENT
from services.billing.decider.ladder import HOLD_S, standing
from services.billing.decider.state import Account

PRICE_USD_MICROS_PER_HOUR = 400_000
MICROS = 1_000_000


class BillingOwner:
    """Every account starts with `welcome_usd`; payments settle at once. `waits` keeps them pending instead."""

    def __init__(self, welcome_usd: int) -> None:
        self.welcome_usd = welcome_usd
        self.states: dict[tuple[str, str], Any] = {}
        self.entries: list[queries.Entry] = []
        self.waits = False
        self.seq = 0

    async def answer(self, subject: str, request: Request) -> Reply:
        kind, _, tag = subject.split(".", 2)
        if kind == "cmd":
            self.command(self.filled(msgspec.json.decode(request.body, type=commands.AnyCommand)))
            self.seq += 1
            return Reply(position=Position("EVT_BILLING", self.seq))
        if tag in ("health", "metrics"):
            raise Refused("NOT_FOUND", subject=subject)
        question = msgspec.json.decode(request.body, type=queries.AnyQuery)
        return Reply(body=msgspec.Raw(msgspec.json.encode(self.reply(question))))

    def filled(self, wish: Any) -> Any:
        welcome = self.welcome_usd * MICROS
        match wish:
            case commands.PlaceHold():
                price = wish.price_usd_micros_per_hour_max or PRICE_USD_MICROS_PER_HOUR
                return replace(wish, usd_micros=cost_micros(HOLD_S, price), welcome_usd_micros=welcome)
            case commands.OpenAccount():
                return replace(wish, welcome_usd_micros=welcome)
            case _:
                return wish

    def command(self, wish: Any) -> None:
        rules: Aggregate = PAYMENT if wish.aggregate == "payment" else ACCOUNT
        key = (rules.kind, wish.aggregate_id)
        state = self.states.get(key, rules.initial)
        for event in rules.decide(state, wish):
            state = rules.evolve(state, event)
        self.states[key] = state
        if isinstance(wish, commands.RequestPayment) and state.status == "pending" and not self.waits:
            self.command(commands.ReportPaid(now=wish.now, payment_id=wish.payment_id))
            self.command(
                commands.AddCredits(
                    now=wish.now, account_id=wish.account_id, credit_id=wish.payment_id, usd_micros=wish.usd_micros
                )
            )

    def ledger(self, account_id: str = "acct_default") -> Account:
        return self.states.get(("account", account_id), Account())

    def reply(self, question: Any) -> Any:
        now = datetime.now(UTC)
        match question:
            case queries.GetBalance():
                return self.balance(question.account_id, now)
            case queries.GetPayment():
                payment = self.states.get(("payment", question.payment_id), PAYMENT.initial)
                return queries.PaymentView(
                    payment_id=question.payment_id,
                    status=payment.status,
                    usd_micros=payment.usd_micros,
                    reference=payment.reference,
                    is_credited=payment.status == "settled",
                    balance_usd_micros=self.ledger(question.account_id).posted_usd_micros,
                )
            case queries.ListEntries():
                return queries.EntryList(self.entries[: question.limit], len(self.entries))
            case queries.ListUsage():
                return queries.UsageList([], 0, 0)
            case queries.ListInvoices():
                return queries.InvoiceList([])
            case queries.GetInvoice():
                raise Refused("INVOICE_NOT_FOUND", month=question.month)
            case _:
                raise AssertionError(question)

    def balance(self, account_id: str, now: datetime) -> queries.BalanceView:
        ledger = self.ledger(account_id)
        if not ledger.account_id:
            return queries.BalanceView(account_id=account_id, at=now, is_open=False)
        stands = standing(ledger, now)
        return queries.BalanceView(
            account_id=account_id,
            at=now,
            balance_usd_micros=stands.posted_usd_micros,
            held_usd_micros=stands.held_usd_micros,
            available_usd_micros=stands.available_usd_micros,
            alerts=ledger.alerts,
            totals=ledger.totals,
        )
