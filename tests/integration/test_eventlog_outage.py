"""kill -9 of nats-server under load: nothing acknowledged is lost, nothing followed is doubled, nobody hangs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import pytest

from libs.embedded.nats import NatsServer
from libs.eventlog import AppendUnknown, WrongExpectation
from libs.eventlog.connection import Connection, open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import ensure_stream, private_stream
from libs.refusal import Transient
from libs.spec.eventlog_contract import STREAM, fill, subject, take

DEADLINE_S = 40.0
WRITERS = 60  # enough that commits wait for each other and are grouped
KILLS = 3
BETWEEN_KILLS = 300  # acknowledged commits


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats", durability="always")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def connection(server: NatsServer) -> AsyncIterator[Connection]:
    connection = await open_connection(server.url, name="outage")
    await ensure_stream(connection, private_stream("contract"))
    yield connection
    await connection.close()


class Writers:
    """Each writes numbered commits to its own subject and settles unknown outcomes by looking, as the runtime does."""

    def __init__(self, log: JetStreamLog) -> None:
        self.log = log
        self.acknowledged = 0
        self.unknown = 0
        self.stopping = asyncio.Event()

    async def run(self, name: int) -> int:
        last = number = 0
        while not self.stopping.is_set():
            body = b"%d:%d" % (name, number)
            try:
                last = await self.log.append(STREAM, subject(name), body, expected_seq=last)
            except (AppendUnknown, WrongExpectation):
                self.unknown += 1
                found = await self.look(subject(name), last)
                if not found:
                    continue
                assert [m.data for m in found] == [body]
                last = found[0].seq
            number += 1
            self.acknowledged += 1
        return number

    async def look(self, name: str, after_seq: int) -> Any:
        while True:
            try:
                return await self.log.read(STREAM, name, after_seq=after_seq)
            except Transient:
                await asyncio.sleep(0.01)


def restart(server: NatsServer) -> None:
    server.kill()
    server.start()


async def reached(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("appending", ["singly", "grouped"])
async def test_kills_under_load_lose_no_acknowledged_commit_and_double_no_followed_one(
    server: NatsServer, connection: Connection, appending: Literal["singly", "grouped"]
) -> None:
    writers = Writers(JetStreamLog(connection, appending=appending))
    followed: list[Any] = []

    async def follow_all() -> None:
        async for batch in writers.log.follow(STREAM, after_seq=0):
            followed.extend(batch)

    async with asyncio.timeout(DEADLINE_S):
        following = asyncio.create_task(follow_all())
        writing = [asyncio.create_task(writers.run(name)) for name in range(WRITERS)]
        for _ in range(KILLS):
            goal = writers.acknowledged + BETWEEN_KILLS
            await reached(lambda goal=goal: writers.acknowledged >= goal)
            await asyncio.to_thread(restart, server)  # beside us, as a supervisor does
        writers.stopping.set()
        counts = await asyncio.gather(*writing)
        last = await writers.log.last_seq(STREAM)
        await reached(lambda: bool(followed) and followed[-1].seq == last)
        following.cancel()
        await asyncio.wait([following])
    assert writers.unknown > 0, "no kill met an append in flight"
    assert [m.seq for m in followed] == list(range(1, last + 1))
    for name, count in enumerate(counts):
        stored = await writers.log.read(STREAM, subject(name))
        assert [m.data for m in stored] == [b"%d:%d" % (name, number) for number in range(count)]


async def test_one_stale_expectation_in_a_group_harms_no_other(connection: Connection) -> None:
    log = JetStreamLog(connection, appending="grouped")
    await fill(log, 7, 1)
    async with asyncio.timeout(DEADLINE_S):
        outcomes = await asyncio.gather(
            *(log.append(STREAM, subject(n), b"%d" % n, expected_seq=0) for n in range(100)), return_exceptions=True
        )
    assert isinstance(outcomes.pop(7), WrongExpectation)
    assert sorted(outcomes) == list(range(2, 101))
    for name, seq in zip([n for n in range(100) if n != 7], outcomes, strict=True):
        assert [(m.seq, m.data) for m in await log.read(STREAM, subject(name))] == [(seq, b"%d" % name)]


async def test_an_abandoned_commit_of_a_group_harms_no_other(connection: Connection) -> None:
    log = JetStreamLog(connection, appending="grouped")
    appending = [asyncio.create_task(log.append(STREAM, subject(n), b"%d" % n, expected_seq=0)) for n in range(100)]
    await asyncio.sleep(0)
    for task in appending[::3]:
        task.cancel()
    outcomes = await asyncio.gather(*appending, return_exceptions=True)
    acknowledged = {n: seq for n, seq in enumerate(outcomes) if isinstance(seq, int)}
    assert len(acknowledged) == 66
    for name, seq in acknowledged.items():
        assert [(m.seq, m.data) for m in await log.read(STREAM, subject(name))] == [(seq, b"%d" % name)]


async def test_a_follower_whose_consumer_vanishes_goes_on(connection: Connection) -> None:
    log = JetStreamLog(connection)
    await fill(log, 1, 5)
    seqs: list[int] = []
    batches: Any = log.follow(STREAM, after_seq=0)
    async with asyncio.timeout(DEADLINE_S), aclosing(batches):
        async for batch in batches:
            seqs += [m.seq for m in batch]
            if seqs[-1] == 5:
                (name,) = await consumers(connection)
                await connection.call(f"$JS.API.CONSUMER.DELETE.{STREAM}.{name}", b"", timeout_s=5.0)
                await fill(log, 2, 5)
            if seqs[-1] == 10:
                break
    assert seqs == list(range(1, 11))


async def test_a_follower_that_leaves_takes_its_consumer_along(connection: Connection) -> None:
    log = JetStreamLog(connection)
    await fill(log, 1, 1)
    await take(log, 1)
    await connection.settle()
    assert await consumers(connection) == []


async def test_an_append_during_an_outage_waits_for_the_server(server: NatsServer, connection: Connection) -> None:
    log = JetStreamLog(connection)
    server.kill()
    await lost(connection)
    appending = asyncio.create_task(log.append(STREAM, subject(1), b"{}", expected_seq=0))
    server.start()
    assert await appending == 1


async def test_a_frozen_server_is_noticed_and_the_outcome_is_unknown(
    server: NatsServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.eventlog.jetstream.APPEND_TIMEOUT_S", 0.2)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(AppendUnknown):
            await JetStreamLog(connection).append(STREAM, subject(1), b"{}", expected_seq=0)
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_cancelling_everything_during_an_outage_ends(server: NatsServer) -> None:
    connection = await open_connection(server.url, name="leaving")
    await ensure_stream(connection, private_stream("contract"))
    log = JetStreamLog(connection)
    following = asyncio.create_task(take(log, 1))
    asking = asyncio.create_task(connection.call("nobody.hears", b"", timeout_s=30.0))
    server.kill()
    await lost(connection)
    appending = asyncio.create_task(log.append(STREAM, subject(1), b"{}", expected_seq=0))
    await asyncio.sleep(0)
    async with asyncio.timeout(10.0):
        for task in (following, asking, appending):
            task.cancel()
        await asyncio.wait([following, asking, appending])
        await connection.close()


def test_a_process_that_fails_during_an_outage_exits(server: NatsServer) -> None:
    """Everything is cancelled once and nothing is closed, as when a bug ends `asyncio.run`."""

    async def fail() -> None:
        connection = await open_connection(server.url, name="failing")
        await ensure_stream(connection, private_stream("contract"))
        log = JetStreamLog(connection)
        following = asyncio.create_task(take(log, 1))
        await connection.settle()
        server.kill()
        with pytest.raises(AppendUnknown):
            await log.append(STREAM, subject(1), b"{}", expected_seq=0)
        assert not following.done()
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        asyncio.run(fail())


async def test_a_replicated_stream_is_read_as_its_leader_knows_it(connection: Connection) -> None:
    """One server stands for leader and follower here: what is checked is that both are asked and agree."""
    log = JetStreamLog(connection)
    log._replicated[STREAM] = True
    assert list(await log.read(STREAM, subject(1))) == []
    seqs = await fill(log, 1, 5)
    assert [m.seq for m in await log.read(STREAM, subject(1))] == seqs
    assert [m.seq for m in await log.read(STREAM, subject(1), after_seq=seqs[2])] == seqs[3:]
    assert list(await log.read(STREAM, subject(1), after_seq=seqs[-1])) == []


async def test_closing_the_connection_ends_its_followers(connection: Connection) -> None:
    following = asyncio.create_task(take(JetStreamLog(connection), 1))
    await connection.settle()
    await connection.close()
    with pytest.raises(Transient):
        await asyncio.wait_for(following, 10.0)


async def lost(connection: Connection) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await reached(lambda: not connection.is_connected)


async def consumers(connection: Connection) -> list[str]:
    data, _ = await connection.call(f"$JS.API.CONSUMER.NAMES.{STREAM}", b"", timeout_s=5.0)
    return json.loads(data)["consumers"] or []
