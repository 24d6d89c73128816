"""Log lines: one JSON object per outcome, nothing secret in it, never in the way."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs import telemetry
from libs.telemetry.log import BUFFER_BYTES_MAX, FLUSH_INTERVAL_S, LINE_BYTES_MAX, configure_logging
from libs.telemetry.redaction import is_secret_key, redact_text

NOON = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)


class StoppedClock:
    def now(self) -> datetime:
        return NOON

    def monotonic_s(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        del seconds


class Account(msgspec.Struct):
    account_id: str
    api_key: str


@pytest.fixture
def out() -> Iterator[io.BytesIO]:
    stream = io.BytesIO()
    configure_logging(service="test", level="info", clock=StoppedClock(), stream=stream)
    yield stream
    configure_logging(service="", level="warning", clock=StoppedClock())


def lines(out: io.BytesIO) -> list[dict[str, Any]]:
    telemetry.flush_log()
    return [msgspec.json.decode(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_facts(out: io.BytesIO) -> None:
    telemetry.logger("webhooks", replica=2).info("delivery.attempted", delivery_id="del_1", took_ms=12)
    assert lines(out) == [
        {
            "ts": "2026-01-02T12:00:00.000005Z",
            "level": "info",
            "event": "delivery.attempted",
            "service": "test",
            "logger": "webhooks",
            "replica": 2,
            "delivery_id": "del_1",
            "took_ms": 12,
        }
    ]


def test_lines_below_the_level_are_not_written(out: io.BytesIO) -> None:
    telemetry.logger().debug("cache.hit")
    assert lines(out) == []


def test_a_logger_made_before_configuration_follows_it(out: io.BytesIO) -> None:
    log = telemetry.logger()
    second = io.BytesIO()
    log.info("first")
    configure_logging(service="renamed", level="debug", clock=StoppedClock(), stream=second)
    log.debug("second")
    assert [line["event"] for line in lines(second)] == ["second"]
    assert b"first" in out.getvalue()


@pytest.mark.parametrize(
    "secret",
    [
        "dumont_sk_" + "a" * 43,
        "dumont_agent_mach_1.3." + "f" * 64,
        "Bearer abc.def-ghi",
        "authorization: bearer AbC123==",
        "nats://user:hunter2@127.0.0.1:4222",
    ],
)
def test_credentials_are_found_by_their_look(out: io.BytesIO, secret: str) -> None:
    log = telemetry.logger()
    log.info("a", text=f"failed with {secret} today")
    log.info("b", nested={"list": [secret]}, error_text=ValueError(secret))
    log.error("c", error=ValueError(secret))
    log.info(f"event {secret}")
    telemetry.flush_log()
    for part in ("a" * 43, "f" * 64, "abc.def", "AbC123", "hunter2"):
        assert part.encode() not in out.getvalue()
    assert b"[redacted]" in out.getvalue()


def test_credentials_are_found_by_their_name(out: io.BytesIO) -> None:
    telemetry.logger().info(
        "a", api_key="k1", account=Account("acct_1", "k2"), headers={"X-Api-Key": "k3", "Host": "h"}
    )
    (line,) = lines(out)
    assert line["api_key"] == "[redacted]"
    assert line["account"] == {"account_id": "acct_1", "api_key": "[redacted]"}
    assert line["headers"] == {"X-Api-Key": "[redacted]", "Host": "h"}


@pytest.mark.parametrize("name", ["password", "agentToken", "X-Api-Key", "APIKey", "signing_key", "client_secret"])
def test_secret_names(name: str) -> None:
    assert is_secret_key(name)


@pytest.mark.parametrize("name", ["key_id", "monkey", "tokenizer", "instance_id", "passed", "apis"])
def test_harmless_names(name: str) -> None:
    assert not is_secret_key(name)


def test_harmless_text_stays() -> None:
    assert redact_text("https://host/path?x=1 the bearers came") == "https://host/path?x=1 the bearers came"


def test_nothing_that_is_logged_can_raise(out: io.BytesIO) -> None:
    looped: list[object] = []
    looped.append(looped)
    log = telemetry.logger()
    log.info("odd", value=object(), looped=looped, number=1 << 70, text="\ud800", bad_key={1: 2}, event_="x")
    log.info("reserved", **{"event": 1, "level": 2, "self": 3, "method_name": 4})
    odd, reserved = lines(out)
    assert odd["event"] in {"odd", "'odd'"}
    assert reserved["level"] == "info"
    assert reserved["level_"] == 2


def test_an_error_carries_the_end_of_its_traceback(out: io.BytesIO) -> None:
    try:
        int("boom")
    except ValueError as error:
        telemetry.logger().error("job.bug", error=error)
    (line,) = lines(out)
    assert line["error"] == "ValueError: invalid literal for int() with base 10: 'boom'"
    assert "test_telemetry_log" in line["traceback"]


def test_what_libraries_say_is_a_line_too_and_holds_no_secret(out: io.BytesIO) -> None:
    said = logging.getLogger("aiohttp.server")
    try:
        int("boom")
    except ValueError:
        said.exception("cannot read %r", "Bearer abc.def-ghi")
    said.warning("odd %d", "no number")
    said.info("too little to tell")
    error, warning = lines(out)
    assert (error["level"], error["event"], error["logger"]) == ("error", "library.error", "aiohttp.server")
    assert error["error"].startswith("ValueError")
    assert (warning["level"], warning["text"]) == ("warning", "odd %d")
    assert b"abc.def" not in out.getvalue()


def test_no_module_has_a_log_of_its_own_making() -> None:
    """Lines of structlog's own default are not JSON, and nobody blanks their secrets."""
    root = Path(__file__).parents[2]
    files = [path for name in ("libs", "services", "proto") for path in (root / name).rglob("*.py")]
    having = [str(path.relative_to(root)) for path in files if "import structlog" in path.read_text(encoding="utf-8")]
    assert having == ["libs/telemetry/log.py"]


def test_a_line_that_is_a_dump_keeps_its_head(out: io.BytesIO) -> None:
    telemetry.logger().info("dump", body="x" * (LINE_BYTES_MAX * 2))
    (line,) = lines(out)
    assert line["event"] == "dump"
    assert line["line_bytes"] > LINE_BYTES_MAX * 2
    assert len(out.getvalue()) <= LINE_BYTES_MAX


async def test_lines_are_written_together_and_soon(out: io.BytesIO) -> None:
    loop = asyncio.get_running_loop()
    log = telemetry.logger()
    log.info("one")
    log.info("two")
    assert out.getvalue() == b""
    deadline_s = loop.time() + FLUSH_INTERVAL_S * 20
    while not out.getvalue() and loop.time() < deadline_s:
        await asyncio.sleep(0.01)
    assert out.getvalue().count(b"\n") == 2


async def test_a_warning_and_a_full_buffer_are_written_at_once(out: io.BytesIO) -> None:
    log = telemetry.logger()
    log.info("before")
    log.warning("now")
    assert out.getvalue().count(b"\n") == 2
    for _ in range(BUFFER_BYTES_MAX // 1_000 + 1):
        log.info("filler", text="x" * 1_000)
    assert len(out.getvalue()) > BUFFER_BYTES_MAX


def test_a_closed_stream_is_no_reason_to_fail(out: io.BytesIO) -> None:
    out.close()
    telemetry.logger().error("nobody.listens")
