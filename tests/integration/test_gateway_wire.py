"""What reaches the gateway's port and is no request that a client library would send: an answer in the documented form
and a line in the log all the same, never a 500, and nothing of it told again."""

from __future__ import annotations

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from libs import telemetry
from libs.clock import SystemClock
from libs.telemetry.log import configure_logging
from services.gateway.pipeline import Pipeline
from services.gateway.wire import HttpServer
from tests.integration.gateway_world import KEY, GatewayWorld, running_gateway

SECRET = "dumont_sk_" + "s" * 43
DEADLINE_S = 60.0
HOST = b"Host: h\r\nConnection: close\r\n"
AS = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
GET = b"GET /api/v1/instances HTTP/1.1\r\n" + HOST + AS
POST = b"POST /api/v1/instances HTTP/1.1\r\n" + HOST + AS + b"Content-Type: application/json\r\n"
UNKNOWN = b'{"gpu": "RTX 9999"}'


@pytest.fixture
def log() -> Iterator[io.BytesIO]:
    stream = io.BytesIO()
    configure_logging(service="gateway", level="info", clock=SystemClock(), stream=stream)
    yield stream
    configure_logging(service="", level="warning", clock=SystemClock())


@pytest_asyncio.fixture
async def world(log: io.BytesIO) -> AsyncIterator[GatewayWorld]:
    del log
    async with running_gateway() as found:
        yield found


class Told:
    """An answer as it came."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)
        self.error = msgspec.json.decode(self.body)["error"] if self.status >= 400 else {}


async def told(world: GatewayWorld, raw: bytes) -> Told:
    """Until the gateway closes, which it does after every one of these."""
    address = urlsplit(world.url)
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(raw)
        answered = await reader.read()
        writer.close()
    return Told(answered)


def with_body(body: bytes, *headers: bytes) -> bytes:
    return POST + b"".join(one + b"\r\n" for one in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


NO_REQUESTS: list[tuple[str, bytes]] = [
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("another version", b"GET /livez HTTP/3.9\r\n" + HOST + b"\r\n"),
    ("no such method", b"FOO /livez HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("no host", b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n"),
    ("two hosts", b"GET /livez HTTP/1.1\r\n" + HOST + b"Host: g\r\n\r\n"),
    ("bytes above ASCII in the path", b"GET /api/v1/offers/\xc3\xa9 HTTP/1.1\r\n" + HOST + AS + b"\r\n"),
    ("a NUL beside the key", GET.replace(KEY.encode(), SECRET.encode() + b"\x00") + b"\r\n"),
    ("a header too long", GET + b"X-Long: " + SECRET.encode() * 200 + b"\r\n\r\n"),
    ("a target too long", b"GET /api/instances?key=" + SECRET.encode() * 200 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("too many headers", GET + b"".join(b"X-%d: y\r\n" % number for number in range(500)) + b"\r\n"),
    ("a negative length", POST + b"Content-Length: -1\r\n\r\n{}"),
    ("two lengths", POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"),
    ("length and chunks", POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a chunk that is none", POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    ("a coding nobody has", with_body(UNKNOWN, b"Content-Encoding: br")),
    ("no gzip", with_body(UNKNOWN, b"Content-Encoding: gzip")),
    ("gzip and more", with_body(gzip.compress(UNKNOWN) + b"more", b"Content-Encoding: gzip")),
    ("no deflate", with_body(UNKNOWN, b"Content-Encoding: deflate")),
    ("no gzip where no body is read", GET + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
]


@pytest.mark.parametrize("raw", [raw for _, raw in NO_REQUESTS], ids=[what for what, _ in NO_REQUESTS])
async def test_what_is_no_request_is_a_documented_error_and_told_nowhere(
    world: GatewayWorld, log: io.BytesIO, raw: bytes
) -> None:
    refused = await told(world, raw)

    assert (refused.status, refused.error["code"]) == (400, "VALIDATION_ERROR")
    assert refused.error["details"]["field"] in ("request", "body")
    assert refused.error["details"]["reason"]
    assert refused.error["advice"]
    assert refused.headers["content-type"] == "application/json; charset=utf-8"
    assert refused.headers["x-request-id"] == refused.error["request_id"]
    telemetry.flush_log()
    lines = [msgspec.json.decode(line) for line in log.getvalue().splitlines()]
    (line,) = (line for line in lines if line["event"] == "http.request")
    assert (line["status"], line["request_id"]) == (400, refused.error["request_id"])
    assert not [line for line in lines if line["level"] in ("warning", "error")]
    assert SECRET.encode() not in log.getvalue() + refused.body


WHOLE = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"


async def connection_that_is_used(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """On a machine that stood still after the connect it is closed already: then another."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        if await reader.read(1 << 16):
            return reader, writer


async def test_half_a_request_does_not_hold_a_connection_and_a_whole_one_does(world: GatewayWorld) -> None:
    runner = web.ServerRunner(HttpServer(Pipeline(world.gateway), head_read_s_max=0.2))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            port = runner.addresses[0][1]
            reader, writer = await connection_that_is_used(port)
            half, half_writer = await asyncio.open_connection("127.0.0.1", port)
            half_writer.write(WHOLE[:-2])
            assert await half.read() == b""
            writer.write(WHOLE)
            assert b"HTTP/1.1 200" in await reader.readuntil(b"\r\n\r\n")
            writer.close()
            half_writer.close()
    finally:
        await runner.cleanup()


async def test_a_body_packed_with_gzip_is_read(world: GatewayWorld) -> None:
    packed = await told(world, with_body(gzip.compress(UNKNOWN), b"Content-Encoding: gzip"))
    assert (packed.status, packed.error["code"]) == (404, "PRODUCT_NOT_FOUND")
    bomb = await told(world, with_body(gzip.compress(b" " * (11 << 20) + UNKNOWN), b"Content-Encoding: gzip"))
    assert (bomb.status, bomb.error["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("target", [b"http://h/api/v1/instances", b"HTTP://h:3000/api/v1/instances?limit=1"])
async def test_a_whole_url_is_a_target_too(world: GatewayWorld, target: bytes) -> None:
    assert (await told(world, GET.replace(b"/api/v1/instances", target) + b"\r\n")).status == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [("application/json", 404), ("Application/JSON; charset=UTF-8", 404), ("application/vnd.api+json", 404),
     ("", 404), ("text/plain", 415), ("text/plain; note=json", 415), ("application/x-www-form-urlencoded", 415)],
)  # fmt: skip
async def test_only_json_is_read_and_what_says_nothing(world: GatewayWorld, kind: str, status: int) -> None:
    raw = with_body(UNKNOWN).replace(b"Content-Type: application/json\r\n", f"Content-Type: {kind}\r\n".encode())
    assert (await told(world, raw)).status == status


@pytest.mark.parametrize(("text", "status"), [(rb"a\u0000b", 400), (rb"a\\\u0000b", 400), (rb"a\\u0000b", 404)])
async def test_a_nul_is_refused_and_its_name_is_not(world: GatewayWorld, text: bytes, status: int) -> None:
    refused = await told(world, with_body(b'{"gpu": "RTX 9999", "onstart_cmd": "' + text + b'"}'))
    assert refused.status == status
