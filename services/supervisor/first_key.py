"""A fresh API key for the default account at every boot.

Called by `__main__` once the gateway is ready. The secret is made here and shown by `announce`; the gateway is told its
fingerprint only. Plain request/reply: one message needs no more of a bus.
"""

from __future__ import annotations

import asyncio
import secrets

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from libs.clock import SystemClock
from proto.base import Meta, Reply, Request
from proto.gateway.commands import IssueKey
from proto.gateway.words import DEFAULT_ACCOUNT, KEY_PREFIX, KEY_SECRET_BYTES, fingerprint

CONNECT_TIMEOUT_S = 2
TRIES_MAX = 10
TRY_TIMEOUT_S = 2.0
PAUSE_S = 0.1
ID_BYTES = 16  # not libs.ids: its generator's state would be shared by children forked later


class KeyRefused(Exception):
    """The gateway did not take the key; the text says why."""


def issue_first_key(nats_url: str) -> str:
    """Make a key, have the gateway know it, return it. Raises KeyRefused."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
    mark = fingerprint(key)
    wish = IssueKey(
        now=SystemClock().now(),
        key_id=f"key_{secrets.token_hex(ID_BYTES)}",
        account_id=DEFAULT_ACCOUNT,
        name="dumont up",
        key_hash=mark.key_hash,
        prefix=mark.prefix,
        last4=mark.last4,
        scopes=("all",),
        plan="enterprise",  # whoever started the platform is not kept short by it
    )
    asyncio.run(_issue(nats_url, wish))
    return key


async def _issue(nats_url: str, wish: IssueKey) -> None:
    """The same wish until it is answered: issuing twice is once, so an unknown outcome is simply tried again."""
    cause = "no answer"
    client = Client()
    await client.connect(nats_url, connect_timeout=CONNECT_TIMEOUT_S, allow_reconnect=False)
    try:
        for _ in range(TRIES_MAX):
            deadline_s = SystemClock().now().timestamp() + TRY_TIMEOUT_S
            meta = Meta(request_id=f"req_{secrets.token_hex(ID_BYTES)}", deadline=deadline_s)
            request = msgspec.json.encode(Request(meta, msgspec.Raw(msgspec.json.encode(wish))))
            try:
                answer = await client.request("cmd.gateway.issue_key", request, timeout=TRY_TIMEOUT_S)
            except NatsError as error:
                cause = str(error) or type(error).__name__
                await asyncio.sleep(PAUSE_S)
                continue
            reply = msgspec.json.decode(answer.data, type=Reply)
            if reply.refused is None:
                return
            cause = reply.refused.code
            await asyncio.sleep(PAUSE_S)
    finally:
        await client.close()
    raise KeyRefused(f"the gateway did not take the first API key: {cause}")
