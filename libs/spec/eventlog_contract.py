"""What every EventLog must do: `EVENTLOG_CONTRACT` is a list of checks, each run by every adapter's tests.

Called by tests/integration (memory and JetStream). Each check gets a log whose streams `EVT_CONTRACT`
(`evt.contract.>`) and `PUB` (`pub.>`) exist and are empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from libs.eventlog import FOLLOW_BATCH_MAX, READ_BATCH_MAX, Contended, EventLog, Stored, WrongExpectation
from libs.eventlog.wire import parse_headers
from proto.base import COMMIT_BYTES_MAX

STREAM = "EVT_CONTRACT"
PUBLIC = "PUB"
WAIT_S_MAX = 15.0

Check = Callable[[EventLog], Awaitable[None]]


def subject(number: int | str) -> str:
    return f"evt.contract.thing.t{number}"


async def fill(log: EventLog, name: int | str, count: int, size: int = 20) -> list[int]:
    """Append `count` commits to one subject, one after another; return their sequences."""
    seqs = [0]
    for index in range(count):
        data = b"%s-%d" % (str(name).encode(), index)
        seqs.append(await log.append(STREAM, subject(name), data.ljust(size, b"."), expected_seq=seqs[-1]))
    return seqs[1:]


async def take(
    log: EventLog, count: int, *, stream: str = STREAM, after_seq: int = 0, subjects: Sequence[str] = ()
) -> list[Stored]:
    """The first `count` messages of a follow."""
    found: list[Stored] = []
    async with asyncio.timeout(WAIT_S_MAX):
        # An async generator in both adapters; the port promises only the iterator.
        batches: Any = log.follow(stream, after_seq=after_seq, subjects=subjects)
        async with aclosing(batches):
            async for batch in cast(AsyncIterator[Sequence[Stored]], batches):
                assert 1 <= len(batch) <= FOLLOW_BATCH_MAX
                found += batch
                if len(found) >= count:
                    break
    return found


async def an_append_is_read_back_with_its_sequence(log: EventLog) -> None:
    seq = await log.append(STREAM, subject(1), b'{"a":1}', expected_seq=0)
    (stored,) = await log.read(STREAM, subject(1))
    assert (stored.seq, stored.subject, stored.data) == (seq, subject(1), b'{"a":1}')
    assert await log.last_seq(STREAM) == seq


async def an_empty_stream_has_nothing(log: EventLog) -> None:
    assert await log.last_seq(STREAM) == 0
    assert list(await log.read(STREAM, subject("nobody"))) == []


async def a_stale_expectation_is_refused_and_stores_nothing(log: EventLog) -> None:
    (first,) = await fill(log, 1, 1)
    for stale in (0, first + 1):
        with pytest.raises(WrongExpectation):
            await log.append(STREAM, subject(1), b"late", expected_seq=stale)
    assert await log.last_seq(STREAM) == first


async def expectations_are_per_subject(log: EventLog) -> None:
    (first,) = await fill(log, 1, 1)
    (second,) = await fill(log, 2, 1)
    third = await log.append(STREAM, subject(1), b"next", expected_seq=first)
    assert first < second < third
    assert [m.seq for m in await log.read(STREAM, subject(1))] == [first, third]


async def of_many_equal_wishes_one_wins(log: EventLog) -> None:
    async def race(name: int, racer: int) -> bool:
        try:
            await log.append(STREAM, subject(name), b"racer %d" % racer, expected_seq=0)
        except (WrongExpectation, Contended):
            return False
        return True

    for name in range(10):
        won = await asyncio.gather(*(race(name, racer) for racer in range(20)))
        (stored,) = await log.read(STREAM, subject(name))
        assert sum(won) == 1
        assert stored.data == b"racer %d" % won.index(True)


async def writers_of_one_subject_lose_nothing(log: EventLog) -> None:
    """Optimistic increments: every acknowledged one is there, in the order of sequences."""

    async def writer(number: int) -> None:
        done = 0
        while done < 10:
            stored = await log.read(STREAM, subject("count"))
            last = stored[-1].seq if stored else 0
            try:
                await log.append(STREAM, subject("count"), b"%d.%d" % (number, done), expected_seq=last)
            except (WrongExpectation, Contended):
                continue
            done += 1

    async with asyncio.timeout(WAIT_S_MAX):
        await asyncio.gather(*(writer(number) for number in range(5)))
    stored = await log.read(STREAM, subject("count"))
    assert sorted(m.data for m in stored) == sorted(b"%d.%d" % (n, i) for n in range(5) for i in range(10))
    assert [m.seq for m in stored] == sorted(m.seq for m in stored)


async def many_writers_side_by_side_all_land(log: EventLog) -> None:
    seqs = await asyncio.gather(*(log.append(STREAM, subject(n), b"%d" % n, expected_seq=0) for n in range(500)))
    assert sorted(seqs) == list(range(1, 501))
    found = await take(log, 500)
    assert {m.seq: m.data for m in found} == {seq: b"%d" % n for n, seq in enumerate(seqs)}


async def reads_start_after_a_sequence(log: EventLog) -> None:
    seqs = await fill(log, 1, 5)
    await fill(log, 2, 2)
    assert [m.seq for m in await log.read(STREAM, subject(1), after_seq=seqs[1])] == seqs[2:]
    assert list(await log.read(STREAM, subject(1), after_seq=seqs[-1])) == []


async def the_newest_message_of_a_subject_is_found(log: EventLog) -> None:
    assert await log.newest(STREAM, subject(1)) is None
    (*_, last) = await fill(log, 1, 3)
    await fill(log, 2, 2)
    newest = await log.newest(STREAM, subject(1))
    assert newest is not None
    stored = (await log.read(STREAM, subject(1)))[-1]
    assert (newest.seq, newest.subject, newest.data) == (last, stored.subject, stored.data)


async def a_read_goes_past_one_batch(log: EventLog) -> None:
    count = 2 * READ_BATCH_MAX + 500
    seqs = await fill(log, "long", count)
    stored = await log.read(STREAM, subject("long"))
    assert [m.seq for m in stored] == seqs
    assert stored[-1].data.startswith(b"long-%d" % (count - 1))


async def large_commits_survive(log: EventLog) -> None:
    bodies = [bytes([65 + n]) * 100_000 for n in range(30)]
    last = 0
    for body in bodies:
        last = await log.append(STREAM, subject("large"), body, expected_seq=last)
    assert [m.data for m in await log.read(STREAM, subject("large"))] == bodies
    assert [m.data for m in await take(log, 30)] == bodies
    largest = b"x" * COMMIT_BYTES_MAX
    await log.append(STREAM, subject("large"), largest, expected_seq=last)
    assert (await log.read(STREAM, subject("large"), after_seq=last))[0].data == largest
    with pytest.raises(ValueError, match="limit"):
        await log.append(STREAM, subject("large"), b"x" * (COMMIT_BYTES_MAX + 1), expected_seq=last + 1)


async def only_exact_subjects_are_written_and_read(log: EventLog) -> None:
    for bad in ("evt.contract.*", "evt.contract.>", "evt.contract.a b", "evt.contract.a\r\nPUB x", "evt..a", ""):
        with pytest.raises(ValueError, match="exact subject"):
            await log.append(STREAM, bad, b"", expected_seq=0)
        with pytest.raises(ValueError, match="exact subject"):
            await log.read(STREAM, bad)
    assert await log.last_seq(STREAM) == 0


async def a_repeated_publish_is_stored_once(log: EventLog) -> None:
    headers = {"ce-id": "com_1.0", "ce-source": "instance/São Paulo"}
    first = await log.publish(PUBLIC, "pub.acct_1.thing.made", b"{}", message_id="com_1.0", headers=headers)
    again = await log.publish(PUBLIC, "pub.acct_1.thing.made", b"{}", message_id="com_1.0", headers=headers)
    other = await log.publish(PUBLIC, "pub.acct_1.thing.made", b"{}", message_id="com_1.1", headers=headers)
    assert again == first
    assert await log.last_seq(PUBLIC) == other == first + 1
    stored = (await take(log, 2, stream=PUBLIC))[0]
    assert parse_headers(stored.headers).items() >= headers.items()


async def headers_cannot_break_the_framing(log: EventLog) -> None:
    for headers in ({"a": "b\r\nNats-Rollup: all"}, {"a\r\n": "b"}, {"": "b"}, {"a:": "b"}):
        with pytest.raises(ValueError, match="header"):
            await log.publish(PUBLIC, "pub.acct_1.thing.made", b"", message_id="m", headers=headers)


async def a_follow_delivers_the_past_and_the_present_in_order(log: EventLog) -> None:
    seqs = await fill(log, 1, 30)
    following = asyncio.create_task(take(log, 60))
    for name in range(2, 32):
        seqs += await fill(log, name, 1)
    assert [m.seq for m in await following] == seqs


async def a_follow_starts_after_a_sequence(log: EventLog) -> None:
    seqs = await fill(log, 1, 20)
    assert [m.seq for m in await take(log, 5, after_seq=seqs[14])] == seqs[15:]


async def a_follow_delivers_a_lone_message_at_once(log: EventLog) -> None:
    """Not when a batch is full and not when a pull runs out."""
    loop = asyncio.get_running_loop()
    following = asyncio.create_task(take(log, 1))
    await asyncio.sleep(0)
    started_s = loop.time()
    await fill(log, 1, 1)
    await following
    assert loop.time() - started_s < 1.0


async def a_follow_hears_only_its_filters(log: EventLog) -> None:
    for number in range(40):
        account = f"acct_{number % 4}"
        for fact in ("made", "broken"):
            await log.publish(PUBLIC, f"pub.{account}.thing.{fact}", b"", message_id=f"{number}.{fact}", headers={})
    made = await take(log, 40, stream=PUBLIC, subjects=("pub.*.thing.made",))
    mine = await take(log, 20, stream=PUBLIC, subjects=("pub.acct_1.>",))
    two = await take(log, 30, stream=PUBLIC, subjects=("pub.acct_1.>", "pub.acct_2.thing.made"))
    assert {m.subject.rpartition(".")[2] for m in made} == {"made"}
    assert {m.subject for m in mine} == {"pub.acct_1.thing.made", "pub.acct_1.thing.broken"}
    assert {m.subject for m in two} == {
        "pub.acct_1.thing.made",
        "pub.acct_1.thing.broken",
        "pub.acct_2.thing.made",
    }
    assert [m.seq for m in two] == sorted(m.seq for m in two)


async def a_slow_follower_misses_nothing(log: EventLog) -> None:
    """More messages than the pulls in flight hold, taken one batch at a time."""
    total = 6000
    await asyncio.gather(*(log.append(STREAM, subject(n), b"%d" % n, expected_seq=0) for n in range(total)))
    seqs: list[int] = []
    async with asyncio.timeout(WAIT_S_MAX):
        async for batch in log.follow(STREAM, after_seq=0):
            seqs += [m.seq for m in batch]
            for _ in range(20):
                await asyncio.sleep(0)
            if len(seqs) >= total:
                break
    assert seqs == list(range(1, total + 1))


async def a_page_holds_what_fits_the_filter_and_says_whether_there_is_more(log: EventLog) -> None:
    for index in range(6):
        for account in ("a", "b"):
            await log.publish(
                PUBLIC, f"pub.{account}.x.made", b"%d" % index, message_id=f"{account}{index}", headers={}
            )
    first = await log.page(PUBLIC, "pub.a.>", after_seq=0, limit=4)
    assert [(m.subject, m.data) for m in first.messages] == [("pub.a.x.made", b"%d" % n) for n in range(4)]
    assert first.has_more
    rest = await log.page(PUBLIC, "pub.a.>", after_seq=first.messages[-1].seq, limit=4)
    assert ([m.data for m in rest.messages], rest.has_more) == ([b"4", b"5"], False)
    assert await log.page(PUBLIC, "pub.a.>", after_seq=rest.messages[-1].seq, limit=4) == ([], False)
    assert await log.page(PUBLIC, "pub.nobody.>", after_seq=0, limit=4) == ([], False)
    assert len((await log.page(PUBLIC, "pub.*.x.made", after_seq=0, limit=100)).messages) == 12


async def a_page_never_leaves_out_what_was_stored_since(log: EventLog) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await log.publish(PUBLIC, "pub.a.x.made", b"1", message_id="1", headers={"ce-id": "e1"})
    (found,), _ = await log.page(PUBLIC, "pub.a.>", after_seq=0, limit=10, since=before)
    assert (found.data, parse_headers(found.headers)["ce-id"]) == (b"1", "e1")


EVENTLOG_CONTRACT: Sequence[Check] = (
    an_append_is_read_back_with_its_sequence,
    an_empty_stream_has_nothing,
    a_stale_expectation_is_refused_and_stores_nothing,
    expectations_are_per_subject,
    of_many_equal_wishes_one_wins,
    writers_of_one_subject_lose_nothing,
    many_writers_side_by_side_all_land,
    reads_start_after_a_sequence,
    the_newest_message_of_a_subject_is_found,
    a_read_goes_past_one_batch,
    large_commits_survive,
    only_exact_subjects_are_written_and_read,
    a_repeated_publish_is_stored_once,
    headers_cannot_break_the_framing,
    a_follow_delivers_the_past_and_the_present_in_order,
    a_follow_starts_after_a_sequence,
    a_follow_delivers_a_lone_message_at_once,
    a_follow_hears_only_its_filters,
    a_slow_follower_misses_nothing,
    a_page_holds_what_fits_the_filter_and_says_whether_there_is_more,
    a_page_never_leaves_out_what_was_stored_since,
)
