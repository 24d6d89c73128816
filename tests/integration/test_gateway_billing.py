"""Money over HTTP: what the gateway says about it, and that nothing costly is done without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proto.billing.commands import AdjustLedger, ReleaseHold
from proto.billing.queries import Entry
from proto.instance import commands
from tests.integration.gateway_world import OTHER_KEY, READER_KEY, GatewayWorld, running_gateway

CREATE = {"gpu": "RTX 4090", "image": "pytorch/pytorch"}
NEEDED = 0.066667  # ten minutes at the reference price


@pytest_asyncio.fixture
async def rich() -> AsyncIterator[GatewayWorld]:
    async with running_gateway() as world:
        yield world


@pytest_asyncio.fixture
async def poor() -> AsyncIterator[GatewayWorld]:
    async with running_gateway(welcome_usd=0) as world:
        yield world


async def test_a_new_account_sees_its_welcome_credit(rich: GatewayWorld):
    data = (await rich.call("GET", "/api/v1/balance")).json["data"]
    assert data["balance"] == 1_000.0
    assert data["currency"] == "USD"
    assert data["estimated_hours_remaining"] is None
    assert data["alerts"]["low_balance_threshold"] == 10.0
    assert set(data) >= {"last_updated", "active_instances", "hourly_cost", "paid_balance", "bonus_balance", "held"}


async def test_a_create_holds_ten_minutes_and_a_repeat_holds_once(rich: GatewayWorld):
    headers = {"Idempotency-Key": "one"}
    for _ in range(3):
        assert (await rich.call("POST", "/api/v1/instances", json=CREATE, headers=headers)).status == 201
    assert [hold.usd_micros for hold in rich.money.ledger().holds.values()] == [66_667]
    assert (await rich.call("GET", "/api/v1/balance")).json["data"]["held"] == NEEDED


async def test_without_money_nothing_is_created_in_any_dialect(poor: GatewayWorld):
    refused = await poor.call("POST", "/api/v1/instances", json=CREATE)
    assert (refused.status, refused.code) == (402, "INSUFFICIENT_BALANCE")
    assert refused.json["error"]["details"] == {"needed": NEEDED, "available": 0.0, "currency": "USD"}
    assert refused.json["error"]["message"] == "Saldo insuficiente para esta operacao"
    body = {"name": "a", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
    other = await poor.call("POST", "/api/instances", json=body)
    assert (other.status, other.code) == (402, "INSUFFICIENT_BALANCE")
    assert poor.asked(commands.CreateInstance) == []


async def test_of_many_creates_at_once_only_those_that_are_covered_go_through(poor: GatewayWorld):
    await poor.call("POST", "/api/v1/billing/add-credits", json={"amount": 10})
    price = {"max_price": 12.0}  # two dollars are held for each
    made = await asyncio.gather(*(poor.call("POST", "/api/v1/instances", json={**CREATE, **price}) for _ in range(12)))
    assert sorted(answer.status for answer in made) == [201] * 5 + [402] * 7


async def test_a_create_that_fails_gives_its_hold_back(rich: GatewayWorld):
    refused = await rich.call("POST", "/api/v1/instances", json={**CREATE, "gpu": "RTX 9999"})
    assert refused.status == 404
    assert rich.money.ledger().holds == {}


async def test_a_create_that_was_done_needs_no_money_again(poor: GatewayWorld):
    await poor.call("POST", "/api/v1/billing/add-credits", json={"amount": 10})
    headers = {"Idempotency-Key": "one"}
    body = {**CREATE, "max_price": 60.0}
    first = await poor.call("POST", "/api/v1/instances", json=body, headers=headers)
    (instance_id,) = poor.money.ledger().holds
    now = poor.gateway.clock.now()
    poor.money.command(ReleaseHold(now=now, account_id="acct_default", instance_id=instance_id))
    spend = {"adjustment_id": "a", "usd_micros": -9_000_000, "reason": "spent"}
    poor.money.command(AdjustLedger(now=now, account_id="acct_default", **spend))
    again = await poor.call("POST", "/api/v1/instances", json=body, headers=headers)
    assert (first.status, again.status) == (201, 201)
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_start_needs_money_too(poor: GatewayWorld):
    await poor.call("POST", "/api/v1/billing/add-credits", json={"amount": 10})
    made = await poor.call("POST", "/api/v1/instances", json={**CREATE, "max_price": 60.0})
    instance_id = made.json["data"]["id"]
    poor.owner.becomes(instance_id, "stopped")
    other = await poor.call("POST", "/api/v1/instances", json=CREATE)
    assert other.status == 402, "all of it is held for the first"
    started = await poor.call("POST", f"/api/v1/instances/{instance_id}/start")
    assert started.status == 202, "it has its own hold"


async def test_credits_are_added_once_per_reference(poor: GatewayWorld):
    body = {"amount": 100, "method": "pix", "reference": "invoice 7"}
    first = await poor.call("POST", "/api/v1/billing/add-credits", json=body)
    again = await poor.call("POST", "/api/v1/billing/add-credits", json=body)
    assert (first.status, again.status) == (201, 201)
    assert first.json["data"]["transaction_id"] == again.json["data"]["transaction_id"]
    assert again.json["data"]["balance"] == 115.0
    other = await poor.call("POST", "/api/v1/billing/add-credits", json={**body, "amount": 200})
    assert (other.status, other.code) == (409, "REFERENCE_CONFLICT")


async def test_a_payment_under_way_is_told_as_such(poor: GatewayWorld):
    poor.money.waits = True
    answer = await poor.call("POST", "/api/v1/billing/add-credits", json={"amount": 10, "method": "boleto"})
    assert (answer.status, answer.json["data"]["status"], answer.json["data"]["balance"]) == (202, "pending", 0.0)


@pytest.mark.parametrize(
    "body",
    [{}, {"amount": 9.99}, {"amount": 1e9}, {"amount": "x"}, {"amount": 10, "method": "gold"}, {"amount": 10, "a": 1}],
)
async def test_bad_purchases_are_refused_with_what_is_wrong(poor: GatewayWorld, body: dict[str, object]):
    refused = await poor.call("POST", "/api/v1/billing/add-credits", json=body)
    assert (refused.status, refused.code) == (400, "VALIDATION_ERROR")


async def test_history_pages_and_filters_are_checked(rich: GatewayWorld):
    now = rich.gateway.clock.now()
    rich.money.entries.append(
        Entry(
            entry_id="cmt_1.0", type="credit_purchase", usd_micros=10_000_001, balance_before_usd_micros=0,
            balance_after_usd_micros=10_000_001, created_at=now, description="=1+1", reference_id="r",
        )
    )  # fmt: skip
    listed = await rich.call("GET", "/api/v1/billing/history?from=2026-01-01&to=2030-01-31&type=credit_purchase")
    assert listed.json["meta"] == {"total": 1, "limit": 50, "offset": 0}
    (one,) = listed.json["data"]
    assert (one["amount"], one["balance_before"], one["balance_after"]) == (10.000001, 0.0, 10.000001)
    for wrong in ("from=yesterday", "type=gold", "limit=0", "limit=101", "offset=-1", "instance_id=a%20b"):
        refused = await rich.call("GET", f"/api/v1/billing/history?{wrong}")
        assert (refused.status, refused.code) == (400, "VALIDATION_ERROR"), wrong
    exported = await rich.call("GET", "/api/v1/billing/history.csv")
    assert exported.headers["Content-Type"] == "text/csv; charset=utf-8"
    header, line = exported.raw.decode().split("\r\n")[:2]
    assert header.startswith("id,type,amount")
    assert "'=1+1" in line, "a spreadsheet must not run it"


async def test_alerts_are_set_and_kept(rich: GatewayWorld):
    answer = await rich.call("PUT", "/api/v1/billing/settings", json={"low_balance_threshold": 25})
    assert answer.json["data"]["low_balance_threshold"] == 25.0
    top_up = await rich.call(
        "PUT", "/api/v1/billing/settings", json={"auto_top_up_threshold": 5, "auto_top_up_amount": 50}
    )
    assert top_up.json["data"] == {
        "low_balance_threshold": 25.0, "low_balance_alert": False, "auto_top_up_threshold": 5.0,
        "auto_top_up_amount": 50.0, "auto_top_up_daily_max": 0.0,
    }  # fmt: skip
    for wrong in ({"auto_top_up_amount": 1}, {"auto_top_up_daily_max": 49}):
        assert (await rich.call("PUT", "/api/v1/billing/settings", json=wrong)).status == 400


async def test_money_is_its_owners(rich: GatewayWorld):
    assert (await rich.call("GET", "/api/v1/balance", key=None)).status == 401
    assert (await rich.call("GET", "/api/v1/balance", key=READER_KEY)).status == 403
    await rich.call("POST", "/api/v1/billing/add-credits", json={"amount": 10, "reference": "r"})
    other = (await rich.call("GET", "/api/v1/balance", key=OTHER_KEY)).json["data"]
    assert other["balance"] == 1_000.0
    assert (await rich.call("GET", "/api/v1/billing/invoices/2026-13")).status == 400
    assert (await rich.call("GET", "/api/v1/billing/invoices/2026-12")).code == "INVOICE_NOT_FOUND"
    assert (await rich.call("GET", "/api/v1/billing/ledger")).json["data"]["sum"] == 0.0
