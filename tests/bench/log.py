"""The event log as services use it (append, load, replay), against the same server spoken to raw.

Product: `JetStreamLog.append` with its expectation, `Aggregates.state` of an aggregate that is in no cache, and
`OwnStream.replay` folded by `evolve`. Ceilings: the same messages over one bare socket (`tests.bench.raw_nats`),
without futures, time-outs, upcasting or a fold. Product and ceiling alternate in short slices; a line is a median.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec

from libs.clock import SystemClock
from libs.embedded.nats import Durability, NatsServer
from libs.eventlog import READ_BATCH_MAX
from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import READ_BYTES_MAX, JetStreamLog
from libs.eventlog.streams import ensure_stream, private_stream
from libs.ids import SystemIds
from libs.process import loop_runner
from libs.runtime.aggregates import Aggregates
from libs.runtime.codec import encode_commit, subject_of
from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from libs.runtime.service import Aggregate, Service
from proto.base import Event
from tests.bench.raw_nats import INBOX, RawNats, frame, raw_connection
from tests.bench.report import Line

STREAM = "EVT_BENCH"
SLICES = 5
RELAXED_IN_FLIGHT = 256
STRICT_IN_FLIGHT = 1_000
LOADS_IN_FLIGHT = 64
APPENDS = 20_000  # a slice: a fifth of a second raw
STRICT_APPENDS, STRICT_RAW_APPENDS = 20_000, 3_000
LOADS = 4_000
COMMITS_EACH = 10
COUNTERS = 10_000  # of COMMITS_EACH: what is loaded and replayed
PULL_MESSAGES = 5_000  # two overlap
APPEND_GOAL, LOAD_GOAL, REPLAY_GOAL = 0.50, 0.70, 0.40
STRICT_GOAL_PER_S = 20_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)

_loads = count()  # no aggregate is loaded twice in a row, so neither side is helped by what the server still holds
_slices = count()


class Counted(Event, tag="bench.counted", kw_only=True, frozen=True, gc=False):
    counter_id: str
    account_id: str
    name: str
    number: int
    counted_at: datetime


AGGREGATE = Aggregate("counter", 0, lambda _state, _command: (), lambda state, event: state + event.number, Counted)
SERVICE = Service("bench", (AGGREGATE,), None, lambda _: (), lambda _: (), "")


class _RawCommit(msgspec.Struct, frozen=True, gc=False):
    """What a reader cannot do without, decoded in one go."""

    id: str
    at: datetime
    events: list[Counted]


def measure() -> list[Line]:
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        with loop_runner() as loop:
            lines += loop.run(_relaxed(Path(folder) / "relaxed"))
            lines += loop.run(_strict(Path(folder) / "strict"))
    return lines


async def _relaxed(folder: Path) -> list[Line]:
    async with _ground(folder, "relaxed", "singly") as (url, log):
        append = await _alternate(
            lambda: _appends(log, APPENDS, RELAXED_IN_FLIGHT),
            lambda: _raw_appends(url, APPENDS, RELAXED_IN_FLIGHT),
        )
        await _fill(log)
        load = await _alternate(lambda: _load(log), lambda: _raw_load(url))
        total = await log.last_seq(STREAM)
        replay = await _alternate(lambda: _replay(log, total), lambda: _raw_replay(url, total))
    return [
        _ratio_line(f"append, relaxed, {RELAXED_IN_FLIGHT} in flight", "raw appends", append, APPEND_GOAL),
        _ratio_line(
            f"load an aggregate of {COMMITS_EACH} events, {LOADS_IN_FLIGHT} in flight", "raw reads", load, LOAD_GOAL
        ),
        _ratio_line("replay into a fold", "raw fetch and decode", replay, REPLAY_GOAL),
    ]


async def _strict(folder: Path) -> list[Line]:
    async with _ground(folder, "always", "grouped") as (url, log):
        ours, raw = await _alternate(
            lambda: _appends(log, STRICT_APPENDS, STRICT_IN_FLIGHT),
            lambda: _raw_appends(url, STRICT_RAW_APPENDS, STRICT_IN_FLIGHT),
        )
    return [
        Line(
            f"append, every one synced, {STRICT_IN_FLIGHT:,} in flight",
            f"{ours:,.0f}/s by group commit",
            f"{raw:,.0f}/s (raw appends, ungrouped)",
            f"{ours / raw:.2f}",
            f">= {STRICT_GOAL_PER_S:,}/s",
            ours >= STRICT_GOAL_PER_S,
        )
    ]


@asynccontextmanager
async def _ground(
    folder: Path, durability: Durability, appending: Literal["singly", "grouped"]
) -> AsyncGenerator[tuple[str, JetStreamLog], None]:
    server = NatsServer(folder, durability=durability)
    server.start()
    try:
        connection = await open_connection(server.url, name="bench")
        await ensure_stream(connection, private_stream("bench"))
        yield server.url, JetStreamLog(connection, appending=appending)
        await connection.close()
    finally:
        server.stop()


def _ratio_line(name: str, ceiling: str, measured: tuple[float, float], goal: float) -> Line:
    ours, raw = measured
    ratio = ours / raw
    return Line(name, f"{ours:,.0f}/s", f"{raw:,.0f}/s ({ceiling})", f"{ratio:.2f}", f">= {goal:.2f}", ratio >= goal)


async def _alternate(
    product: Callable[[], Awaitable[float]], ceiling: Callable[[], Awaitable[float]]
) -> tuple[float, float]:
    ours: list[float] = []
    raw: list[float] = []
    for _ in range(SLICES):
        ours.append(await product())
        raw.append(await ceiling())
    return statistics.median(ours), statistics.median(raw)


def _commit(counter_id: str, number: int) -> bytes:
    counted = Counted(counter_id=counter_id, account_id="acct_default", name="a counter", number=1, counted_at=NOW)
    ids = {"cause": f"evt_{number:026d}", "correlation": f"corr_{number:026d}"}
    return encode_commit(f"cmt_{number:026d}", number, NOW, [counted], **ids)


# --- append ------------------------------------------------------------------------------------------------------


def _fresh_messages(appends: int) -> Iterator[tuple[str, bytes]]:
    """First commits of aggregates that nobody has heard of."""
    slice_number = next(_slices)
    for number in range(appends):
        counter_id = f"new_{slice_number:06d}{number:020d}"
        yield subject_of("bench", "counter", counter_id), _commit(counter_id, number)


async def _appends(log: JetStreamLog, appends: int, in_flight: int) -> float:
    messages = list(_fresh_messages(appends))
    waiting = iter(messages)

    async def writer() -> None:
        for subject, data in waiting:
            await log.append(STREAM, subject, data, expected_seq=0)

    started = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(in_flight)))
    return appends / (time.perf_counter() - started)


async def _raw_appends(url: str, appends: int, in_flight: int) -> float:
    headers = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: 0\r\n\r\n"
    messages = list(_fresh_messages(appends))
    asks = (frame(subject, data, reply=INBOX + b"1", headers=headers) for subject, data in messages)

    def is_stored(data: bytes, _headers: bytes) -> bool:
        assert b'"error"' not in data, data
        return True

    return await _closed_loop(url, asks, appends, in_flight, is_stored)


async def _closed_loop(
    url: str, asks: Iterator[bytes], answers: int, in_flight: int, is_answered: Callable[[bytes, bytes], bool]
) -> float:
    """So many requests in flight until so many have been answered; answers a second."""
    raw = await raw_connection(url)
    done = asyncio.get_running_loop().create_future()
    left = answers

    def on_message(_subject: bytes, data: bytes, headers: bytes) -> None:
        nonlocal left
        if not is_answered(data, headers):
            return
        left -= 1
        if not left:
            done.set_result(None)
        following = next(asks, None)
        if following is not None:
            raw.write(following)

    raw.on_message = on_message
    started = time.perf_counter()
    for _ in range(in_flight):
        raw.write(next(asks))
    raw.flush()
    await done
    took_s = time.perf_counter() - started
    raw.close()
    return answers / took_s


# --- load --------------------------------------------------------------------------------------------------------


def _counter(number: int) -> str:
    return f"cnt_{number % COUNTERS:026d}"


async def _fill(log: JetStreamLog) -> None:
    numbers = iter(range(COUNTERS))

    async def writer() -> None:
        for number in numbers:
            subject, seq = subject_of("bench", "counter", _counter(number)), 0
            for version in range(COMMITS_EACH):
                seq = await log.append(STREAM, subject, _commit(_counter(number), version), expected_seq=seq)

    await asyncio.gather(*(writer() for _ in range(RELAXED_IN_FLIGHT)))


async def _load(log: JetStreamLog) -> float:
    aggregates = Aggregates(SERVICE, log, SystemClock(), SystemIds())
    wanted = iter([_counter(next(_loads)) for _ in range(LOADS)])

    async def reader() -> None:
        for counter_id in wanted:
            assert await aggregates.state("counter", counter_id) == COMMITS_EACH

    started = time.perf_counter()
    await asyncio.gather(*(reader() for _ in range(LOADS_IN_FLIGHT)))
    return LOADS / (time.perf_counter() - started)


async def _raw_load(url: str) -> float:
    api = f"$JS.API.DIRECT.GET.{STREAM}"
    found = 0

    def ask() -> bytes:
        subject = subject_of("bench", "counter", _counter(next(_loads)))
        wanted = {"batch": READ_BATCH_MAX, "max_bytes": READ_BYTES_MAX, "seq": 1, "next_by_subj": subject}
        return frame(api, msgspec.json.encode(wanted), reply=INBOX + b"1")

    def is_end(_data: bytes, headers: bytes) -> bool:
        nonlocal found
        if headers.startswith(b"NATS/1.0 204"):
            return True
        found += 1
        return False

    per_s = await _closed_loop(url, iter([ask() for _ in range(LOADS)]), LOADS, LOADS_IN_FLIGHT, is_end)
    assert found == LOADS * COMMITS_EACH
    return per_s


# --- replay ------------------------------------------------------------------------------------------------------


async def _replay(log: JetStreamLog, total: int) -> float:
    states: dict[str, Any] = {}
    evolve = AGGREGATE.evolve
    started = time.perf_counter()
    async with aclosing(OwnStream(SERVICE, log, Courtesy()).replay(0)) as batches:
        async for events, seq in batches:
            for heard in events:
                states[heard.aggregate_id] = evolve(states.get(heard.aggregate_id, 0), heard.event)
            if seq >= total:
                break
    took_s = time.perf_counter() - started
    assert sum(states.values()) == total
    return total / took_s


async def _raw_replay(url: str, total: int) -> float:
    raw = await raw_connection(url)
    decode = msgspec.json.Decoder(_RawCommit).decode
    consumer = f"raw_{next(_slices)}"
    config = {"name": consumer, "ack_policy": "none", "deliver_policy": "all", "mem_storage": True}
    create = msgspec.json.encode({"stream_name": STREAM, "config": config, "action": "create"})
    pull = frame(
        f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{consumer}",
        msgspec.json.encode({"batch": PULL_MESSAGES, "expires": 30_000_000_000}),
        reply=INBOX + b"pull",
    )
    done = asyncio.get_running_loop().create_future()
    seen = asked = 0

    def on_message(subject: bytes, data: bytes, headers: bytes) -> None:
        nonlocal seen, asked
        if headers.startswith(b"NATS/1.0 "):
            return
        if not subject.startswith(b"evt."):  # the consumer is made
            asked += 2 * PULL_MESSAGES
            raw.write(pull + pull)
            return
        decode(data)
        seen += 1
        if seen == total:
            done.set_result(None)
        elif asked - seen <= PULL_MESSAGES:
            asked += PULL_MESSAGES
            raw.write(pull)

    raw.on_message = on_message
    started = time.perf_counter()
    raw.write(frame(f"$JS.API.CONSUMER.CREATE.{STREAM}.{consumer}", create, reply=INBOX + b"made"))
    raw.flush()
    await done
    took_s = time.perf_counter() - started
    _delete_and_close(raw, consumer)
    return total / took_s


def _delete_and_close(raw: RawNats, consumer: str) -> None:
    raw.write(frame(f"$JS.API.CONSUMER.DELETE.{STREAM}.{consumer}", b"", reply=INBOX + b"gone"))
    raw.flush()
    raw.close()
