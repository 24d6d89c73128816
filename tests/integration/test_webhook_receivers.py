"""Receivers that mean harm, live on loopback: nothing they do leads inside, fills memory or holds a place for long."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.clock import SystemClock
from services.webhook_dispatch.effects.fence import Fence
from services.webhook_dispatch.effects.posting import RESPONSE_KEPT_CHARS_MAX, RESPONSE_READ_BYTES_MAX, Answer, Poster

OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.1"  # the fence below takes the first for the internet and not the second
SHORT_S = 0.3
TRIES = 20
BOMB_BYTES = 50 * 1024 * 1024
SIDE_BY_SIDE = 50
MEMORY_BYTES_MAX = 16 * 1024 * 1024
CHUNK = b"x" * 65_536

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve, host: str = OUTSIDE, port: int = 0) -> AsyncIterator[int]:
    """A raw server: receivers like these are not written with a library."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def posting() -> AsyncIterator[Callable[..., Awaitable[Answer]]]:
    fence = Fence([f"{OUTSIDE}/32"], is_loopback_allowed=False, is_http_allowed=True, is_public_allowed=False)
    poster = Poster(fence, SystemClock())

    async def post(url: str, timeout_s: float = 10.0) -> Answer:
        return await poster.post(url, b"{}", {"webhook-id": "msg_1"}, timeout_s=timeout_s)

    try:
        yield post
    finally:
        await poster.close()


def answering(head: str, *parts: bytes) -> Serve:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\n\r\n".encode() + b"".join(parts))
        await writer.drain()

    return serve


async def test_a_redirect_is_not_followed() -> None:
    visits: list[bytes] = []

    async def inside(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(b"visited")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with served(inside, INSIDE) as port:
        for status in (301, 302, 303, 307, 308):
            redirect = answering(f"{status} Elsewhere\r\nLocation: http://{INSIDE}:{port}/\r\nContent-Length: 0")
            async with served(redirect) as outside, posting() as post:
                answer = await post(f"http://{OUTSIDE}:{outside}/")
                assert (answer.status_code, answer.is_delivered) == (status, False)
    assert not visits


async def test_a_name_that_changes_its_address_never_leads_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    visits: list[str] = []

    def visited(where: str) -> Serve:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            visits.append(where)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        return serve

    turns = iter([OUTSIDE, INSIDE] * TRIES)

    async def rebinding(_host: str, port: int, **_: Any) -> list[Any]:
        address = next(turns)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async with served(visited("outside")) as port, served(visited("inside"), INSIDE, port):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
        monkeypatch.setattr("services.webhook_dispatch.effects.posting.NAMES_KEPT_S", 0)
        outcomes: list[Answer] = []
        for _ in range(TRIES):
            async with posting() as post:  # a client of its own: no name is remembered
                outcomes.append(await post(f"http://rebinding.test:{port}/"))
    assert set(visits) == {"outside"}
    refused = [answer for answer in outcomes if not answer.is_delivered]
    assert len(refused) == TRIES // 2
    assert all(answer.is_final and "public internet" in answer.error for answer in refused)


async def test_a_gzip_bomb_is_not_unpacked_and_an_endless_answer_is_not_read() -> None:
    bomb = gzip.compress(bytes(BOMB_BYTES))
    head = f"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    sent = 0

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))
            await writer.drain()
            sent += len(CHUNK)

    async with served(answering(head, bomb)) as packed, served(endless) as flood, posting() as post:
        tracemalloc.start()
        try:
            answers = await asyncio.gather(
                *(post(f"http://{OUTSIDE}:{port}/") for port in (packed, flood) for _ in range(SIDE_BY_SIDE))
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX + SIDE_BY_SIDE * (RESPONSE_READ_BYTES_MAX + 4 * len(CHUNK))
    assert sent < SIDE_BY_SIDE * 8 * 1024 * 1024  # what the kernel's buffers take
    assert all(answer.is_delivered and len(answer.response) <= RESPONSE_KEPT_CHARS_MAX for answer in answers)


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"],
                         ids=["in its headers", "in its body"])  # fmt: skip
async def test_a_receiver_that_drips_is_given_up_in_time(part: bytes) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(part)
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with served(drip) as port, posting() as post:
        answers = await asyncio.gather(*(post(f"http://{OUTSIDE}:{port}/", SHORT_S) for _ in range(SIDE_BY_SIDE)))
    assert {answer.error for answer in answers} == {f"no answer within {SHORT_S} s"}


@pytest.mark.parametrize(
    "head",
    ["200 OK\r\n" + "X-Long: " + "a" * 20_000, "200 OK\r\n" + "\r\n".join(f"X-{n}: {'a' * 900}" for n in range(400))],
    ids=["one long line", "many lines"],
)
async def test_headers_without_end_are_an_error_and_no_more(head: str) -> None:
    async with served(answering(head + "\r\nContent-Length: 0")) as port, posting() as post:
        answer = await post(f"http://{OUTSIDE}:{port}/", 5.0)
        assert answer.error and not answer.is_delivered
        assert answer.took_ms < 5_000
