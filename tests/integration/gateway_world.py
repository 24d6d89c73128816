"""A real gateway on a loopback port, over the in-memory log and bus, with a small owner of instances behind the bus.

The owner answers what `proto.instance` asks with plain dictionaries, so that the tests speak of the gateway only. It
can be told to be silent, absent or unwell.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
from msgspec.structs import asdict, replace

from libs.clock import Clock, SystemClock
from libs.config import Secret
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.peers import MemoryPeers
from libs.refusal import Refused
from libs.rpc_memory import MemoryBus, MemoryExchange
from libs.runtime.serving import RowsBehind
from libs.starting import Bug
from proto.base import Position, Reply, Request
from proto.gateway.commands import IssueKey, OpenAccount
from proto.gateway.words import Plan, fingerprint
from proto.health import MetricsText, ServiceHealth
from proto.instance import commands, copy_queries, hibernation_queries, host_commands, queries
from proto.instance.words import Endpoint, Offer
from services.gateway.config import GatewaySettings
from services.gateway.gateway import Gateway
from services.gateway.server import make, serve
from tests.integration.billing_owner import BillingOwner
from tests.integration.documented import assert_documented
from tests.integration.survival_owner import SurvivalOwner
from tests.integration.webhook_owner import WebhookOwner

SECRET = "5ec7e7" * 8
KEY = "dumont_sk_" + "k" * 43
OTHER_KEY = "dumont_sk_" + "o" * 43
# The smallest creates of two dialects.
NOVITA = {"name": "my-gpu-instance", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
DUMONT = {"gpu": "RTX 4090", "image": "pytorch:2.0-cuda12", "disk_size": 100}
READER_KEY = "dumont_sk_" + "r" * 43
OTHER_ACCOUNT = "acct_other"
STREAM = "EVT_INSTANCE"
ENDPOINTS = (
    Endpoint(22, "127.0.0.1", 40022, "tcp"),
    Endpoint(8888, "127.0.0.1", 48888, "http"),
    Endpoint(7681, "127.0.0.1", 47681, "http"),
)
_command = msgspec.json.Decoder(commands.AnyCommand)


def an_offer(offer_id: str = "offer-1", gpu: str = "RTX 4090") -> Offer:
    return Offer(
        offer_id=offer_id, provider="sandbox", host_id="12345", gpu=gpu, price_usd_micros_per_hour=250_000,
        region="CN-HK-01", gpu_memory_gb=24, cpu_cores=16, memory_gb=64, disk_gb=500, download_mbps=900,
        upload_mbps=800,
    )  # fmt: skip


@dataclass
class Owner:
    """What the gateway meets behind `cmd|qry|sig.instance.*`."""

    views: dict[str, queries.InstanceView] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    blacklist: dict[tuple[str, str], queries.BlacklistEntry] = field(default_factory=dict)
    seen: list[tuple[Request, Any]] = field(default_factory=list)
    seq: int = 0
    is_silent: bool = False
    is_behind: bool = False  # its rows are
    stays_silent_for: int = 0
    raises: BaseException | None = None
    waits_for: asyncio.Event | None = None
    waiting: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, subject: str, request: Request) -> Reply:
        if self.stays_silent_for > 0:
            self.stays_silent_for -= 1
            await asyncio.Event().wait()
        if self.waits_for is not None and not subject.endswith((".health", ".stats", ".metrics")):  # not a customer's
            self.waiting.set()
            await self.waits_for.wait()
        if self.is_silent:
            await asyncio.Event().wait()
        if self.raises is not None:
            raise self.raises
        if self.is_behind and request.meta.must_be_current:
            raise RowsBehind(subject)
        kind, _, tag = subject.split(".", 2)
        if kind == "cmd":
            wish = _command.decode(request.body)
            self.seen.append((request, wish))
            self.command(wish)
            self.seq += 1
            return Reply(position=Position(STREAM, self.seq))
        question = self.question(tag, request)
        self.seen.append((request, question))
        return Reply(body=msgspec.Raw(msgspec.json.encode(self.reply(question))))

    @staticmethod
    def question(tag: str, request: Request) -> Any:
        if tag in ("health", "metrics"):
            return tag
        if tag == "agent_report":
            return msgspec.json.decode(request.body, type=queries.AgentReport)
        return msgspec.json.decode(request.body, type=queries.AnyQuery)

    def command(self, wish: Any) -> None:
        match wish:
            case commands.CreateInstance():
                self.create(wish)
            case commands.StartInstance(instance_id=id_):
                self.change(wish, status="starting" if self.owned(wish).status == "stopped" else self.views[id_].status)
            case commands.StopInstance():
                self.change(wish, status="stopping")
            case commands.HibernateInstance():
                self.change(wish, status="hibernating")
            case commands.DeleteInstance():
                self.change(wish, status="deleting")
            case commands.MarkUsed():
                before = self.owned(wish).last_used_at
                self.change(wish, last_used_at=wish.used_at if before is None else max(before, wish.used_at))
            case commands.KeepAlive():
                self.change(wish, keep_alive_until=wish.now + timedelta(minutes=wish.minutes))
            case host_commands.Blacklist():
                self.blacklist[wish.provider, wish.host_id] = queries.BlacklistEntry(
                    wish.provider, wish.host_id, wish.kind, wish.reason, wish.account_id, wish.gpu, wish.now,
                    wish.expires_at, True, 4, 3, "no ssh",
                )  # fmt: skip
            case host_commands.Unblacklist():
                if self.blacklist.pop((wish.provider, wish.host_id), None) is None:
                    raise Refused("BLACKLIST_ENTRY_NOT_FOUND", provider=wish.provider, host_id=wish.host_id)
            case (
                commands.RequestSnapshot()
                | commands.EnableCpuStandby()
                | commands.DisableCpuStandby()
                | commands.WantGpu()
            ):
                self.owned(wish)
            case (
                commands.ReportSnapshot()
                | commands.ReportSnapshotFailed()
                | commands.ReportRestored()
                | commands.ReportSync()
            ):
                pass
            case _:
                raise AssertionError(wish)

    def create(self, wish: commands.CreateInstance) -> None:
        known = self.views.get(wish.instance_id)
        if known is not None:
            if self.hashes[wish.instance_id] != wish.request_hash:
                raise Refused("IDEMPOTENCY_CONFLICT", instance_id=wish.instance_id)
            return
        if wish.spec.gpu == "RTX 9999":
            raise Refused("PRODUCT_NOT_FOUND", gpu=wish.spec.gpu)
        self.hashes[wish.instance_id] = wish.request_hash
        self.views[wish.instance_id] = queries.InstanceView(
            wish.instance_id, wish.account_id, wish.name, "creating", wish.spec.gpu, wish.spec, wish.now,
            region=wish.spec.region, webhook_url=wish.webhook_url, auto_stop_minutes=wish.auto_stop_minutes,
        )  # fmt: skip

    def owned(self, wish: Any) -> queries.InstanceView:
        view = self.views.get(wish.instance_id)
        if view is None or view.account_id != wish.account_id:
            raise Refused("INSTANCE_NOT_FOUND", instance_id=wish.instance_id)
        return view

    def change(self, wish: Any, **fields: Any) -> None:
        self.views[wish.instance_id] = replace(self.owned(wish), **fields)

    def becomes(self, instance_id: str, status: str) -> None:
        """What machines do by themselves."""
        fields: dict[str, Any] = {"status": status}
        if status == "ready":
            fields |= {"endpoints": ENDPOINTS, "ready_at": datetime.now(UTC), "price_usd_micros_per_hour": 380_000,
                       "provider": "sandbox", "provider_machine_id": "sbx-1", "offer": an_offer()}  # fmt: skip
        self.views[instance_id] = replace(self.views[instance_id], **fields)

    def reply(self, question: Any) -> Any:
        match question:
            case "health":
                return ServiceHealth("instance", True, [], "1.0.0", 5, 0, 0, 0, 0)
            case "metrics":
                return MetricsText('# TYPE dumont_up gauge\ndumont_up{service="instance"} 1\n')
            case queries.GetInstance():
                return self.owned(question)
            case queries.ListInstances():
                return self.listed(question)
            case queries.ListOffers(gpu=gpu):
                offers = [an_offer(), an_offer("offer-2", "H100 80GB")]
                found = [queries.OfferView(o, False, "", 20, 850_000, "good") for o in offers if gpu in ("", o.gpu)]
                return queries.OfferList(found, len(found))
            case queries.ListHosts():
                return queries.HostList([], 0)
            case queries.ListBlacklist():
                return list(self.blacklist.values())
            case queries.CheckBlacklist(provider=provider, host_id=host_id):
                return queries.BlacklistCheck(self.blacklist.get((provider, host_id)))
            case queries.SummarizeHistory():
                return queries.HistorySummary(10, 8, 2, {"loading": 2}, len(self.blacklist))
            case queries.ListAgents():
                now = datetime.now(UTC)
                view = queries.AgentView("inst_1", "mach_1", "idle", now, "1.0.0", "h", 3.5, None, 60, now, None)
                return queries.AgentList([view])
            case queries.GetStats():
                return queries.InstanceStats({"creating": 1, "ready": 2}, 1, 2, 3, 0, 5, 20, datetime.now(UTC), 7)
            case hibernation_queries.GetHibernationStats():
                saved = hibernation_queries.SavedByInstance("inst_1", 2, 5_400, 615_000)
                return hibernation_queries.HibernationStats(2, 5_400, 615_000, [saved])
            case queries.AgentReport():
                return queries.AgentAnswer("none", "", 30, queries.SnapshotOrder("snap_2", "snap_1"))
            case copy_queries.ListSnapshots():
                self.owned(question)
                now = datetime.now(UTC)
                return copy_queries.SnapshotList(
                    [copy_queries.SnapshotView("snap_1", "inst_1", "completed", captured_at=now)]
                )
            case copy_queries.ListCpuStandbys(instance_id=instance_id):
                view = copy_queries.CpuStandbyView(instance_id or "inst_1", "ready", 30, "mach_9")
                return copy_queries.CpuStandbyList([view])
            case copy_queries.SignStorage():
                return copy_queries.SignedUrls(("http://127.0.0.1:1/dumont/x?X-Amz-Signature=0",), 900)
            case _:
                raise AssertionError(question)

    def listed(self, question: queries.ListInstances) -> queries.InstanceList:
        mine = [
            view
            for view in reversed(self.views.values())
            if view.account_id == question.account_id
            and (view.status in question.statuses if question.statuses else view.status != "deleted")
            and (not question.name or view.name == question.name)
            and (not question.gpu or view.gpu == question.gpu)
        ]
        return queries.InstanceList(mine[question.offset :][: question.limit], len(mine))


@dataclass
class GatewayWorld:
    """A running gateway, its owner of instances, and a client that does not raise on errors."""

    gateway: Gateway
    owner: Owner
    money: BillingOwner
    owner_bus: MemoryBus
    log: MemoryLog
    url: str
    http: aiohttp.ClientSession
    stop: asyncio.Event

    async def call(self, method: str, path: str, *, key: str | None = KEY, **more: Any) -> Answered:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= more.pop("headers", {})
        async with self.http.request(method, self.url + path, headers=headers, **more) as response:
            is_endless = response.content_type == "text/event-stream"
            raw = b"" if is_endless else await response.read()
            if self.gateway.limits.is_on:  # else nobody is told where he stands
                assert_documented(method, path, response.status, response.headers, raw)
            return Answered(response.status, response.headers.copy(), raw)

    def asked(self, kind: type) -> list[Any]:
        return [message for _, message in self.owner.seen if isinstance(message, kind)]


@dataclass
class Answered:
    status: int
    headers: Any
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def code(self) -> str:
        return self.json["error"]["code"]


@asynccontextmanager
async def running_gateway(
    *,
    plan: Plan = "operator",
    clock: Clock | None = None,
    log: MemoryLog | None = None,
    welcome_usd: int = 1_000,
    **chosen: Any,
) -> AsyncIterator[GatewayWorld]:
    """`chosen` are settings of the gateway. With the `log` of an earlier one, its accounts and keys are there again."""
    clock, exchange, bug = clock or SystemClock(), MemoryExchange(), Bug()
    log, owner = log or MemoryLog(), Owner()
    owner_bus = MemoryBus(clock=clock, on_bug=bug.report, exchange=exchange)
    await owner_bus.serve("instance", owner.answer)
    await owner_bus.serve("webhook_dispatch", WebhookOwner().answer)
    survival = SurvivalOwner()
    await owner_bus.serve("failover", survival.answer)
    await owner_bus.serve("warmpool", survival.answer)
    money = BillingOwner(welcome_usd)
    await owner_bus.serve("billing", money.answer)
    bus = MemoryBus(clock=clock, on_bug=bug.report, exchange=exchange)
    settings = GatewaySettings(nats_url=Secret("nats://unused"), secret=Secret(SECRET), gateway_port=0, **chosen)
    peers = MemoryPeers("gw_test")
    gateway = make(settings, log=log, bus=bus, peers=peers, clock=clock, ids=SystemIds(), is_connected=lambda: True)
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(gateway, stop, bug, port.set_result))
    await asyncio.wait({serving, port}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        async with aiohttp.ClientSession() as http:
            world = GatewayWorld(gateway, owner, money, owner_bus, log, f"http://127.0.0.1:{port.result()}", http, stop)
            for account_id in ("acct_default", OTHER_ACCOUNT):
                await gateway.keys.execute(
                    OpenAccount(now=datetime.now(UTC), account_id=account_id, name=account_id, plan=plan)
                )
            await issue(world, KEY, "acct_default")
            await issue(world, OTHER_KEY, OTHER_ACCOUNT)
            await issue(world, READER_KEY, "acct_default", scopes=("instances:read",))
            yield world
    finally:
        stop.set()
        await asyncio.wait_for(serving, 10)
        await owner_bus.close()
        await bus.close()


async def issue(world: GatewayWorld, key: str, account_id: str, **more: Any) -> str:
    key_id = f"key_{key[-1]}"
    await world.gateway.keys.execute(
        IssueKey(
            now=datetime.now(UTC),
            key_id=key_id,
            account_id=account_id,
            name="test",
            **asdict(fingerprint(key)),
            **more,
        )
    )
    return key_id
