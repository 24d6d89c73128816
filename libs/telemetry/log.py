"""Log lines: one JSON object per outcome, on standard error, encoded by msgspec.

Called by everything that has something to tell an operator, as `log = logger("delivery")` and
`log.info("delivery.attempted", delivery_id=…, took_ms=…)`. Owns the process's only log writer.

A line is `{"ts", "level", "event", "service", …facts}`. Lines are buffered and written at most FLUSH_INTERVAL_S later
when an event loop runs, at once otherwise; warnings and errors are always written at once, so a crash loses at most
FLUSH_INTERVAL_S of informative lines. Logging never raises and never blocks on anything but the write itself.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import traceback
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any, BinaryIO

import msgspec
import structlog

from libs.clock import Clock, SystemClock
from libs.telemetry.redaction import REDACTED, is_secret_key, plain, redact_bytes

# Long enough to gather a few hundred lines under load into one write, short enough to watch by eye.
FLUSH_INTERVAL_S = 0.2
# One write of this size fits a pipe's buffer (64 KiB on Linux), so that the writer seldom waits for the reader.
BUFFER_BYTES_MAX = 48 * 1024
# A line beyond this is no outcome but a dump: its head is kept. Many collectors cut at 16 KiB.
LINE_BYTES_MAX = 16 * 1024
TRACEBACK_CHARS_MAX = 6_000

# The line's own fields and structlog's parameter names: facts called so get an underscore, not an exception.
_RESERVED = frozenset({"ts", "level", "event", "service", "self", "method_name"})
_SCALARS = frozenset({str, int, float, bool, type(None), datetime})


class LineWriter:
    """Collects encoded lines and writes them in one piece. Not thread-safe: one event loop per process logs.

    Its methods are named as structlog calls them: by level.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._size_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def info(self, line: bytes) -> None:
        self._lines.append(line)
        self._size_bytes += len(line)
        if self._size_bytes >= BUFFER_BYTES_MAX:
            self.flush()
        elif self._timer is None:
            self._flush_soon()

    debug = info

    def warning(self, line: bytes) -> None:
        self._lines.append(line)
        self.flush()

    error = critical = warning

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._timer = loop.call_later(FLUSH_INTERVAL_S, self.flush)

    def flush(self) -> None:
        """Write everything collected. A closed or broken stream swallows it: there is nowhere left to complain."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size_bytes = self._lines, [], 0
        if not lines:
            return
        stream = self._stream or sys.stderr.buffer
        try:
            stream.write(b"".join(lines))
            stream.flush()
        except (OSError, ValueError):
            return


class _Renderer:
    """The one structlog processor: names, redacts, stamps and encodes a line."""

    def __init__(self, service: str, clock: Clock) -> None:
        self._service = service
        self._clock = clock
        self._encode = msgspec.json.Encoder(enc_hook=_text_of).encode

    def __call__(self, _logger: Any, level: str, facts: MutableMapping[str, Any]) -> bytes:
        line: dict[str, Any] = {"ts": self._clock.now(), "level": level, "event": facts.pop("event")}
        if self._service:
            line["service"] = self._service
        for name, value in facts.items():
            if is_secret_key(name):
                line[name] = REDACTED
            else:
                line[name] = value if type(value) in _SCALARS else plain(value)
        try:
            encoded = self._encode(line)
        except (TypeError, ValueError, OverflowError, RecursionError):
            encoded = self._encode({name: ascii(value) for name, value in line.items()})
        encoded = redact_bytes(encoded)
        if len(encoded) > LINE_BYTES_MAX:
            encoded = self._head(line, encoded)
        return encoded + b"\n"

    def _head(self, line: dict[str, Any], encoded: bytes) -> bytes:
        head = encoded[: LINE_BYTES_MAX // 2].decode("utf-8", "replace")
        kept = {name: line[name] for name in ("ts", "level", "event", "service") if name in line}
        return self._encode({**kept, "line_bytes": len(encoded), "line_head": head})


def _text_of(value: object) -> str:
    """Anything that JSON has no form for, as text."""
    return repr(value)


class _Configuration:
    """What `configure_logging` last said; loggers notice a change by identity."""

    def __init__(self, writer: LineWriter, renderer: _Renderer, level: str) -> None:
        self.writer = writer
        self._renderer = renderer
        self._wrapper = structlog.make_filtering_bound_logger(level)

    def bound(self, facts: dict[str, object]) -> Any:
        return structlog.wrap_logger(
            self.writer, processors=[self._renderer], wrapper_class=self._wrapper, context_class=dict
        ).bind(**facts)


class _Current:
    """The process's configuration. Until `configure_logging`: warnings and errors only, service unnamed."""

    value = _Configuration(LineWriter(), _Renderer("", SystemClock()), "warning")


def configure_logging(*, service: str, level: str, clock: Clock, stream: BinaryIO | None = None) -> None:
    """Name the process and set the level; loggers made before follow. `stream` defaults to standard error."""
    logging.raiseExceptions = False
    logging.getLogger().addHandler(_FORWARDED)
    flush_log()
    _Current.value = _Configuration(LineWriter(stream), _Renderer(service, clock), level)
    atexit.unregister(flush_log)
    atexit.register(flush_log)


def flush_log() -> None:
    _Current.value.writer.flush()


class Logger:
    """Says facts about outcomes. Bound facts are repeated on every line. May be made at import time."""

    __slots__ = ("_bound", "_facts", "_seen")

    def __init__(self, facts: dict[str, object]) -> None:
        self._facts = facts
        self._seen: _Configuration | None = None
        self._bound: Any = None

    def bind(self, **facts: object) -> Logger:
        return Logger({**self._facts, **_unreserved(facts)})

    def debug(self, event: str, /, **facts: object) -> None:
        self._current().debug(event, **_unreserved(facts))

    def info(self, event: str, /, **facts: object) -> None:
        self._current().info(event, **_unreserved(facts))

    def warning(self, event: str, /, **facts: object) -> None:
        self._current().warning(event, **_unreserved(facts))

    def error(self, event: str, /, error: BaseException | None = None, **facts: object) -> None:
        """`error` adds its type and text, and its traceback with the oldest frames cut off first."""
        if error is not None:
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            facts["error"] = f"{type(error).__name__}: {error}"
            facts["traceback"] = "".join(lines)[-TRACEBACK_CHARS_MAX:]
        self._current().error(event, **_unreserved(facts))

    def _current(self) -> Any:
        configuration = _Current.value
        if configuration is not self._seen:
            self._bound = configuration.bound(self._facts)
            self._seen = configuration
        return self._bound


class _Forwarded(logging.Handler):
    """What libraries say through the standard library (asyncio of a task that failed unseen), as lines like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit its format
            text = str(record.msg)
        log = Logger({"logger": record.name})
        if record.levelno >= logging.ERROR:
            log.error("library.error", error=record.exc_info[1] if record.exc_info else None, text=text)
        else:
            log.warning("library.warning", text=text)


_FORWARDED = _Forwarded(logging.WARNING)


def logger(name: str = "", **facts: object) -> Logger:
    """A logger of its own; `name` says which part of the process speaks."""
    facts = _unreserved(facts)
    return Logger({"logger": name, **facts} if name else facts)


def _unreserved(facts: dict[str, object]) -> dict[str, object]:
    if _RESERVED.isdisjoint(facts):
        return facts
    return {f"{name}_" if name in _RESERVED else name: value for name, value in facts.items()}
