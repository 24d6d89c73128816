"""The command line: exit statuses, JSON, and what teams may and may not do."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from services.cli.exits import ALREADY_RUNNING, FAILED, NOT_RUNNING, USAGE, Exit
from services.cli.teams import event_filters
from tests.integration.platform_here import DEADLINE_S, ROOT, Up, dumont, surroundings, wait_for

LATENESS_S = 0.3  # how long we listen for what must not come


@pytest.fixture
def platform(data_dir: Path) -> Iterator[dict[str, Any]]:
    up = Up(data_dir)
    yield up.ready()
    up.stop()


@pytest.mark.parametrize("verb", [["status"], ["down"], ["instances", "list"], ["teams", "list"], ["events", "tail"]])
def test_a_verb_without_a_platform_says_how_to_start_one(data_dir: Path, verb: list[str]) -> None:
    done = dumont(data_dir, *verb)
    assert done.returncode == NOT_RUNNING
    assert done.stdout == ""
    assert f"nothing runs in {data_dir}" in done.stderr


def test_status_and_down(data_dir: Path) -> None:
    up = Up(data_dir)
    said = up.ready()
    status = json.loads(dumont(data_dir, "status", "--json").stdout)
    assert status["ready"] is True
    assert {member["name"]: member["pid"] for member in status["members"]} == said["pids"]
    shown = dumont(data_dir, "status").stdout
    assert shown.splitlines()[0].split() == ["Ready", "yes"]
    assert "alpha" in shown
    down = dumont(data_dir, "down", "--json")
    assert down.returncode == 0
    assert json.loads(down.stdout)["stopped_pid"] == up.process.pid
    assert up.ended()[0] == 0
    assert dumont(data_dir, "down").returncode == NOT_RUNNING


def test_up_becomes_the_supervisor_and_a_second_one_is_refused(data_dir: Path) -> None:
    first = Up(data_dir)
    first.ready()
    second = dumont(data_dir, "up", "--port", "0", "--json")
    assert second.returncode == ALREADY_RUNNING
    assert second.stdout == ""
    first.stop()


WRONG = [
    "up --port x",
    "up --durability never",
    "nonsense",
    "accounts adjust acct_a --usd 1e3 --reason gift",
    "events tail --after start",
    "events tail --key dumont_sk_x --subject pub.acct_a.>",
]


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage(data_dir: Path, line: str) -> None:
    assert dumont(data_dir, *line.split()).returncode == USAGE


def test_help_names_every_verb(data_dir: Path) -> None:
    shown = dumont(data_dir, "--help").stdout
    for verb in ("up", "down", "status", "test", "events", "rebuild", "instances", "keys", "sandbox", "teams"):
        assert f" {verb} " in shown


def test_rebuild_of_an_unknown_service_is_a_usage_error(platform: dict[str, Any], data_dir: Path) -> None:
    done = dumont(data_dir, "rebuild", "nothing")
    assert done.returncode == USAGE
    assert "billing, failover, instance" in done.stderr


def test_an_api_that_does_not_answer_is_said_so(platform: dict[str, Any], data_dir: Path) -> None:
    done = dumont(data_dir, "instances", "list")
    assert done.returncode == NOT_RUNNING
    assert "does not answer" in done.stderr


async def test_events_tail_prints_public_events(platform: dict[str, Any], data_dir: Path) -> None:
    client = await connected(platform["nats_url"])
    await client.jetstream().add_stream(name="PUB", subjects=["pub.>"])
    await say(client, "instance.created", "first")
    tail = [sys.executable, "-m", "services.cli", "events", "tail", "--all", "--count", "2", "--json"]
    process = subprocess.Popen(
        tail, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**surroundings(), "DUMONT_DATA_DIR": str(data_dir)}
    )
    assert process.stdout is not None
    with process.stdout:
        assert json.loads(process.stdout.readline())["id"] == "first"
        await say(client, "instance.started", "second")
        second = json.loads(process.stdout.readline())
    assert process.wait(DEADLINE_S) == 0
    assert second == {
        "subject": "pub.acct_a.instance.started",
        "id": "second",
        "type": "instance.started",
        "time": "2026-01-01T00:00:00Z",
        "data": {"n": "second"},
    }
    await client.close()


async def test_a_team_reads_its_events_resumes_and_can_do_nothing_else(
    platform: dict[str, Any], data_dir: Path
) -> None:
    client = await connected(platform["nats_url"])
    log = client.jetstream()
    await log.add_stream(name="PUB", subjects=["pub.>"])
    await log.add_stream(name="EVT_INSTANCE", subjects=["evt.instance.>"])
    await say(client, "instance.created", "before")
    made = dumont(data_dir, "teams", "add", "ops", "--events", "instance.*,failover.completed", "--json")
    assert made.returncode == 0, made.stderr
    team = json.loads(made.stdout)
    assert team["subjects"] == ["pub.*.instance.*", "pub.*.failover.completed"]

    await say(client, "instance.created", "one")
    await say(client, "balance.low", "not for them")
    await say(client, "failover.completed", "two")
    assert await taken(team, 2) == ["one", "two"]
    await say(client, "instance.stopped", "while away")
    assert await taken(team, 1) == ["while away"]

    refused: list[str] = []
    guest = await connected(team["url"], inbox=team["inbox_prefix"], refused=refused)
    await say(client, "instance.created", "bait")
    consumer = f"PUB.{team['consumer']}"
    attempts = [
        ("pub.acct_a.instance.created", "", b"{}"),
        ("evt.instance.instance.inst_1", "", b"{}"),
        ("cmd.instance.delete_instance", "", b"{}"),
        ("$JS.API.STREAM.MSG.GET.EVT_INSTANCE", "_INBOX_ops.x", b'{"seq":1}'),
        ("$JS.API.CONSUMER.CREATE.PUB.own", "_INBOX_ops.x", b"{}"),
        (f"$JS.API.CONSUMER.DELETE.{consumer}", "_INBOX_ops.x", b""),
        ("$JS.API.DIRECT.GET.PUB", "_INBOX_ops.x", b'{"seq":1}'),
    ]
    for subject, reply, body in attempts:
        await guest.publish(subject, body, reply=reply)
    for subject in ("pub.>", "evt.>", "cmd.>", "_INBOX.>", ">", "$JS.>"):
        await guest.subscribe(subject)
    await guest.flush()
    async with asyncio.timeout(DEADLINE_S):
        while len(refused) < len(attempts) + 6:  # told one by one, after the answer to the flush at times
            await asyncio.sleep(0.01)
    assert len(refused) == len(attempts) + 6, refused
    # A pull may name any reply subject: it must not reach the platform's account, where it would be stored.
    await guest.publish(f"$JS.API.CONSUMER.MSG.NEXT.{consumer}", b'{"batch":1}', reply="evt.instance.instance.inst_1")
    await guest.flush()
    deadline = time.monotonic() + LATENESS_S
    while time.monotonic() < deadline:
        assert (await log.stream_info("EVT_INSTANCE")).state.messages == 0
    assert (await log.stream_info("PUB")).state.messages == 6
    await guest.close()

    listed = json.loads(dumont(data_dir, "teams", "list", "--json").stdout)
    assert [row["team"] for row in listed] == ["ops"]
    assert dumont(data_dir, "teams", "add", "ops", "--events", "*").returncode == FAILED
    assert dumont(data_dir, "teams", "remove", "ops").returncode == 0
    with pytest.raises(NotFoundError):
        await log.consumer_info("PUB", team["consumer"])
    assert json.loads(dumont(data_dir, "teams", "list", "--json").stdout) == []
    assert dumont(data_dir, "teams", "remove", "ops").returncode == FAILED
    await client.close()


async def test_a_team_of_one_account_hears_only_that_account_and_survives_a_restart(
    platform: dict[str, Any], data_dir: Path
) -> None:
    client = await connected(platform["nats_url"])
    await client.jetstream().add_stream(name="PUB", subjects=["pub.>"])
    await say(client, "instance.created", "theirs", account="acct_b")
    await say(client, "instance.created", "ours")
    arguments = ["--events", "*", "--account", "acct_a", "--since", "start", "--json"]
    team = json.loads(dumont(data_dir, "teams", "add", "finance", *arguments).stdout)
    await client.close()
    psutil.Process(platform["pids"]["nats"]).kill()

    def is_back() -> bool:
        members = json.loads(dumont(data_dir, "status", "--json").stdout)["members"]
        return members[0]["deaths"] == 1 and members[0]["state"] == "running"

    wait_for(is_back, "nats restarted")
    assert await taken(team, 1) == ["ours"]


@pytest.mark.parametrize(
    ("events", "subjects"),
    [
        ("*", ["pub.*.>"]),
        ("instance.*", ["pub.*.instance.*"]),
        ("instance.*, instance.created", ["pub.*.instance.*"]),
        ("instance.created,instance.created", ["pub.*.instance.created"]),
        ("instance.created,*", ["pub.*.>"]),
    ],
)
def test_event_filters_never_overlap(events: str, subjects: list[str]) -> None:
    assert event_filters("ops", events, "") == subjects


@pytest.mark.parametrize(
    ("name", "events", "account"),
    [
        ("Ops", "*", ""),
        ("o.p", "*", ""),
        ("", "*", ""),
        ("ops", "", ""),
        ("ops", "evt.>", ""),
        ("ops", "*", "a.>"),
        ("ops", "instance.borrowed", ""),
        ("ops", "nothing.*", ""),
    ],
)
def test_names_that_would_widen_a_subject_or_hear_nothing_are_refused(name: str, events: str, account: str) -> None:
    with pytest.raises(Exit) as refused:
        event_filters(name, events, account)
    assert refused.value.status == USAGE


async def connected(url: str, inbox: str = "_INBOX", refused: list[str] | None = None) -> Client:
    async def note(error: Exception) -> None:
        if refused is not None:
            refused.append(str(error))

    return await nats.connect(url, inbox_prefix=inbox.encode(), allow_reconnect=False, error_cb=note)


async def say(client: Client, event: str, event_id: str, account: str = "acct_a") -> None:
    headers = {"ce-id": event_id, "ce-type": event, "ce-time": "2026-01-01T00:00:00Z"}
    await client.jetstream().publish(f"pub.{account}.{event}", json.dumps({"n": event_id}).encode(), headers=headers)


async def taken(team: dict[str, Any], count: int) -> list[str]:
    """Connect as the team, take and acknowledge `count` events, and go away."""
    client = await connected(team["url"], inbox=team["inbox_prefix"])
    subscription = await client.jetstream().pull_subscribe_bind(team["consumer"], team["stream"])
    ids: list[str] = []
    while len(ids) < count:
        for message in await subscription.fetch(count - len(ids), timeout=DEADLINE_S):
            assert message.headers is not None
            ids.append(message.headers["ce-id"])
            await message.ack()
    await client.flush()
    await client.close()
    return ids
