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
LINE_BYTES_MAX = 8190  # of the target and of each header; aiohttp's own


class HttpServer(web.Server):
    """aiohttp's low-level server with connections of ours."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(
            pipeline,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
        )
        self._pipeline = pipeline

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs).answering_with(self._pipeline)


class _Connection(web.RequestHandler):
    __slots__ = ("_pipeline",)

    def answering_with(self, pipeline: Pipeline) -> _Connection:
        self._pipeline = pipeline
        return self

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
