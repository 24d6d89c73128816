"""Both event logs keep the event log contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from libs.embedded.nats import NatsServer
from libs.eventlog import EventLog
from libs.eventlog.connection import open_connection
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
