"""A team outside hears public events with the credentials that `./dumont teams add` gave it, and can do no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingThere

from tests.journey.platform import Platform, unique

TAKE_MAX_S = 20.0
REFUSAL_MAX_S = 5.0
HEARD = ("instance.created", "instance.started", "instance.stopped", "instance.deleted", "instance.interrupted")


class Team:
    """One team's credentials, and what it took so far."""

    def __init__(self, made: Any) -> None:
        self.url: str = made["url"]
        self.consumer: str = made["consumer"]
        self.inbox: str = made["inbox_prefix"]

    async def connected(self, refusals: asyncio.Queue[str] | None = None) -> Client:
        async def told(error: Exception) -> None:
            if refusals is not None:
                refusals.put_nowait(str(error).lower())

        return await nats.connect(self.url, inbox_prefix=self.inbox.encode(), allow_reconnect=False, error_cb=told)

    def take(self, count: int) -> list[Msg]:
        """The next `count` events, acknowledged; the connection is closed again: the team is away."""
        return asyncio.run(self._take(count))

    async def _take(self, count: int) -> list[Msg]:
        client = await self.connected()
        taken: list[Msg] = []
        try:
            async with asyncio.timeout(TAKE_MAX_S):
                pulled = await client.jetstream().pull_subscribe_bind(self.consumer, "PUB")
                while len(taken) < count:
                    try:
                        found = await pulled.fetch(count - len(taken), timeout=1)
                    except NothingThere:
                        continue
                    for message in found:
                        await message.ack_sync()
                        taken.append(message)
        finally:
            await client.close()
        return taken


@pytest.fixture
def team(up: Platform) -> Iterator[Team]:
    name = unique("team").replace("-", "_")
    yield Team(json.loads(up.verb("teams", "add", name, "--events", ",".join(HEARD), "--json")))
    up.verb("teams", "remove", name)


def live(up: Platform) -> str:
    """One instance through all that a team wants to hear: created, started, interrupted, started, stopped, deleted."""
    made = up.create_ready()
    path = f"/api/instances/{made['id']}"
    up.verb("sandbox", "interrupt", made["id"])
    up.wait_for_status(made["id"], "exited")
    assert up.request("POST", path + "/start").status == 202
    up.wait_for_status(made["id"], "ready")
    assert up.request("POST", path + "/stop").status == 200
    up.wait_for_status(made["id"], "stopped")
    assert up.request("DELETE", path).status == 200
    return made["id"]


LIFE = [
    "instance.created",
    "instance.started",
    "instance.interrupted",
    "instance.started",
    "instance.stopped",
    "instance.deleted",
]


def told_about(messages: Sequence[Msg], instance_id: str) -> list[str]:
    """Types of the events about one instance, in the order they came."""
    headers = [message.headers or {} for message in messages]
    return [header["ce-type"] for header in headers if header["ce-subject"] == instance_id]


def test_a_team_hears_the_life_of_an_instance_in_order(up: Platform, team: Team) -> None:
    instance_id = live(up)
    taken: list[Msg] = []
    while len(told_about(taken, instance_id)) < len(LIFE):
        taken += team.take(1)
    assert told_about(taken, instance_id) == LIFE


def test_every_event_carries_cloudevents_headers(up: Platform, team: Team) -> None:
    instance_id = up.create()
    message = next(found for found in iter(lambda: team.take(1)[0], None) if told_about([found], instance_id))
    headers = message.headers or {}
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == "instance.created"
    assert headers["ce-source"] == "/dumont/instance"
    assert headers["ce-subject"] == instance_id
    assert headers["ce-id"] and headers["ce-time"].endswith("Z")
    assert headers["content-type"] == "application/json"
    assert json.loads(message.data)["instance_id"] == instance_id
    assert message.subject == "pub.acct_default.instance.created"


def test_a_team_that_was_away_resumes_without_loss_or_repeat(up: Platform, team: Team) -> None:
    first = live(up)
    taken = team.take(3)
    second = live(up)
    while len(told_about(taken, first)) + len(told_about(taken, second)) < 2 * len(LIFE):
        taken += team.take(1)  # an instance of another test may still have something to say
    assert told_about(taken, first) == LIFE
    assert told_about(taken, second) == LIFE
    ids = [(message.headers or {})["ce-id"] for message in taken]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "subject",
    [
        "pub.acct_default.instance.created",
        "evt.instance.instance.inst_forged",
        "cmd.instance.delete_instance",
        "$JS.API.STREAM.MSG.GET.EVT_INSTANCE",
        "$JS.API.DIRECT.GET.EVT_INSTANCE",
        "$JS.API.STREAM.MSG.GET.PUB",
        "$JS.API.CONSUMER.CREATE.EVT_INSTANCE.mine",
        "$JS.API.CONSUMER.CREATE.PUB.mine.pub.acct_other.>",
        "$JS.API.STREAM.DELETE.PUB",
        "$JS.API.STREAM.PURGE.PUB",
    ],
)
async def test_a_team_is_refused_when_it_publishes_or_asks_for_more(up: Platform, team: Team, subject: str) -> None:
    del up
    refusals: asyncio.Queue[str] = asyncio.Queue()
    client = await team.connected(refusals)
    await client.publish(subject, b"{}")
    await refused(client, refusals, subject)


@pytest.mark.parametrize("subject", ["evt.>", "pub.>", "cmd.>", ">", "_INBOX.>"])
async def test_a_team_is_refused_when_it_listens_elsewhere(up: Platform, team: Team, subject: str) -> None:
    del up
    refusals: asyncio.Queue[str] = asyncio.Queue()
    client = await team.connected(refusals)
    await client.subscribe(subject)
    await refused(client, refusals, subject)


async def refused(client: Client, refusals: asyncio.Queue[str], subject: str) -> None:
    """The server says so; the client's library gives its words in small letters."""
    try:
        await client.flush()
        async with asyncio.timeout(REFUSAL_MAX_S):
            told = await refusals.get()
    finally:
        await client.close()
    assert "permissions violation" in told
    assert subject.lower() in told
