"""Events over HTTP: paging, waiting and streaming, resumed without a gap, by account and type."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from aiohttp import ClientPayloadError

from proto.gateway.commands import RevokeKey
from proto.instance.events import InstanceReady, InstanceRunning
from proto.webhook_dispatch.payload import payload
from services.gateway.feed import feed as feed_module
from services.gateway.feed import ring as ring_module
from services.gateway.feed import stream as stream_module
from tests.integration.gateway_world import KEY, OTHER_ACCOUNT, OTHER_KEY, READER_KEY, GatewayWorld, running_gateway
from tests.integration.webhook_world import Speaker, eventually

AT = "/api/v1/events"
STREAM = AT + "/stream"
WITHIN_S = 20.0


@pytest.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    async with running_gateway() as running:
        await eventually(lambda: running.gateway.feed._is_begun)
        yield running


def running(number: int, account_id: str = "acct_default") -> InstanceRunning:
    return InstanceRunning(instance_id=f"inst_{number}", account_id=account_id, name="n", gpu="G", machine_id="m")


def ready(number: int) -> InstanceReady:
    about = {"instance_id": f"inst_{number}", "account_id": "acct_default", "name": "n", "gpu": "G"}
    return InstanceReady(**about, machine_id="m", generation=1, ready_at=datetime.now(UTC), endpoints=())


async def say(world: GatewayWorld, *events: Any) -> list[str]:
    speaker = Speaker(world.log)
    return [await speaker.say(event) for event in events]


class Reader:
    """An EventSource: remembers the last id it has whole, whatever the connection does."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.last_id = ""
        self.events: list[dict[str, Any]] = []
        self.comments = 0
        self._rest = b""

    async def until(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.events) < count and await self._some():
                pass
        return self.events

    async def to_the_end(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            try:
                while await self._some():
                    pass
            except ClientPayloadError:
                return  # cut off in the middle

    async def _some(self) -> bool:
        data = await self.response.content.readany()
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            self._read(block.decode())
        return bool(data)

    def _read(self, block: str) -> None:
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name == "id":
                self.last_id = value
            elif name == "data":
                self.events.append(msgspec.json.decode(value))
            self.comments += line.startswith(":")


@asynccontextmanager
async def following(
    world: GatewayWorld, path: str = STREAM, *, key: str = KEY, last_id: str = ""
) -> AsyncIterator[Reader]:
    headers = {"Authorization": f"Bearer {key}"} | ({"Last-Event-ID": last_id} if last_id else {})
    async with world.http.get(world.url + path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        reader = Reader(response)
        while not reader.last_id:
            await reader._some()
        yield reader


async def list_(world: GatewayWorld, query: str = "", **more: Any) -> Any:
    answer = await world.call("GET", AT + query, **more)
    assert answer.status == 200, answer.raw
    return answer.json["data"]


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["id"] for event in events]


def forget_ring(world: GatewayWorld) -> None:
    """As if everything so far were too old to be in memory."""
    ring = world.gateway.feed.ring
    while ring._all:
        ring._forget_oldest()
    ring.floor = ring.head


async def test_events_are_the_webhooks_bytes_and_ids_of_the_own_account_only(world: GatewayWorld) -> None:
    (mine,) = await say(world, ready(1))
    await say(world, running(2, OTHER_ACCOUNT))
    await eventually(lambda: world.gateway.feed.ring.head == 2)
    answer = await world.call("GET", AT)
    (stored,), _ = await world.log.page("PUB", "pub.acct_default.>", after_seq=0, limit=10)
    told = ring_module.told(stored)
    assert told is not None
    assert told.body in answer.raw
    fields = msgspec.json.decode(stored.data)
    at = msgspec.json.decode(told.body)["timestamp"]
    assert told.body == payload("instance.ready", mine, datetime.fromisoformat(at), fields, correlation="corr_1")
    assert ids(answer.json["data"]["events"]) == [mine]
    assert len((await list_(world, key=OTHER_KEY))["events"]) == 1


@pytest.mark.parametrize("is_old", [False, True], ids=["from memory", "from the log"])
async def test_pages_follow_each_other_without_gap_or_repeat(world: GatewayWorld, is_old: bool) -> None:
    said = await say(world, *map(running, range(7)), *map(ready, range(5)))
    await eventually(lambda: world.gateway.feed.ring.head == len(said))
    if is_old:
        forget_ring(world)
    seen: list[str] = []
    after, has_more = "start", True
    while has_more:
        found = await list_(world, f"?limit=5&after={after}")
        assert len(found["events"]) <= 5
        seen += ids(found["events"])
        after, has_more = found["next_after"], found["has_more"]
    assert seen == said
    assert ids((await list_(world, f"?after={said[8]}"))["events"]) == said[9:]
    assert ids((await list_(world, "?types=instance.ready"))["events"]) == said[7:]
    assert (await list_(world, "?after=now"))["events"] == []


async def test_a_poll_waits_for_the_next_event_and_no_longer(world: GatewayWorld) -> None:
    await say(world, running(1))
    start = (await list_(world, "?after=now"))["next_after"]
    waiting = asyncio.create_task(list_(world, f"?after={start}&types=instance.ready&wait_s=30"))
    await eventually(lambda: sum(world.gateway.feed._followers.values()) == 1)
    said = await say(world, running(2), running(3, OTHER_ACCOUNT), ready(4))
    found = await asyncio.wait_for(waiting, WITHIN_S)
    assert ids(found["events"]) == said[2:]
    assert (await list_(world, f"?after={found['next_after']}&wait_s=1"))["events"] == []
    assert not world.gateway.feed._followers
    assert not world.gateway.feed._channels


async def test_a_stream_tells_what_happens_and_a_second_one_goes_on_where_it_ended(world: GatewayWorld) -> None:
    async with following(world) as reader:
        first = await say(world, running(1), running(2, OTHER_ACCOUNT), ready(3))
        assert ids(await reader.until(2)) == [first[0], first[2]]
    missed = await say(world, *map(running, range(10, 15)))
    async with following(world, last_id=reader.last_id) as again:
        now = await say(world, ready(20))
        assert ids(await again.until(6)) == missed + now
    forget_ring(world)
    async with following(world, last_id=first[0]) as old:
        assert ids(await old.until(7)) == [first[2], *missed, *now]
    async with following(world, STREAM + "?after=start&types=instance.ready") as filtered:
        assert ids(await filtered.until(2)) == [first[2], *now]


async def test_a_stream_that_never_told_an_event_resumes_at_its_beginning(world: GatewayWorld) -> None:
    await say(world, running(1))
    await eventually(lambda: world.gateway.feed.ring.head == 1)
    async with following(world) as reader:
        pass
    said = await say(world, running(2))
    async with following(world, last_id=reader.last_id) as again:
        assert ids(await again.until(1)) == said


async def test_a_thousand_and_more_old_events_are_caught_up_with_while_new_ones_come(world: GatewayWorld) -> None:
    old = await say(world, *map(running, range(2_500)))
    await eventually(lambda: world.gateway.feed.ring.head == len(old))
    forget_ring(world)
    async with following(world, STREAM + "?after=start") as reader:
        new = await say(world, *map(ready, range(700)))
        assert ids(await reader.until(3_200)) == old + new


async def test_a_slow_client_is_cut_off_and_loses_nothing(world: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "BUFFER_BYTES_MAX", 20_000)
    said: list[str] = []
    async with following(world) as reader:
        reader.response.connection.transport.pause_reading()
        feed = world.gateway.feed
        async with asyncio.timeout(WITHIN_S):
            while feed._followers:  # until the buffers of the kernel are full, and ours
                said += await say(world, *map(running, range(2_000)))
                await asyncio.sleep(0)
        reader.response.connection.transport.resume_reading()
        await reader.to_the_end()
    assert ids(reader.events) == said[: len(reader.events)]
    assert len(reader.events) < len(said)
    async with following(world, last_id=reader.last_id or "start") as again:
        assert ids(reader.events) + ids(await again.until(len(said) - len(reader.events))) == said


async def test_a_revoked_key_hears_no_more_at_once(world: GatewayWorld) -> None:
    async with following(world, key=OTHER_KEY) as reader:
        await eventually(lambda: world.gateway.feed._channels)
        await world.gateway.keys.execute(RevokeKey(now=datetime.now(UTC), key_id="key_o", account_id=OTHER_ACCOUNT))
        await reader.to_the_end()
        await say(world, running(1, OTHER_ACCOUNT))
        assert not reader.events


async def test_a_stop_ends_streams_and_answers_polls(world: GatewayWorld) -> None:
    async with following(world) as reader:
        waiting = asyncio.create_task(list_(world, "?after=now&wait_s=30"))
        await eventually(lambda: sum(world.gateway.feed._followers.values()) == 2)
        world.stop.set()
        await reader.to_the_end()
        assert (await asyncio.wait_for(waiting, WITHIN_S))["events"] == []


async def test_a_quiet_stream_has_a_heartbeat(world: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BEAT_INTERVAL_S", 0.05)
    await say(world, running(1))  # after which the beat is the short one
    async with following(world, STREAM + "?types=instance.ready") as reader:
        async with following(world) as other:
            await say(world, running(2))
            await other.until(1)
        async with asyncio.timeout(WITHIN_S):
            while reader.comments < 2:
                await reader._some()


async def test_only_so_many_may_follow(world: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "FOLLOWERS_OF_ACCOUNT_MAX", 1)
    async with following(world):
        await eventually(lambda: world.gateway.feed._followers)
        refused = await world.call("GET", STREAM)
        assert (refused.status, refused.code) == (429, "RATE_LIMIT_EXCEEDED")
        assert refused.headers["Retry-After"] == "5"
        async with following(world, key=OTHER_KEY):
            pass


@pytest.mark.parametrize(
    "query",
    ["after=evt_nowhere", "after=cmt_0190000000007000800000000000aaaa.0", "after=v1.AAAA", "types=instance.exploded",
     "wait_s=31", "limit=101", "since=1"],
)  # fmt: skip
async def test_what_is_no_place_or_type_is_refused_with_a_reason(world: GatewayWorld, query: str) -> None:
    refused = await world.call("GET", f"{AT}?{query}")
    assert (refused.status, refused.code) == (400, "VALIDATION_ERROR"), refused.raw


async def test_places_of_another_account_are_none(world: GatewayWorld) -> None:
    (said,) = await say(world, running(1))
    await eventually(lambda: world.gateway.feed.ring.head == 1)
    cursor = (await list_(world))["next_after"]
    for place in (said, cursor):
        assert (await world.call("GET", f"{AT}?after={place}", key=OTHER_KEY)).status == 400


async def test_the_scope_is_needed(world: GatewayWorld) -> None:
    assert (await world.call("GET", AT, key=READER_KEY)).code == "INSUFFICIENT_SCOPE"
    assert (await world.call("GET", STREAM, key=None)).status == 401
    head = await world.call("HEAD", STREAM)
    assert (head.status, head.raw) == (200, b"")
