"""Webhook dispatch as a whole: facts in, POSTs out, outcomes written down."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libs.eventlog import Page
from libs.eventlog.memory import MemoryLog
from libs.sealed_urls import hidden
from proto.failover.events import FailoverFailed
from proto.webhook_dispatch.commands import (
    ForgetDeliveries,
    PauseEndpoint,
    RequestRecovery,
    RequestResend,
    ResumeEndpoint,
    SetDefaultSecret,
)
from proto.webhook_dispatch.queries import (
    GetEndpoint,
    ListAttempts,
    ListDeliveries,
    ListEndpoints,
    ProbeEndpoint,
)
from proto.webhook_dispatch.words import mailbox_of
from tests.integration.webhook_world import (
    ACCOUNT,
    SEALER,
    Got,
    Speaker,
    WebhookWorld,
    eventually,
    facts_of,
    receiver,
    webhook_world,
)

QUIET = FailoverFailed(
    failover_id="fo_1", instance_id="inst_1", account_id=ACCOUNT, reason="host_failure", original_machine_id="mach_1",
    error="disabled", total_ms=0, attempts=(), failed_at=datetime(2026, 11, 22, tzinfo=UTC), is_quiet=True,
)  # fmt: skip
SECRET = "a secret of mine"
SECRET_TOKEN = "a-token-in-a-url"


async def delivered(world: WebhookWorld, endpoint_id: str, number: int) -> bool:
    found = await world.ask(ListDeliveries(endpoint_id=endpoint_id, account_id=ACCOUNT, status="delivered"))
    return found.total == number


async def test_every_fact_arrives_in_order_signed_and_is_written_down(database_url: str) -> None:
    async with receiver() as target, webhook_world(database_url) as world:
        endpoint_id = await world.endpoint(target.url + "/hook", secret=SECRET)
        await world.say(QUIET)  # first in its lane: had it been told, it would be before the others
        said = await world.say(*facts_of("inst_1"))
        await eventually(lambda: len(target.got) == 5)
        assert [got.json["id"] for got in target.got] == said
        assert [got.json["event"].partition(".")[2] for got in target.got] == [
            "created", "running", "ready", "stopped", "deleted",
        ]  # fmt: skip
        for got in target.got:
            expected = "sha256=" + hmac.new(SECRET.encode(), got.body, hashlib.sha256).hexdigest()
            assert got.headers["X-Signature-SHA256"] == got.headers["X-Webhook-Signature"] == expected
            assert got.headers["X-Dumont-Event"] == got.json["event"]
            assert b"hush" not in got.body
            content = f"{got.id}.{got.headers['webhook-timestamp']}.".encode() + got.body
            v1, v1a = (proof.partition(",")[2] for proof in got.headers["webhook-signature"].split())
            assert base64.b64decode(v1) == hmac.digest(SECRET.encode(), content, "sha256")
            public_key: Ed25519PublicKey = world.world.platform_key.public_key()
            public_key.verify(base64.b64decode(v1a), content)
        await eventually(lambda: delivered(world, endpoint_id, 5))
        attempts = await world.ask(ListAttempts(endpoint_id=endpoint_id, account_id=ACCOUNT))
        assert attempts.total == 5
        newest = attempts.items[0]
        assert (newest.number, newest.status_code, newest.response) == (1, 200, "noted")
        assert newest.body.encode() == target.got[-1].body


async def test_a_failed_delivery_holds_back_its_instance_and_nobody_else(database_url: str) -> None:
    failed: list[str] = []

    def answer(got: Got) -> int:
        if got.json["instanceId"] == "inst_1" and len(failed) < 2:
            failed.append(got.id)
            return 500
        return 200

    async with receiver(answer) as target, webhook_world(database_url) as world:
        endpoint_id = await world.endpoint(target.url)
        await world.say(*facts_of("inst_1")[:2], *facts_of("inst_2")[:3])
        await eventually(lambda: sum(got.json["instanceId"] == "inst_2" for got in target.got) == 3, within_s=5)
        assert [got.json["event"] for got in target.got if got.json["instanceId"] == "inst_1"] == ["instance.created"]
        await eventually(lambda: delivered(world, endpoint_id, 5))
        first = [got for got in target.got if got.json["instanceId"] == "inst_1"]
        assert [got.json["event"] for got in first] == ["instance.created"] * 3 + ["instance.running"]
        assert len({got.id for got in first[:3]}) == 1
        assert len({got.body for got in first[:3]}) == 1
        attempts = await world.ask(ListAttempts(endpoint_id=endpoint_id, account_id=ACCOUNT, delivery_id=first[0].id))
        assert [(each.number, each.outcome, each.status_code) for each in attempts.items] == [
            (3, "delivered", 200), (2, "failed", 500), (1, "failed", 500),
        ]  # fmt: skip


async def test_a_url_given_with_an_instance_hears_of_it_alone_with_the_accounts_secret(database_url: str) -> None:
    async with receiver() as target, webhook_world(database_url) as world:
        sealed = SEALER.seal(SECRET, owner=ACCOUNT)
        await world.ask(SetDefaultSecret(now=world.clock.now(), account_id=ACCOUNT, sealed_secret=sealed))
        url = hidden(f"{target.url}/a?token={SECRET_TOKEN}", SEALER, owner=ACCOUNT)
        assert SECRET_TOKEN not in url
        await world.say(*facts_of("inst_1", webhook_url=url), *facts_of("inst_2"))
        await eventually(lambda: len(target.got) == 5)
        assert {got.path for got in target.got} == {f"/a?token={SECRET_TOKEN}"}
        assert {got.json["instanceId"] for got in target.got} == {"inst_1"}
        ready = next(got.json for got in target.got if got.json["status"] == "ready")
        assert ready["data"]["connectionDetails"]["ssh"] == "ssh root@127.0.0.1 -p 40022"
        assert ready["instance"]["connectionDetails"]["jupyter"] == "http://127.0.0.1:48888"
        expected = "sha256=" + hmac.new(SECRET.encode(), target.got[0].body, hashlib.sha256).hexdigest()
        assert target.got[0].headers["X-Signature-SHA256"] == expected

        async def retired() -> bool:
            return (await world.ask(ListEndpoints(account_id=ACCOUNT, kind="instance"))).total == 0

        await eventually(retired)  # the instance is no more, so its endpoint is not kept


async def test_a_pause_keeps_facts_and_a_restart_loses_none(database_url: str) -> None:
    log = MemoryLog()
    async with receiver() as target:
        async with webhook_world(database_url, log=log) as world:
            endpoint_id = await world.endpoint(target.url)
            await world.ask(PauseEndpoint(now=world.clock.now(), endpoint_id=endpoint_id, account_id=ACCOUNT))
            await world.say(*facts_of("inst_1"))

            async def kept() -> bool:
                about = {"endpoint_id": endpoint_id, "account_id": ACCOUNT}
                return (await world.ask(ListDeliveries(**about, status="waiting"))).total == 5

            await eventually(kept)
            assert not target.got
        async with webhook_world(database_url, log=log) as world:
            await world.ask(ResumeEndpoint(now=world.clock.now(), endpoint_id=endpoint_id, account_id=ACCOUNT))
            await eventually(lambda: delivered(world, endpoint_id, 5))
            assert [got.json["status"] for got in target.got] == ["creating", "running", "ready", "stopped", "deleted"]


async def test_gone_disables_and_recover_fetches_what_was_missed(database_url: str) -> None:
    answers = {"status": 410}
    async with receiver(lambda _: answers["status"]) as target, webhook_world(database_url) as world:
        began = world.clock.now()
        endpoint_id = await world.endpoint(target.url, events=("instance.*",))
        about = {"endpoint_id": endpoint_id, "account_id": ACCOUNT}

        async def status(wanted: str) -> bool:
            return (await world.ask(GetEndpoint(**about))).status == wanted

        await world.say(facts_of("inst_1")[0])
        await eventually(lambda: status("disabled"))
        await world.say(facts_of("inst_2")[0])
        answers["status"] = 200
        await world.ask(ResumeEndpoint(now=world.clock.now(), **about))
        await eventually(lambda: status("enabled"))
        since = began - timedelta(seconds=1)
        await eventually(lambda: world.world.dispatcher is not None and world.world.dispatcher.low_seq >= 2)
        await world.ask(RequestRecovery(now=world.clock.now(), **about, since=since, request_id="r1"))
        await eventually(lambda: delivered(world, endpoint_id, 2))
        assert {got.json["instanceId"] for got in target.got} == {"inst_1", "inst_2"}


async def test_a_resend_sends_the_same_bytes_once_more(database_url: str) -> None:
    async with receiver() as target, webhook_world(database_url) as world:
        endpoint_id = await world.endpoint(target.url)
        about = {"endpoint_id": endpoint_id, "account_id": ACCOUNT}
        await world.say(facts_of("inst_1")[0])
        await eventually(lambda: delivered(world, endpoint_id, 1))
        wish = RequestResend(now=world.clock.now(), **about, delivery_id=target.got[0].id, request_id="r1")
        await world.ask(wish)
        await world.ask(wish)
        await eventually(lambda: len(target.got) == 2)
        assert target.got[0].body == target.got[1].body
        assert target.got[0].id == target.got[1].id

        async def both() -> bool:
            return (await world.ask(ListAttempts(**about))).total == 2

        await eventually(both)


async def test_retry_after_is_honoured_and_redirects_are_failures(database_url: str) -> None:
    def answer(got: Got) -> web.Response:
        if got.path == "/slow":
            return web.Response(status=503, headers={"Retry-After": "3600"})
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with receiver(answer) as target, webhook_world(database_url) as world:
        slow = await world.endpoint(target.url + "/slow")
        moved = await world.endpoint(target.url + "/moved")
        await world.say(facts_of("inst_1")[0])

        async def retrying(endpoint_id: str) -> bool:
            return (
                await world.ask(ListDeliveries(endpoint_id=endpoint_id, account_id=ACCOUNT, status="retrying"))
            ).total == 1

        await eventually(lambda: retrying(slow))
        await eventually(lambda: retrying(moved))
        found = await world.ask(ListDeliveries(endpoint_id=slow, account_id=ACCOUNT))
        assert found.items[0].next_at - world.clock.now() > timedelta(minutes=59)
        assert not target.at("/elsewhere")


async def test_a_test_event_tells_what_the_receiver_said(database_url: str) -> None:
    async with receiver(lambda _: 418) as target, webhook_world(database_url) as world:
        endpoint_id = await world.endpoint(target.url, secret=SECRET)
        await world.ask(GetEndpoint(endpoint_id=endpoint_id, account_id=ACCOUNT))  # the rows show it from here on
        result = await world.ask(ProbeEndpoint(endpoint_id=endpoint_id, account_id=ACCOUNT))
        assert (result.outcome, result.status_code, result.response) == ("failed", 418, "noted")
        assert result.body.encode() == target.got[0].body
        assert "connectionDetails" in target.got[0].json["data"]


async def test_a_receiver_that_hangs_does_not_slow_the_others(database_url: str) -> None:
    release = asyncio.Event()

    async def answer(got: Got) -> int:
        if got.path == "/hangs":
            await release.wait()
        return 200

    async with receiver(answer) as target, webhook_world(database_url) as world:
        await world.endpoint(target.url + "/hangs", account_id="acct_noisy")
        await world.endpoint(target.url + "/well")
        noisy = [event for number in range(300) for event in facts_of(f"inst_n{number}", "acct_noisy")[:1]]
        await world.say(*noisy, facts_of("inst_1")[0])
        await eventually(lambda: len(target.at("/well")) == 1, within_s=5)
        assert len(target.at("/hangs")) <= 64
        release.set()


async def test_what_is_settled_long_ago_is_no_longer_listed(database_url: str) -> None:
    async with receiver() as target, webhook_world(database_url) as world:
        endpoint_id = await world.endpoint(target.url)
        await world.say(*facts_of("inst_1"))
        listing = ListDeliveries(endpoint_id=endpoint_id, account_id=ACCOUNT, status="delivered")

        async def listed(total: int) -> bool:
            return (await world.ask(listing)).total == total

        await eventually(lambda: listed(5))
        (due,) = await world.pool.fetch("select * from deadlines")
        assert due["due_at"] - world.clock.now() > timedelta(days=29)
        mailbox_id = mailbox_of(endpoint_id, 1)
        await world.ask(
            ForgetDeliveries(now=world.clock.now(), mailbox_id=mailbox_id, endpoint_id=endpoint_id, account_id=ACCOUNT)
        )
        await eventually(lambda: listed(0))
        assert not await world.pool.fetch("select * from deadlines")
        assert (await world.ask(ListAttempts(endpoint_id=endpoint_id, account_id=ACCOUNT))).total == 0


class OldLog(MemoryLog):
    """Asked by age, what was stored up to `old_seq` is too old."""

    old_seq = 0

    async def page(
        self, stream: str, subjects: str, *, after_seq: int, limit: int, since: datetime | None = None
    ) -> Page:
        return await super().page(stream, subjects, after_seq=self.old_seq if since else after_seq, limit=limit)


async def test_the_first_start_on_a_platform_with_a_history_notifies_nobody_of_it(database_url: str) -> None:
    log = OldLog()
    async with receiver() as target:
        for event in facts_of("inst_old", webhook_url=target.url + "/old")[:3]:
            await Speaker(log).say(event)
        log.old_seq = await log.last_seq("PUB")
        async with webhook_world(database_url, log=log) as world:
            await world.say(*facts_of("inst_new", webhook_url=target.url + "/new")[:1])
            await eventually(lambda: len(target.at("/new")) == 1)
            assert not target.at("/old")
            await world.pool.execute("delete from webhook_dispatch_live.cursors where name = 'dispatch'")
        async with webhook_world(database_url, log=log) as world:  # the place is lost, but it is not the first start
            await eventually(lambda: len(target.at("/old")) == 3)
            assert len(target.at("/new")) == 1
