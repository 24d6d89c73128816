"""Customers of the benches: accounts with a key each, as many as share a burst. Used by `http`."""

from __future__ import annotations

import secrets

import asyncpg
from msgspec.structs import asdict

from libs.clock import SystemClock
from libs.eventlog.connection import open_connection
from libs.ids import SystemIds
from libs.money import MICROS_PER_UNIT
from libs.rpc import NatsBus
from proto.base import Command, Meta
from proto.billing.commands import AddCredits
from proto.gateway.commands import IssueKey, OpenAccount
from proto.gateway.words import KEY_PREFIX, fingerprint

ASK_MAX_S = 10.0
KEY_SECRET_BYTES = 32
# One customer's instances in the order of their ids, then the next one's: what `in_turn` sorts out.
_IDS_SQL = "select instance_id from instance.instances where account_id = $1 order by instance_id limit $2"
_UNSETTLED_SQL = "select count(*) from instance.instances where status not in ('ready', 'failed', 'deleted')"


async def open_accounts(nats_url: str, count: int, *, usd: int = 0) -> dict[str, str]:
    """A fresh key by account, with so many credits. They may ask as much as they like (plan `operator`)."""
    clock, ids = SystemClock(), SystemIds()
    connection = await open_connection(nats_url, name="bench")
    try:
        bus = NatsBus(connection, on_bug=lambda _: None)

        async def carry_out(wish: Command) -> None:
            meta = Meta(request_id=ids.fresh("req"), deadline=clock.now().timestamp() + ASK_MAX_S)
            await bus.ask(wish, meta)

        keys: dict[str, str] = {}
        for number in range(count):
            account_id = f"acct_bench{number}"
            key = keys[account_id] = KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
            about = {"now": clock.now(), "account_id": account_id, "name": "bench"}
            await carry_out(OpenAccount(plan="operator", **about))
            await carry_out(IssueKey(key_id=ids.fresh("key"), **about, **asdict(fingerprint(key))))
            if usd:
                paid = {"credit_id": ids.fresh("pay"), "usd_micros": usd * MICROS_PER_UNIT}
                await carry_out(AddCredits(now=clock.now(), account_id=account_id, **paid))
        return keys
    finally:
        await connection.close()


async def instances_in_turn(postgres_url: str, accounts: list[str], each: int) -> list[str]:
    """`each` ids of every account: one of the first, one of the second, …"""
    connection = await asyncpg.connect(postgres_url)
    try:
        found = [[row[0] for row in await connection.fetch(_IDS_SQL, account, each)] for account in accounts]
    finally:
        await connection.close()
    assert all(len(ids) == each for ids in found), f"an account has fewer than {each} instances"
    return [ids[number] for number in range(each) for ids in found]


async def unsettled(postgres_url: str) -> int:
    """Instances, of whomever, that are not `ready` yet and have not failed."""
    connection = await asyncpg.connect(postgres_url)
    try:
        return await connection.fetchval(_UNSETTLED_SQL)
    finally:
        await connection.close()
