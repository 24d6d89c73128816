"""What aiohttp would answer by itself, in our words: bytes that are no HTTP request, and what escapes the pipeline.

Used by `server.py`. Nothing of such a request is told again, neither to the caller nor in a log line: the header that
cannot be read may well be the one with the key.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError, LineTooLong

from libs.refusal import Refused
from services.gateway.pipeline import Pipeline
from services.gateway.validation import Problem, refusal

KEEPALIVE_S = 75.0  # above the usual 60 s of load balancers, so that they close first
HEAD_READ_S_MAX = 30.0  # until the first request is there; then KEEPALIVE_S ends what is silent
LINE_BYTES_MAX = 8190  # of the target and of each header; aiohttp's own


class HttpServer(web.Server):
    """aiohttp's low-level server with connections of ours."""

    def __init__(self, pipeline: Pipeline, *, head_read_s_max: float = HEAD_READ_S_MAX) -> None:
        super().__init__(
            pipeline,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
        )
        self._pipeline = pipeline
        self._head_read_s_max = head_read_s_max

    def __call__(self) -> web.RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.serve(self._pipeline, self._head_read_s_max)
        return connection


class _Connection(web.RequestHandler):
    __slots__ = ("_patience", "_pipeline")

    def serve(self, pipeline: Pipeline, head_read_s_max: float) -> None:
        """aiohttp waits for the first request for ever: whoever sends half of one would hold the connection."""
        self._pipeline = pipeline
        self._patience = self._loop.call_later(head_read_s_max, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._patience.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Closes the connection: where the next request begins is not known."""
        del status, message
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("the caller is gone, or has had the beginning of an answer")
        refused = unreadable(exc) if isinstance(exc, HttpProcessingError) else Refused("INTERNAL_ERROR")
        response = self._pipeline.unanswered(request, refused, exc)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that could not be read was answered for; aiohttp meets it again when it drains the connection."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


def unreadable(error: HttpProcessingError) -> Refused:
    """By its kind; its text has bytes of the request in it."""
    if isinstance(error, LineTooLong):
        return refusal([Problem("request", f"Request must have no target and no header above {LINE_BYTES_MAX} bytes")])
    if isinstance(error, ContentEncodingError):
        return refusal([Problem("body", "Body must come in a known Content-Encoding: identity, gzip or deflate")])
    return refusal([Problem("request", "Request must be HTTP/1.1 as RFC 9112 has it")])
