"""What every Bus must do: `BUS_CONTRACT` is a list of checks, each run by every adapter's tests.

Called by tests/integration (memory and NATS). Each check gets a `Wiring`, which opens buses that hear each other and
collects the bugs they report.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

import msgspec
import pytest

from libs.refusal import Refused, Transient
from libs.rpc import SERVED_AT_ONCE_MAX
from libs.runtime.bus import Bus, NobodyThere, Serve, Unanswered
from proto.base import Command, Meta, Position, Query, Reply, Request, Signal

WAIT_S_MAX = 15.0
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Paint(Command, tag="paint", frozen=True, kw_only=True):
    service: ClassVar[str] = "shed"
    aggregate: ClassVar[str] = "fence"
    colour: str = "white"


class Colour(Query, tag="colour", frozen=True, kw_only=True):
    service: ClassVar[str] = "shed"
    reply: ClassVar[type] = str
    fence_id: str = "f1"


class Rained(Signal, tag="rained", frozen=True, kw_only=True):
    service: ClassVar[str] = "shed"
    reply: ClassVar[type] = type(None)


@dataclass
class Wiring:
    """How an adapter's tests open buses."""

    open_bus: Callable[[], Awaitable[Bus]]
    bugs: list[BaseException] = field(default_factory=list)


Check = Callable[[Wiring], Awaitable[None]]


def meta(within_s: float = 10.0) -> Meta:
    return Meta(request_id="req_1", deadline=time.time() + within_s, correlation="cor_1")


def saying(reply: Reply) -> Serve:
    async def handler(_subject: str, _request: Request) -> Reply:
        return reply

    return handler


def raising(error: Exception) -> Serve:
    async def handler(_subject: str, _request: Request) -> Reply:
        raise error

    return handler


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not condition():  # noqa: ASYNC110 - conditions live in the code under test
            await asyncio.sleep(0.001)


async def a_request_reaches_its_owner_and_the_reply_comes_back(wiring: Wiring) -> None:
    heard: list[tuple[str, Request]] = []

    async def handler(subject: str, request: Request) -> Reply:
        heard.append((subject, request))
        return Reply(body=msgspec.Raw(b'"green"'), position=Position("EVT_SHED", 7), stale=True)

    owner, caller = await wiring.open_bus(), await wiring.open_bus()
    await owner.serve("shed", handler)
    reply = await caller.ask(Paint(now=NOW, colour="grün"), meta())
    assert (reply.position, reply.stale) == (Position("EVT_SHED", 7), True)
    assert reply.body is not None
    assert msgspec.json.decode(reply.body) == "green"
    await caller.ask(Colour(), meta())
    await caller.ask(Rained(), meta())
    assert [subject for subject, _ in heard] == ["cmd.shed.paint", "qry.shed.colour", "sig.shed.rained"]
    assert msgspec.json.decode(heard[0][1].body, type=Paint) == Paint(now=NOW, colour="grün")
    assert heard[0][1].meta.correlation == "cor_1"


async def nobody_there_is_told_at_once(wiring: Wiring) -> None:
    caller = await wiring.open_bus()
    started_s = time.monotonic()
    with pytest.raises(NobodyThere):
        await caller.ask(Paint(now=NOW), meta(30.0))
    assert time.monotonic() - started_s < 5.0


async def a_refusal_keeps_its_code_and_facts(wiring: Wiring) -> None:
    bus = await wiring.open_bus()
    facts = {"colour": "pink", "code": 3, "self": [1, {"a": None}]}
    refused = Refused("NOT_THAT_COLOUR")
    refused.facts = facts
    await bus.serve("shed", raising(refused))
    with pytest.raises(Refused) as caught:
        await bus.ask(Paint(now=NOW), meta())
    assert (caught.value.code, caught.value.facts) == ("NOT_THAT_COLOUR", facts)
    assert wiring.bugs == []


async def an_unwell_owner_says_so(wiring: Wiring) -> None:
    bus = await wiring.open_bus()
    await bus.serve("shed", raising(Transient("no paint")))
    with pytest.raises(Refused, match="SERVICE_UNAVAILABLE"):
        await bus.ask(Paint(now=NOW), meta())
    assert wiring.bugs == []


