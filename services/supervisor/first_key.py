"""The default account, and a fresh API key for it at every boot.

Called by `__main__` once the gateway is ready. The secret is made here and shown by `announce`; the gateway is told its
fingerprint only. Plain request/reply: a few messages need no more of a bus.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import msgspec
from msgspec.structs import asdict
from nats.aio.client import Client
from nats.errors import Error as NatsError

from libs.clock import SystemClock
from proto.base import Command, Meta, Reply, Request
from proto.gateway.commands import ChangePlan, IssueKey, OpenAccount
from proto.gateway.words import DEFAULT_ACCOUNT, KEY_PREFIX, KEY_SECRET_BYTES, Plan, fingerprint

CONNECT_TIMEOUT_S = 2
TRIES_MAX = 10
TRY_TIMEOUT_S = 2.0
PAUSE_S = 0.1
OPERATOR = "operator"
# Of the default account when it is opened: whoever starts the platform is not kept short by it. Another one is
# chosen with --plan, or later with `dumont accounts set-plan`.
FIRST_PLAN: Plan = "operator"
ID_BYTES = 16  # not libs.ids: its generator's state would be shared by children forked later


class KeyRefused(Exception):
    """The gateway did not take the key; the text says why."""


def issue_first_key(nats_url: str, plan: Plan | None = None) -> str:
    """Open the default account (on `plan`, when one is wanted), make a key for it and return the key. Raises
    KeyRefused."""
    now = SystemClock().now()
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
    wishes: list[Command] = [
        OpenAccount(now=now, account_id=DEFAULT_ACCOUNT, actor=OPERATOR, name="dumont up", plan=plan or FIRST_PLAN)
    ]
    if plan is not None:
        wishes.append(ChangePlan(now=now, account_id=DEFAULT_ACCOUNT, actor=OPERATOR, plan=plan))
    wishes.append(
        IssueKey(
            now=now,
            key_id=f"key_{secrets.token_hex(ID_BYTES)}",
            account_id=DEFAULT_ACCOUNT,
            actor=OPERATOR,
            name="dumont up",
            **asdict(fingerprint(key)),
            scopes=("all",),
            plan=plan or FIRST_PLAN,
        )
    )
    asyncio.run(_carry_out(nats_url, wishes))
    return key


async def _carry_out(nats_url: str, wishes: Sequence[Command]) -> None:
    client = Client()
    await client.connect(nats_url, connect_timeout=CONNECT_TIMEOUT_S, allow_reconnect=False)
    try:
        for wish in wishes:
            await _ask(client, wish)
    finally:
        await client.close()


async def _ask(client: Client, wish: Command) -> None:
    """The same wish until it is answered: twice is once, so an unknown outcome is simply tried again."""
    cause = "no answer"
    for _ in range(TRIES_MAX):
        deadline_s = SystemClock().now().timestamp() + TRY_TIMEOUT_S
        meta = Meta(request_id=f"req_{secrets.token_hex(ID_BYTES)}", deadline=deadline_s)
        request = msgspec.json.encode(Request(meta, msgspec.Raw(msgspec.json.encode(wish))))
        try:
            answer = await client.request(f"cmd.gateway.{tag_of(wish)}", request, timeout=TRY_TIMEOUT_S)
        except NatsError as error:
            cause = str(error) or type(error).__name__
            await asyncio.sleep(PAUSE_S)
            continue
        reply = msgspec.json.decode(answer.data, type=Reply)
        if reply.refused is None:
            return
        cause = reply.refused.code
        await asyncio.sleep(PAUSE_S)
    raise KeyRefused(f"the gateway did not take the first API key: {tag_of(wish)}: {cause}")


def tag_of(wish: Command) -> str:
    return str(type(wish).__struct_config__.tag)
