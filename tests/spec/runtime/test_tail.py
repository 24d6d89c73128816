"""Whoever follows the own stream has every commit once and in order, shared or alone, however far behind he is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from libs.eventlog import Stored
from libs.eventlog.memory import MemoryLog
from libs.runtime import tail
from libs.runtime.aggregates import Aggregates
from libs.runtime.courtesy import Courtesy
from libs.runtime.listening import OwnStream
from tests.spec.runtime.controls import CLOCK, IDS, count, tally_service

WAIT_MAX_S = 30.0


class CountedLog(MemoryLog):
    """Knows who follows what."""

    def __init__(self) -> None:
        super().__init__()
        self.followed_after: list[int] = []

    def follow(
        self, stream: str, *, after_seq: int = 0, subjects: Sequence[str] = ()
    ) -> AsyncIterator[Sequence[Stored]]:
        self.followed_after.append(after_seq)
        return super().follow(stream, after_seq=after_seq, subjects=subjects)


class Follower:
    """Writes down what he hears; waits after each batch until `pace` is set."""

    def __init__(self, own: OwnStream, after_seq: int) -> None:
        self.heard: list[int] = []
        self.pace = asyncio.Event()
        self.pace.set()
        self.task = asyncio.create_task(self._follow(own, after_seq))

    async def _follow(self, own: OwnStream, after_seq: int) -> None:
        async with aclosing(own.follow(after_seq)) as batches:
            async for batch in batches:
                self.heard += [seq for seq, _ in batch]
                await self.pace.wait()

    async def has_heard(self, seq: int) -> None:
        async with asyncio.timeout(WAIT_MAX_S):
            while not self.heard or self.heard[-1] < seq:
                await asyncio.sleep(0)


class Story:
    """A stream, its reader and its followers."""

    def __init__(self) -> None:
        self.log = CountedLog()
        self.service = tally_service()
        self.own = OwnStream(self.service, self.log, Courtesy())
        self.aggregates = Aggregates(self.service, self.log, CLOCK, IDS)
        self.tasks: list[asyncio.Task[None]] = []
        self.said = 0

    async def say(self, commits: int) -> None:
        for _ in range(commits):
            self.said += 1
            await self.aggregates.execute(count(f"t{self.said}", "one"))

    def read(self) -> None:
        self.tasks.append(asyncio.create_task(self.own.read(self.said)))

    def follower(self, after_seq: int) -> Follower:
        follower = Follower(self.own, after_seq)
        self.tasks.append(follower.task)
        return follower


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    made = Story()
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_those_at_the_end_share_one_reader(story: Story) -> None:
    await story.say(3)
    story.read()
    followers = [story.follower(3) for _ in range(3)]
    await story.say(5)
    for follower in followers:
        await follower.has_heard(8)
        assert follower.heard == [4, 5, 6, 7, 8]
    assert story.log.followed_after == [3]


async def test_who_is_behind_reads_alone_until_he_has_come_near(story: Story) -> None:
    await story.say(4)
    story.read()
    behind = story.follower(1)
    await behind.has_heard(4)
    await story.say(3)
    await behind.has_heard(7)
    assert behind.heard == [2, 3, 4, 5, 6, 7]
    assert story.log.followed_after == [4, 1]


async def test_who_falls_behind_what_is_kept_misses_nothing(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "KEPT_COMMITS_MIN", 4)
    monkeypatch.setattr(tail, "KEPT_COMMITS_MAX", 8)
    monkeypatch.setattr(tail, "BATCH_MAX", 3)
    story.read()
    quick, slow = story.follower(0), story.follower(0)
    await story.say(1)
    await slow.has_heard(1)
    slow.pace.clear()
    await story.say(60)
    await quick.has_heard(61)
    slow.pace.set()
    await slow.has_heard(61)
    await story.say(2)
    await slow.has_heard(63)
    assert quick.heard == slow.heard == list(range(1, 64))
    assert len(story.log.followed_after) > 1  # the slow one was alone for a while


async def test_without_a_reader_each_reads_alone(story: Story) -> None:
    await story.say(2)
    followers = [story.follower(0), story.follower(1)]
    for follower in followers:
        await follower.has_heard(2)
    assert story.log.followed_after == [0, 1]


async def test_followers_outlive_their_reader(story: Story) -> None:
    story.read()
    follower = story.follower(0)
    await story.say(2)
    await follower.has_heard(2)
    story.tasks[0].cancel()
    await asyncio.wait((story.tasks[0],))
    await story.say(2)
    await follower.has_heard(4)
    assert follower.heard == [1, 2, 3, 4]


async def test_what_everybody_has_had_is_let_go(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "KEPT_COMMITS_MIN", 4)
    kept = tail.Tail()
    commits = [tail.Decoded(seq, "tally", []) for seq in range(1, 41)]

    async def batches() -> AsyncIterator[list[tail.Decoded]]:
        for commit in commits:
            yield [commit]
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def follow() -> list[int]:
        return [commit.seq async for batch in kept.follow(0) for commit in batch]

    reading = asyncio.create_task(kept.read(batches(), 0))
    await asyncio.sleep(0)
    following = asyncio.create_task(follow())
    await reading
    assert await following == list(range(1, 41))
    assert kept.kept <= 3 * tail.KEPT_COMMITS_MIN
