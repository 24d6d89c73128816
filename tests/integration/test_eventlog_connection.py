"""The fast path beside nats-py: the version it was written against, and messages split at every byte."""

from __future__ import annotations

import asyncio
import itertools
from importlib.metadata import version
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as some
from nats.errors import ProtocolError

from libs.embedded.nats import NatsServer
from libs.eventlog.connection import NoAnswer, NoResponders, NotSent, open_connection
from libs.eventlog.wire import RoutingParser, header, header_block, parse_headers, status_of

HEADERS = b"NATS/1.0\r\nce-id: com_1.0\r\n\r\n"
WIRE = (
    b"PING\r\n"
    b"MSG evt.a 7 5\r\nhello\r\n"
    b"MSG evt.a 7 _INBOX.x.1 0\r\n\r\n"
    b"+OK\r\n"
    b"HMSG evt.b 7 $JS.ACK.1 %d %d\r\n%bMSG 1\r\n\r\n"
    b"MSG evt.c 9 4\r\nslow\r\n"
    b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"
    b'INFO {"ldm": true}\r\n'
    b"PONG\r\n" % (len(HEADERS), len(HEADERS) + 7, HEADERS)
)
HEARD = [
    ("ping",),
    ("fast", b"evt.a", b"", b"hello", b""),
    ("fast", b"evt.a", b"_INBOX.x.1", b"", b""),
    ("fast", b"evt.b", b"$JS.ACK.1", b"MSG 1\r\n", HEADERS),
    ("slow", 9, b"evt.c", b"", b"slow", b""),
    ("error", "'permissions violation for publish to \"x\"'"),
    ("info", {"ldm": True}),
    ("pong",),
]


class Ear:
    """Hears what the parser hands to nats-py's client."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    async def _process_msg(self, *message: Any) -> None:
        self.heard.append(("slow", *message))

    async def _process_err(self, err_msg: str) -> None:
        self.heard.append(("error", err_msg))

    async def _process_ping(self) -> None:
        self.heard.append(("ping",))

    async def _process_pong(self) -> None:
        self.heard.append(("pong",))

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        self.heard.append(("info", info))


def hear(chunks: list[bytes]) -> list[tuple[Any, ...]]:
    async def parse() -> list[tuple[Any, ...]]:
        ear = Ear()
        parser = RoutingParser(ear)
        parser.routes[b"7"] = lambda *message: ear.heard.append(("fast", *message))
        for chunk in chunks:
            await parser.parse(chunk)
        return ear.heard

    return asyncio.run(parse())


def test_protected_members_are_used_of_the_nats_py_version_we_know() -> None:
    """On failure: read the list of members in `libs.eventlog.connection` against the new version, then change this."""
    assert version("nats-py") == "2.16.0"


@given(some.lists(some.integers(0, len(WIRE)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_messages_arrive_whole_however_the_network_splits_them(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WIRE)]
    assert hear([WIRE[a:b] for a, b in itertools.pairwise(edges)]) == HEARD


def test_messages_arrive_whole_byte_by_byte() -> None:
    assert hear([WIRE[n : n + 1] for n in range(len(WIRE))]) == HEARD


@pytest.mark.parametrize("wire", [b"HELLO\r\n", b"\r\n", b"x" * 70_000])
def test_what_is_not_the_protocol_is_an_error(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        hear([wire])


def test_a_reset_forgets_half_a_message() -> None:
    async def parse() -> list[tuple[Any, ...]]:
        ear = Ear()
        parser = RoutingParser(ear)
        await parser.parse(b"MSG evt.a 7 5\r\nhe")
        parser.reset()
        await parser.parse(b"PING\r\n")
        return ear.heard

    assert asyncio.run(parse()) == [("ping",)]


def test_headers_are_read_as_they_were_written() -> None:
    block = header_block({"ce-id": "com_1.0", "ce-source": "São Paulo", "empty": ""})
    assert parse_headers(block) == {"ce-id": "com_1.0", "ce-source": "São Paulo", "empty": ""}
    assert header(block, b"ce-id") == b"com_1.0"
    assert header(block, b"ce") == b""
    assert status_of(block) == 0
    assert status_of(b"NATS/1.0 503\r\n\r\n") == 503
    assert status_of(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\n\r\n") == 100


async def test_nobody_answering_is_told_apart_from_no_answer_in_time(fresh_nats: NatsServer) -> None:
    connection = await open_connection(fresh_nats.url, name="test")
    with pytest.raises(NoResponders):
        await connection.call("nobody.hears", b"", timeout_s=5.0)
    await connection.listen("somebody.hears", lambda *_: None)
    with pytest.raises(NoAnswer):
        await connection.call("somebody.hears", b"", timeout_s=0.05)
    await connection.close()


async def test_a_message_over_the_limit_is_refused_here_and_the_connection_lives(fresh_nats: NatsServer) -> None:
    connection = await open_connection(fresh_nats.url, name="test")
    with pytest.raises(ValueError, match="limit"):
        await connection.call("somebody.hears", b"x" * 2_000_000, timeout_s=1.0)
    await connection.settle()
    await connection.close()


async def test_a_server_that_is_not_there_and_a_wrong_password_are_told_in_time(fresh_nats: NatsServer) -> None:
    wrong = fresh_nats.url.replace("nats://platform:", "nats://platform:not")
    with pytest.raises(NotSent, match="within") as refused:
        await open_connection(wrong, name="test", timeout_s=0.5)
    assert wrong.split(":")[2].split("@")[0] not in str(refused.value)
    fresh_nats.kill()
    with pytest.raises(NotSent, match="within"):
        await open_connection(fresh_nats.url, name="test", timeout_s=0.3)


async def test_whoever_is_cancelled_while_it_subscribes_ends_and_leaves_nothing(fresh_nats: NatsServer) -> None:
    connection = await open_connection(fresh_nats.url, name="subscriber")
    before = len(connection._subs), len(connection._routing.routes)
    for turns in range(4):  # of the loop: before it sends, while it waits for the flusher, when that has just written
        listening = asyncio.create_task(connection.listen("a.b", lambda *_: None))
        for _ in range(turns):
            await asyncio.sleep(0)
        ended_by_itself = listening.done()
        listening.cancel()
        await asyncio.wait([listening], timeout=10.0)
        assert listening.cancelled() or ended_by_itself, f"cancelled after {turns} turns, it went on"
        if ended_by_itself:
            connection.forget(listening.result())
    assert (len(connection._subs), len(connection._routing.routes)) == before
    await connection.close()


def test_a_connection_that_ends_under_a_request_is_no_bug(fresh_nats: NatsServer) -> None:
    """uvloop takes no more for a socket it has closed, a moment before nats-py is told that it has ended."""
    bugs: list[dict[str, Any]] = []

    async def ask_while_it_ends(turns: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
        connection = await open_connection(fresh_nats.url, name="test")
        try:
            await connection.listen("somebody.hears", lambda *_: None)
            connection._transport._io_writer.transport.abort()  # pyright: ignore
            for _ in range(turns):
                await asyncio.sleep(0)
            with pytest.raises((NoAnswer, NotSent)):
                await connection.ask("somebody.hears", b"", b"", 0.2)
        finally:
            await connection.close()

    for turns in range(5):  # of the loop: before, while and after nats-py hears of it
        uvloop.run(ask_while_it_ends(turns))
    assert bugs == []
