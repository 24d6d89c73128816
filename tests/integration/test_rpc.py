"""Both buses keep the bus contract; on NATS an outage is survived and told truthfully."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from libs.embedded.nats import NatsServer
from libs.eventlog.connection import Connection, open_connection
from libs.refusal import Refused
from libs.rpc import NatsBus
from libs.rpc_memory import MemoryBus, MemoryExchange
from libs.runtime.bus import Bus, NobodyThere, Unanswered
from libs.spec.bus_contract import BUS_CONTRACT, Check, Colour, Wiring, meta, saying, until
from proto.base import Reply, Request


@pytest.fixture(params=["memory", "nats"])
async def wiring(request: pytest.FixtureRequest) -> AsyncIterator[Wiring]:
    opened: list[Bus] = []
    connections: list[Connection] = []
    exchange = MemoryExchange()
    server: NatsServer | None = request.getfixturevalue("fresh_nats") if request.param == "nats" else None

    async def open_bus() -> Bus:
        if server is None:
            opened.append(MemoryBus(on_bug=wired.bugs.append, exchange=exchange))
        else:
            connections.append(await open_connection(server.url, name="contract"))
            opened.append(NatsBus(connections[-1], on_bug=wired.bugs.append))
        return opened[-1]

    wired = Wiring(open_bus)
    yield wired
    for bus in opened:
        await bus.close()
    for connection in connections:
        await connection.close()


@pytest.mark.parametrize("check", BUS_CONTRACT, ids=lambda check: check.__name__)
async def test_a_bus_keeps_its_contract(check: Check, wiring: Wiring) -> None:
    await check(wiring)


@pytest.fixture
async def nats_bus(fresh_nats: NatsServer) -> AsyncIterator[NatsBus]:
    bugs: list[BaseException] = []
    connection = await open_connection(fresh_nats.url, name="rpc")
    bus = NatsBus(connection, on_bug=bugs.append)
    yield bus
    await bus.close()
    await connection.close()


async def test_a_killed_server_makes_waiting_questions_unknown_and_later_ones_work(
    fresh_nats: NatsServer, nats_bus: NatsBus
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def hangs_once(_subject: str, _request: Request) -> Reply:
        if not begun.is_set():
            begun.set()
            await release.wait()
        return Reply(body=msgspec.Raw(b"1"))

    await nats_bus.serve("shed", hangs_once)
    asking = asyncio.create_task(nats_bus.ask(Colour(), meta(30.0)))
    await begun.wait()
    fresh_nats.kill()
    with pytest.raises(Unanswered):
        await asyncio.wait_for(asking, 5.0)
    with pytest.raises(NobodyThere):
        await nats_bus.ask(Colour(), meta(0.3))
    during = asyncio.create_task(nats_bus.ask(Colour(), meta(30.0)))
    fresh_nats.start()
    assert (await during).body == msgspec.Raw(b"1")
    release.set()


async def test_a_reply_larger_than_the_server_allows_is_an_internal_error(fresh_nats: NatsServer) -> None:
    bugs: list[BaseException] = []
    connection = await open_connection(fresh_nats.url, name="rpc")
    bus = NatsBus(connection, on_bug=bugs.append)
    await bus.serve("shed", saying(Reply(body=msgspec.Raw(b'"' + b"x" * 2_000_000 + b'"'))))
    with pytest.raises(Refused, match="INTERNAL_ERROR"):
        await bus.ask(Colour(), meta())
    assert len(bugs) == 1
    await bus.close()
    await connection.close()


async def test_what_is_not_a_request_is_reported_and_answered(fresh_nats: NatsServer) -> None:
    bugs: list[BaseException] = []
    connection = await open_connection(fresh_nats.url, name="rpc")
    bus = NatsBus(connection, on_bug=bugs.append)
    await bus.serve("shed", saying(Reply()))
    data, _ = await connection.call("cmd.shed.paint", b"not json", timeout_s=5.0)
    assert b"INTERNAL_ERROR" in data
    await until(lambda: len(bugs) == 1)
    await bus.close()
    await connection.close()
