"""The least that speaks to nats-server: one socket, frames written and split, nothing looked at twice.

The ceilings of `tests.bench.log` stand on it. It has no requests, no futures, no reconnecting and no time-outs: those
are what our own connection costs more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

INBOX = b"_RAW."

# subject, payload, raw headers
OnMessage = Callable[[bytes, bytes, bytes], None]


class RawNats(asyncio.Protocol):
    """One connection; `on_message` hears what comes to `INBOX`, `write` collects frames until the turn is over."""

    def __init__(self, url: str) -> None:
        self._login = urlsplit(url)
        self._transport: Any = None
        self._rest = b""
        self._frames: list[bytes] = []
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_message: OnMessage = lambda _subject, _data, _headers: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # uvloop's is no subclass of Transport
        self._transport = transport
        hello = {"user": self._login.username, "pass": self._login.password, "headers": True, "verbose": False}
        self.write(b"CONNECT %b\r\nSUB %b* 1\r\nPING\r\n" % (msgspec.json.encode(hello), INBOX))
        self.flush()

    def write(self, frame: bytes) -> None:
        self._frames.append(frame)

    def flush(self) -> None:
        self._transport.write(b"".join(self._frames))
        self._frames.clear()

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer, position = self._rest + data, 0
        while (line_end := buffer.find(b"\r\n", position)) >= 0:
            words = buffer[position:line_end].split()
            body_at = line_end + 2
            if words[0] == b"MSG" or words[0] == b"HMSG":
                body_end = body_at + int(words[-1])
                if body_end + 2 > len(buffer):
                    break
                headers_end = body_at + (int(words[-2]) if words[0] == b"HMSG" else 0)
                self.on_message(words[1], buffer[headers_end:body_end], buffer[body_at:headers_end])
                position = body_end + 2
                continue
            position = body_at
            if words[0] == b"PING":
                self.write(b"PONG\r\n")
            elif words[0] == b"PONG" and not self.greeted.done():
                self.greeted.set_result(None)
            assert words[0] != b"-ERR", words
        self._rest = buffer[position:]
        if self._frames:
            self.flush()


async def raw_connection(url: str) -> RawNats:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: RawNats(url), address.hostname, address.port)
    await client.greeted
    return client


def frame(subject: str, data: bytes, *, reply: bytes, headers: bytes = b"") -> bytes:
    """A message that asks for an answer."""
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply, len(data), data)
    size = len(headers) + len(data)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply, len(headers), size, headers, data)
