"""What an operator asks of a service over the bus, without a key: the bus's own credentials are the permission.

Used by `accounts` and `keys create --account`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from libs.clock import SystemClock
from libs.embedded.state import State
from libs.ids import SystemIds
from libs.refusal import Refused, Transient
from proto.base import Command, Meta, Query
from proto.codes import CODES, text
from services.cli.exits import NOT_RUNNING, Exit

ACTOR = "operator"
ASK_S_MAX = 10.0


def now() -> datetime:
    return SystemClock().now()


def fresh_id(prefix: str) -> str:
    return SystemIds().fresh(prefix)


def carry_out(state: State, *wishes: Command) -> None:
    """One after another. Exits with the service's own words when it refuses one."""
    asyncio.run(_ask_all(state, wishes))


def answer_to(state: State, question: Query) -> Any:
    """The decoded answer."""
    (answer,) = asyncio.run(_ask_all(state, [question]))
    return msgspec.json.decode(answer, type=type(question).reply)


async def _ask_all(state: State, messages: Sequence[Command | Query]) -> list[bytes]:
    from libs.eventlog.connection import open_connection  # noqa: PLC0415 - a client of NATS, 200 ms
    from libs.rpc import NatsBus  # noqa: PLC0415

    bugs: list[BaseException] = []
    answers: list[bytes] = []
    try:
        connection = await open_connection(state.nats_url, name="cli", timeout_s=ASK_S_MAX)
        try:
            bus = NatsBus(connection, on_bug=bugs.append)
            for message in messages:
                deadline = SystemClock().now().timestamp() + ASK_S_MAX
                reply = await bus.ask(message, Meta(request_id=fresh_id("req"), deadline=deadline, actor=ACTOR))
                answers.append(bytes(reply.body or b"null"))
        finally:
            await connection.close()
    except Refused as refused:
        said = text(refused.code, refused.facts) if refused.code in CODES else ""
        raise Exit(f"{refused.code} {said}".strip()) from refused
    except Transient as unwell:
        raise Exit(f"{messages[len(answers)].service} does not answer: {unwell}", NOT_RUNNING) from unwell
    return answers
