"""NATS framing without copies: a line parser that hands messages of chosen subscriptions straight to a callback.

Used by `libs.eventlog.connection` only (and its header helpers by the JetStream adapter). Owns the bytes that a split
read leaves behind. nats-py's own parser matches regular expressions against a growing buffer, builds a `Msg` and
passes it through a queue and a task: 30 us a message against 2 us here (measured, replay of 300 B messages).
"""

# pyright: reportPrivateUsage=false
# nats-py's parser and client know each other by protected members; ours stands in for its parser.

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

# subject, reply subject, payload, raw header block. Runs inside the read loop: must be quick and must not raise.
Deliver = Callable[[bytes, bytes, bytes, bytes], None]

# The server's own default is 4 KiB for what clients send; its INFO line grows with the cluster's addresses.
CONTROL_LINE_BYTES_MAX = 64 * 1024

STATUS_PREFIX = b"NATS/1.0 "
NO_RESPONDERS = 503


class Receiver(Protocol):
    """What the parser calls for everything that is not on the fast path: nats-py's client."""

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None: ...
    async def _process_err(self, err_msg: str) -> None: ...
    async def _process_ping(self) -> None: ...
    async def _process_pong(self) -> None: ...
    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None: ...


class RoutingParser(Parser):
    """Drop-in for nats-py's `Parser` (same `parse` and `reset`). `routes` maps a subscription id to its callback."""

    def __init__(self, receiver: Receiver) -> None:
        self.routes: dict[bytes, Deliver] = {}
        self._receiver = receiver
        self._rest = b""
        self._epoch = 0
        super().__init__(receiver)  # pyright: ignore[reportUnknownMemberType] - untyped there

    def reset(self) -> None:
        """Forget half a message: the connection it came from is gone."""
        super().reset()
        self._rest = b""
        self._epoch += 1

    async def parse(self, data: bytes = b"") -> None:
        """Handle every whole message in `data`; keep what is left for the next call."""
        buffer = self._rest + data if self._rest else bytes(data)
        self._rest = b""
        epoch = self._epoch
        size = len(buffer)
        routes = self.routes
        position = 0
        while position < size:
            line_end = buffer.find(b"\r\n", position)
            if line_end < 0:
                if size - position > CONTROL_LINE_BYTES_MAX:
                    raise ProtocolError("nats: control line too long")
                break
            words = buffer[position:line_end].split()
            verb = words[0] if words else b""
            body_at = line_end + 2
            if verb == b"MSG":
                headers_end = body_at
                reply = words[3] if len(words) == 5 else b""
            elif verb == b"HMSG":
                headers_end = body_at + int(words[-2])
                reply = words[3] if len(words) == 6 else b""
            else:
                line = buffer[position:line_end]
                position = body_at
                await self._control(verb, line)
                if epoch != self._epoch:
                    return
                continue
            body_end = body_at + int(words[-1])
            if body_end + 2 > size:
                break
            position = body_end + 2
            headers = buffer[body_at:headers_end]
            deliver = routes.get(words[2])
            if deliver is not None:
                deliver(words[1], reply, buffer[headers_end:body_end], headers)
                continue
            await self._receiver._process_msg(int(words[2]), words[1], reply, buffer[headers_end:body_end], headers)
            if epoch != self._epoch:
                return
        if position < size:
            self._rest = buffer[position:]

    async def _control(self, verb: bytes, line: bytes) -> None:
        if verb == b"PING":
            await self._receiver._process_ping()
        elif verb == b"PONG":
            await self._receiver._process_pong()
        elif verb == b"INFO":
            await self._receiver._process_info(json.loads(line[5:]))
        elif verb == b"-ERR":
            await self._receiver._process_err(line[5:].decode(errors="replace").strip().lower())
        elif verb != b"+OK":
            raise ProtocolError("nats: unknown protocol")


def status_of(headers: bytes) -> int:
    """The status code of a message that is a notice of the server (`NATS/1.0 503`), 0 for an ordinary message."""
    if not headers.startswith(STATUS_PREFIX):
        return 0
    code = headers[len(STATUS_PREFIX) : len(STATUS_PREFIX) + 3]
    return int(code) if code.isdigit() else 0


def header(headers: bytes, name: bytes) -> bytes:
    """The first value of `name` (spelled as it was sent) in a raw header block, empty when absent."""
    start = headers.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return headers[start : headers.find(b"\r\n", start)].strip()


def parse_headers(headers: bytes) -> dict[str, str]:
    """All headers of a raw block; the last of a repeated name wins."""
    found: dict[str, str] = {}
    for line in headers.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.decode()] = value.strip().decode(errors="replace")
    return found


def header_block(headers: Mapping[str, str]) -> bytes:
    """The raw block for `headers`. Raises ValueError on a name or value that would break the framing."""
    lines = ["NATS/1.0"]
    for name, value in headers.items():
        if not name or any(c in name + value for c in "\r\n") or ":" in name or " " in name:
            raise ValueError(f"not a header that can be sent: {name!r}")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
