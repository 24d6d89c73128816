"""The billing service whole: facts in, time passing, and books that add up however one looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime, time, timedelta
from itertools import pairwise

import msgspec
import pytest

from libs.hosting import replayed_rows
from libs.ids import derive_id
from libs.money import cost_micros
from libs.postgres import PostgresStore, rebuild, table_hashes
from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from libs.runtime.projecting import PROJECT_CURSOR
from proto.billing.commands import PlaceHold, RequestPayment
from proto.billing.events import BalanceSuspended
from proto.billing.queries import (
    BalanceView,
    EntryList,
    GetBalance,
    GetInvoice,
    GetPayment,
    Invoice,
    ListEntries,
    ListInvoices,
    ListUsage,
    UsageList,
)
from proto.instance.events import InstanceDeleting
from services.billing.queries.reconciled import uncollected
from services.billing.rooms import SERVICE
from tests.integration.billing_world import (
    ACCOUNT,
    DEFINITION,
    BillingWorld,
    billing_world,
    hibernated,
    ready,
    stopping,
)

PRICE = 400_000
USD = 1_000_000
HOUR = timedelta(hours=1)


async def balance(world: BillingWorld) -> BalanceView:
    return await world.ask(GetBalance(account_id=ACCOUNT))


async def bought(world: BillingWorld, usd: int, reference: str = "r") -> None:
    payment_id = derive_id("pay", ACCOUNT, reference)
    about = {"usd_micros": usd * USD, "method": "manual", "reference": reference}
    await world.ask(RequestPayment(now=world.clock.now(), payment_id=payment_id, account_id=ACCOUNT, **about))

    async def is_credited() -> bool:
        return (await world.ask(GetPayment(account_id=ACCOUNT, payment_id=payment_id))).is_credited

    await world.until(is_credited)


async def running(world: BillingWorld, count: int) -> None:
    async def are_running() -> bool:
        return (await balance(world)).active_instances == count

    await world.until(are_running)


async def charged_until_now(world: BillingWorld) -> None:
    async def is_charged() -> bool:
        until = await world.pool.fetchval("select charged_until from accounts where account_id = $1", ACCOUNT)
        return until is not None and world.clock.now() - until < timedelta(minutes=5)

    await world.until(is_charged)


async def test_days_of_use_add_up_in_every_view_and_in_a_replay(database_url: str) -> None:
    async with billing_world(database_url) as world:
        start = world.clock.now().replace(microsecond=0)  # instants of facts travel in milliseconds
        await bought(world, 100)
        await world.say(ready("inst_a", start, PRICE))
        await world.say(ready("inst_b", start, 2 * PRICE))
        await running(world, 2)
        live = await balance(world)
        assert live.held_usd_micros == cost_micros(600, 3 * PRICE)
        assert 0 <= 115 * USD - live.balance_usd_micros < cost_micros(60, 3 * PRICE), "what runs is seen between ticks"
        world.it_is(30 * HOUR)
        await charged_until_now(world)
        end = start + 25 * HOUR
        await world.say(stopping("inst_a"), end)
        await running(world, 1)
        world.it_is(50 * HOUR)
        await charged_until_now(world)
        await world.say(stopping("inst_b"), start + 40 * HOUR)
        await running(world, 0)
        await books_agree(world, 115 * USD - cost_micros(25 * 3600, PRICE) - cost_micros(40 * 3600, 2 * PRICE))
        await rows_are_those_of_a_replay(world)


async def books_agree(world: BillingWorld, expected: int, *, credited: int = 115 * USD) -> None:
    """Balance, history, usage by day and invoices all come to the same."""
    view = await balance(world)
    assert view.balance_usd_micros == expected
    assert sum(view.totals.values()) == 0
    history: EntryList = await world.ask(ListEntries(account_id=ACCOUNT))
    assert sum(entry.usd_micros for entry in history.items) == expected
    oldest_first = history.items[::-1]
    assert all(a.balance_after_usd_micros == b.balance_before_usd_micros for a, b in pairwise(oldest_first))
    assert history.items[0].balance_after_usd_micros == expected
    usage: UsageList = await world.ask(ListUsage(account_id=ACCOUNT))
    corrections = [entry.usd_micros for entry in history.items if entry.type in ("adjustment", "uncollected")]
    assert usage.usd_micros == credited - expected + sum(corrections)
    assert len({one.day for one in usage.items}) >= 2
    months: list[Invoice] = (await world.ask(ListInvoices(account_id=ACCOUNT))).months
    assert months[0].closing_usd_micros == expected
    for month in months:
        moved = month.credits_usd_micros + month.adjustments_usd_micros - month.usage_usd_micros
        assert month.opening_usd_micros + moved == month.closing_usd_micros
        whole: Invoice = await world.ask(GetInvoice(account_id=ACCOUNT, month=month.month))
        assert sum(line.usd_micros for line in whole.lines) == month.usage_usd_micros
        assert sum(entry.usd_micros for entry in whole.entries) == moved + month.usage_usd_micros


async def rows_are_those_of_a_replay(world: BillingWorld) -> None:
    """Asked again while the service still writes something down: then the two are of different moments."""

    async def is_same_and_still() -> bool:
        seq = await world.log.last_seq("EVT_BILLING")
        served, replayed = await hashes_before_and_after_a_replay(world, seq)
        is_still = await world.log.last_seq("EVT_BILLING") == seq
        assert served == replayed or not is_still
        return is_still

    await world.until(is_same_and_still)


async def hashes_before_and_after_a_replay(
    world: BillingWorld, target: int
) -> tuple[Mapping[str, str], Mapping[str, str]]:
    store = PostgresStore(world.pool, fingerprint=DEFINITION.fingerprint)

    async def is_projected() -> bool:
        return (await store.cursor(PROJECT_CURSOR))[0] >= target

    await world.until(is_projected)
    served = await table_hashes(world.pool, SERVICE.name)
    own = OwnStream(SERVICE, world.log, Courtesy())
    async with aclosing(replayed_rows(own, SERVICE)) as replayed:
        await rebuild(world.pool, DEFINITION, replayed, target_seq=target, on_progress=lambda _: None)
    return served, await table_hashes(world.pool, SERVICE.name)


@pytest.mark.parametrize("begins_at", [time(10), time(17, 50)], ids=["stops_by_day", "stops_after_midnight"])
async def test_an_empty_account_stops_what_runs_and_says_why(database_url: str, begins_at: time) -> None:
    async with billing_world(database_url, begins_at=begins_at, welcome_credit_usd=1) as world:
        start = world.clock.now().replace(microsecond=0)  # instants of facts travel in milliseconds
        hold = PlaceHold(now=start, account_id=ACCOUNT, instance_id="inst_a", price_usd_micros_per_hour_max=USD)
        await world.ask(hold)
        await world.say(ready("inst_a", start, USD))
        await running(world, 1)
        for minutes in (51, 57):
            world.it_is(timedelta(minutes=minutes))
            await charged_until_now(world)

        async def is_suspended() -> bool:
            return (await balance(world)).stage == "suspended"

        await world.until(is_suspended)
        page = await world.log.page("PUB", f"pub.{ACCOUNT}.balance.>", after_seq=0, limit=100)
        said = [message.subject.rpartition(".")[2] for message in page.messages]
        assert said[:3] == ["low", "exhausted", "suspended"]
        suspended = msgspec.json.decode(page.messages[2].data, type=BalanceSuspended)
        assert suspended.instance_ids == ("inst_a",)
        assert suspended.reason == "insufficient_balance"
        assert suspended.balance_usd_micros > 0, "stopped before the credit is used up"
        await what_is_not_covered_is_not_collected(world, start)


async def what_is_not_covered_is_not_collected(world: BillingWorld, start: datetime) -> None:
    """It is not stopped for 30 hours: between ticks and after them, the books end at zero and say why."""
    world.it_is(30 * HOUR)
    for _ in range(2):
        history: EntryList = await world.ask(ListEntries(account_id=ACCOUNT))
        assert sum(entry.usd_micros for entry in history.items) == 0
        assert (await balance(world)).available_usd_micros == 0
        await charged_until_now(world)
    await world.say(stopping("inst_a"), start + 31 * HOUR)
    await running(world, 0)
    world.it_is(31 * HOUR)

    async def is_all_charged() -> bool:
        return (await balance(world)).totals["uncollected"] == -30 * USD

    await world.until(is_all_charged)
    await books_agree(world, 0, credited=USD)
    (only,) = (await world.ask(ListEntries(account_id=ACCOUNT, types=("welcome_credit",)))).items
    assert only.usd_micros == USD
    assert await uncollected(world.pool) == 30 * USD, "the operator's metric"
    await files_are_kept_and_then_given_up(world, start + 32 * HOUR)
    await rows_are_those_of_a_replay(world)


async def files_are_kept_and_then_given_up(world: BillingWorld, start: datetime) -> None:
    """A month of nobody paying, seen by whoever hears of the balance; only then are the files given up."""
    await world.say(hibernated("inst_b", start), start)

    async def is_left_alone_until_midnight() -> bool:
        due_sql = "select due_at from deadlines where aggregate_id = $1 and name = 'tick'"
        due_at = await world.pool.fetchval(due_sql, ACCOUNT)
        return due_at is not None and (due_at.hour, due_at.minute, due_at.second) == (0, 0, 0)

    await world.until(is_left_alone_until_midnight)
    told: list[str] = []

    async def is_told(what: str) -> bool:
        page = await world.log.page("PUB", f"pub.{ACCOUNT}.balance.>", after_seq=0, limit=100)
        told[:] = [message.subject.rpartition(".")[2] for message in page.messages]
        return what in told

    for days, what in ((25, "storage_expiring"), (33, "storage_expired")):
        assert (await balance(world)).storage_kept_until is not None
        assert not await is_told(what), told
        world.it_is(timedelta(days=days))
        await world.until(lambda what=what: is_told(what))
    assert (await balance(world)).balance_usd_micros == 0
    await world.say(InstanceDeleting(instance_id="inst_b", account_id=ACCOUNT, name="n", gpu="RTX 4090"))

    async def costs_nothing() -> bool:
        return (await balance(world)).hourly_cost_usd_micros == 0

    await world.until(costs_nothing)  # so that nothing is written any more


async def test_a_start_holds_what_the_instance_cost_last(database_url: str) -> None:
    async with billing_world(database_url, welcome_credit_usd=10) as world:
        start = world.clock.now().replace(microsecond=0)  # instants of facts travel in milliseconds
        await world.say(ready("inst_a", start, 1_800_000))
        await running(world, 1)
        await world.say(stopping("inst_a"), start + HOUR)
        await running(world, 0)
        await world.ask(PlaceHold(now=start + 2 * HOUR, account_id=ACCOUNT, instance_id="inst_a"))
        assert (await balance(world)).held_usd_micros == cost_micros(600, 1_800_000)


async def test_who_pays_afterwards_owes_it_in_every_view(database_url: str) -> None:
    async with billing_world(database_url, prepaid=False) as world:
        start = world.clock.now().replace(microsecond=0)  # instants of facts travel in milliseconds
        await world.say(ready("inst_a", start, USD))
        await running(world, 1)
        world.it_is(30 * HOUR)
        for _ in range(2):
            before = (await balance(world)).balance_usd_micros
            history: EntryList = await world.ask(ListEntries(account_id=ACCOUNT))
            owed = sum(entry.usd_micros for entry in history.items)
            assert (await balance(world)).balance_usd_micros <= owed <= before < -29 * USD
            await charged_until_now(world)
        assert (await balance(world)).totals["owed"] < -29 * USD
        assert (await balance(world)).stage == "ok"
