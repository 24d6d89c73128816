"""Both event logs keep the event log contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Literal

import pytest
from msgspec import structs

from libs.embedded.nats import PAYLOAD_BYTES_MAX, NatsServer
from libs.eventlog import EventLog
from libs.eventlog.connection import open_connection
from libs.eventlog.group_commit import BATCH_MIN
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.memory import MemoryLog
from libs.eventlog.streams import call_api, ensure_stream, private_stream, public_stream
from libs.spec.eventlog_contract import EVENTLOG_CONTRACT, Check


@pytest.fixture(params=["memory", "jetstream", "jetstream-grouped"])
async def event_log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    if request.param == "memory":
        yield MemoryLog()
        return
    server: NatsServer = request.getfixturevalue("fresh_nats")
    connection = await open_connection(server.url, name="contract")
    for spec in (private_stream("contract"), public_stream()):
        await ensure_stream(connection, spec)
    yield JetStreamLog(connection, appending="grouped" if request.param == "jetstream-grouped" else "singly")
    await connection.close()


@pytest.mark.parametrize("check", EVENTLOG_CONTRACT, ids=lambda check: check.__name__)
async def test_an_event_log_keeps_its_contract(check: Check, event_log: EventLog) -> None:
    await check(event_log)


@pytest.mark.parametrize("appending", ["singly", "grouped"])
async def test_what_the_server_does_not_take_is_refused_at_once_and_holds_up_nothing(
    fresh_nats: NatsServer, appending: Literal["singly", "grouped"]
) -> None:
    connection = await open_connection(fresh_nats.url, name="sizes")
    await ensure_stream(connection, private_stream("thing"))
    log = JetStreamLog(connection, appending=appending)

    def publish(number: int, size: int) -> Awaitable[int]:
        return log.publish("EVT_THING", f"evt.thing.a.{number}", b"x" * size, message_id=f"m{number}", headers={})

    async with asyncio.timeout(30):
        sizes = [1, PAYLOAD_BYTES_MAX, *[1] * BATCH_MIN]
        first, refused, *others = await asyncio.gather(
            *(publish(number, size) for number, size in enumerate(sizes)), return_exceptions=True
        )
    await connection.close()
    assert isinstance(refused, ValueError)
    assert {first, *others} == set(range(1, BATCH_MIN + 2))


async def test_a_stream_is_made_once_and_changed_when_its_settings_change(fresh_nats: NatsServer) -> None:
    connection = await open_connection(fresh_nats.url, name="streams")
    spec = private_stream("thing")
    more = (*spec.subjects, "evt.things.>")
    for wanted in (spec, spec, structs.replace(spec, subjects=more)):
        await ensure_stream(connection, wanted)
        await JetStreamLog(connection).publish(spec.name, "evt.thing.a.1", b"", message_id="once", headers={})
    found = await call_api(connection, f"STREAM.INFO.{spec.name}")
    await connection.close()
    assert found.state.last_seq == 1
    settings = ("max_bytes", "storage", "discard", "deny_delete", "deny_purge", "allow_direct", "allow_atomic")
    assert found.config["subjects"] == list(more)
    assert [found.config[name] for name in settings] == [-1, "file", "new", True, True, True, True]
    assert found.config["compression"] == "s2"
