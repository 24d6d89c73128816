"""One open answer: an event stream that a client reads for as long as it likes.

Made by the pipeline around aiohttp's response, fed by the feed. Owns what is buffered for the client: up to
BUFFER_BYTES_MAX, and a client that lets more come together is cut off. It loses nothing by that: it comes back with
the id of the last event it has whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web
from multidict import CIMultiDict

BUFFER_BYTES_MAX = 256 * 1024  # beside what the kernel keeps; some hundred events
SEND_S_MAX = 30.0  # a client that is catching up and takes nothing for so long has gone


class Stream:
    """`ended` says why it is over: `closing`, `slow`, `gone`, `revoked`."""

    def __init__(self, response: web.StreamResponse, transport: asyncio.Transport, *, is_chunked: bool) -> None:
        self._response = response
        self._transport = transport
        self._is_chunked = is_chunked
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)

    async def send(self, data: bytes) -> None:
        """Wait until the client takes it: for what is read from the log, which can wait. May end the stream."""
        try:
            async with asyncio.timeout(SEND_S_MAX):
                await self._response.write(data)
        except TimeoutError:
            self.end("slow")
        except ConnectionError:
            self.end("gone")

    def push(self, data: bytes, chunk: bytes) -> None:
        """Hand it over at once: for what happens now. `chunk` is the same data as a chunk of HTTP/1.1."""
        if self._transport.is_closing():
            self.end("gone")
        elif self._transport.get_write_buffer_size() > BUFFER_BYTES_MAX:
            self.end("slow")
        else:
            self._transport.write(chunk if self._is_chunked else data)

    def cut(self) -> None:
        """Without waiting for what is buffered."""
        self._transport.abort()


class Live:
    """What a handler answers with instead of a body: what to do with the stream once the headers are out."""

    def __init__(self, serve: Callable[[Stream], Awaitable[None]]) -> None:
        self.serve = serve


def chunked(data: bytes) -> bytes:
    """As one chunk of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def streamed(request: web.BaseRequest, live: Live, status: int, headers: CIMultiDict[str]) -> web.StreamResponse:
    """Answer with a stream; returns when it is over."""
    response = web.StreamResponse(status=status, headers=headers)
    is_chunked = request.version >= (1, 1)
    if is_chunked:
        response.enable_chunked_encoding()
    else:
        response.force_close()
    await response.prepare(request)
    if request.method == "HEAD" or request.transport is None:
        return response
    stream = Stream(response, request.transport, is_chunked=is_chunked)
    await live.serve(stream)
    if stream.ended.done() and stream.ended.result() in ("slow", "gone"):
        stream.cut()
    else:
        with suppress(ConnectionError):  # it has gone just now
            await response.write_eof()
    return response