async def a_bug_is_refused_and_reported(wiring: Wiring) -> None:
    bus = await wiring.open_bus()
    bug = KeyError("brush")
    await bus.serve("shed", raising(bug))
    with pytest.raises(Refused, match="INTERNAL_ERROR") as caught:
        await bus.ask(Paint(now=NOW), meta())
    assert "brush" not in str(caught.value)
    assert wiring.bugs == [bug]


async def no_answer_before_the_deadline_is_an_unknown_outcome(wiring: Wiring) -> None:
    release = asyncio.Event()

    async def slow(_subject: str, _request: Request) -> Reply:
        await release.wait()
        return Reply()

    bus = await wiring.open_bus()
    await bus.serve("shed", slow)
    with pytest.raises(Unanswered):
        await bus.ask(Paint(now=NOW), meta(0.1))
    release.set()


async def a_deadline_in_the_past_sends_nothing(wiring: Wiring) -> None:
    bus = await wiring.open_bus()
    await bus.serve("shed", raising(AssertionError("reached")))
    with pytest.raises(Unanswered):
        await bus.ask(Paint(now=NOW), meta(-1.0))
    assert wiring.bugs == []


async def requests_are_served_side_by_side(wiring: Wiring) -> None:
    waiting: list[asyncio.Future[None]] = []

    async def meeting(_subject: str, _request: Request) -> Reply:
        arrived = asyncio.get_running_loop().create_future()
        waiting.append(arrived)
        if len(waiting) == 20:
            for other in waiting:
                other.set_result(None)
        await arrived
        return Reply()

    bus = await wiring.open_bus()
    await bus.serve("shed", meeting)
    await asyncio.gather(*(bus.ask(Colour(), meta()) for _ in range(20)))


async def more_than_the_limit_is_turned_away(wiring: Wiring) -> None:
    release = asyncio.Event()
    held = 0

    async def hold(_subject: str, _request: Request) -> Reply:
        nonlocal held
        held += 1
        await release.wait()
        return Reply()

    bus = await wiring.open_bus()
    await bus.serve("shed", hold)
    asking = [asyncio.create_task(bus.ask(Colour(), meta())) for _ in range(SERVED_AT_ONCE_MAX)]
    await until(lambda: held == SERVED_AT_ONCE_MAX)
    with pytest.raises(Refused, match="OVERLOADED"):
        await bus.ask(Colour(), meta())
    release.set()
    await asyncio.gather(*asking)
    await bus.ask(Colour(), meta())


async def replicas_share_the_requests(wiring: Wiring) -> None:
    served = [0, 0]

    def counting(replica: int) -> Serve:
        async def handler(_subject: str, _request: Request) -> Reply:
            served[replica] += 1
            return Reply()

        return handler

    for replica in (0, 1):
        await (await wiring.open_bus()).serve("shed", counting(replica))
    caller = await wiring.open_bus()
    for _ in range(200):
        await caller.ask(Colour(), meta())
    assert sum(served) == 200
    assert min(served) > 0


async def a_closed_owner_is_not_there(wiring: Wiring) -> None:
    owner, caller = await wiring.open_bus(), await wiring.open_bus()
    await owner.serve("shed", saying(Reply()))
    await caller.ask(Colour(), meta())
    await owner.close()

    with pytest.raises(NobodyThere):
        await caller.ask(Colour(), meta())


async def an_abandoned_question_harms_nobody(wiring: Wiring) -> None:
    release = asyncio.Event()

    async def slow(_subject: str, _request: Request) -> Reply:
        await release.wait()
        return Reply()

    bus = await wiring.open_bus()
    await bus.serve("shed", slow)
    asking = [asyncio.create_task(bus.ask(Colour(), meta())) for _ in range(10)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()
    release.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(answer, Reply) for answer in answers] == [False, True] * 5
    assert wiring.bugs == []


BUS_CONTRACT: Sequence[Check] = (
    a_request_reaches_its_owner_and_the_reply_comes_back,
    nobody_there_is_told_at_once,
    a_refusal_keeps_its_code_and_facts,
    an_unwell_owner_says_so,
    a_bug_is_refused_and_reported,
    no_answer_before_the_deadline_is_an_unknown_outcome,
    a_deadline_in_the_past_sends_nothing,
    requests_are_served_side_by_side,
    more_than_the_limit_is_turned_away,
    replicas_share_the_requests,
    a_closed_owner_is_not_there,
    an_abandoned_question_harms_nobody,
)
