"""Which buckets a request draws on, and what its answer says about them. Called by the pipeline, once per request.

- With an account: the bucket of the account's plan, and in the Novita dialect also the class of the client's address.
- Without one (health, preflight, a path that does not exist): the bucket `open` of the address.
- Refused for its credential: the bucket `failed_login` of the address, and nothing else.
- A machine's agent: the bucket of that machine's token.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime, timedelta

from aiohttp import web

from libs.clock import Clock
from libs.peers import Peers
from libs.refusal import Refused
from libs.telemetry import Metrics
from proto.gateway.words import Plan
from services.gateway.accounts import Accounts
from services.gateway.limits.bucket import MICROS, Quota, Standing
from services.gateway.limits.limiter import Charge, Limiter
from services.gateway.limits.table import LimitTable, PlanLimits, Rate

FAMILY = "dumont"  # whose plans hold for dialects that have none of their own
ACCOUNT = "account:"
IPV6_NETWORK_BITS = 64  # what one customer of an internet provider has at least
_WINDOWS = {60: "minute", 3_600: "hour", 86_400: "day"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Limits:
    """The limits of one gateway. `is_on` is False under --no-limits: then nothing is counted and no header is sent."""

    def __init__(
        self, table: LimitTable, clock: Clock, peers: Peers, metrics: Metrics, accounts: Accounts, *, is_on: bool
    ) -> None:
        asked = metrics.counter("dumont_limit_asks_total", "Questions to other replicas about a bucket they own.")
        self._refused = metrics.counter("dumont_rate_limited_total", "Requests refused as too many.", ("bucket",))
        self._accounts = accounts
        self.limiter = Limiter(clock, peers, noted=self._noted, asked=asked)
        metrics.gauge_read("dumont_limit_buckets", "Buckets in memory.", lambda: len(self.limiter))
        metrics.gauge_read("dumont_gateway_replicas", "Gateways that share limits, this one included.", self._replicas)
        self.is_on = is_on
        self._plans = {
            (family, plan): (_plan_quota(limits), limits.per_address)
            for family, plans in table.plans.items()
            for plan, limits in plans.items()
        }
        self._families = frozenset(table.plans)
        self._classes = {
            name: _quota(rate)
            for name, rate in (
                ("create", table.address.create),
                ("read", table.address.read),
                ("write", table.address.write),
                ("open", table.address.open),
                ("failed_login", table.address.failed_login),
                ("agent", table.agent),
            )
        }

    async def run(self) -> None:
        """Find the other replicas and keep in touch with them, for ever."""
        await self.limiter.join()
        try:
            await self.limiter.keep_in_touch()
        except asyncio.CancelledError:
            await asyncio.shield(self.limiter.leave())
            raise

    def of_account(self, family: str, account_id: str, plan: Plan) -> tuple[Charge, bool]:
        """The account's bucket, and whether classes per address hold beside it."""
        if family not in self._families:
            family = FAMILY
        quota, per_address = self._plans[family, plan]
        subject = f"{ACCOUNT}{account_id}" if family == FAMILY else f"{ACCOUNT}{account_id}:{family}"
        return Charge(subject, quota), per_address

    def of_address(self, name: str, address: str) -> Charge:
        return Charge(f"{name}:{address}", self._classes[name])

    def of_agent(self, token: str) -> Charge:
        digest = hashlib.sha256(token.encode()).hexdigest()[:32]
        return Charge(f"agent:{digest}", self._classes["agent"])

    async def spend(self, charges: Sequence[Charge], headers: MutableMapping[str, str]) -> None:
        """Count one request and say in `headers` what is left. Raises RATE_LIMIT_EXCEEDED."""
        standing = self.limiter.try_admit(charges)
        if standing is None:
            standing = await self.limiter.admit(charges)
        headers["X-RateLimit-Limit"] = str(standing.limit)
        headers["X-RateLimit-Remaining"] = str(standing.remaining)
        headers["X-RateLimit-Reset"] = str(-(-standing.reset_at_us // MICROS))
        if standing.retry_after_us:
            self._refused.add((charges[-1].subject.partition(":")[0],))
            raise too_many(standing)

    def _noted(self, subject: str, day: int) -> int:
        return self._accounts.noted(subject.removeprefix(ACCOUNT), day_word(day))

    def _replicas(self) -> int:
        return self.limiter.replicas


def too_many(standing: Standing) -> Refused:
    wait_s = math.ceil(standing.retry_after_us / MICROS)
    return Refused(
        "RATE_LIMIT_EXCEEDED",
        retry_after_s=wait_s,
        retry_after=wait_s,  # in the details, where seed 003's clients look
        limit=standing.limit,
        window=standing.window,
    )


def day_word(day: int) -> str:
    """`YYYYMMDD` of days since 1970."""
    return (_EPOCH + timedelta(days=day)).strftime("%Y%m%d")


def client_address(request: web.BaseRequest, *, proxies: int) -> str:
    """Who connects: the peer, or what the outermost of our own proxies saw. IPv6 by network."""
    address = request.remote or "unknown"
    if proxies:
        hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",")]
        if len(hops) >= proxies and _is_address(hops[-proxies]):
            address = hops[-proxies]
    return address if ":" not in address else _network(address.partition("%")[0])


def _network(address: str) -> str:
    try:
        ipv6 = ipaddress.IPv6Address(address)
    except ValueError:
        return address[:64]
    if ipv6.ipv4_mapped is not None:  # a dual-stack socket's way to write an IPv4 peer
        return str(ipv6.ipv4_mapped)
    return str(ipaddress.ip_network((ipv6, IPV6_NETWORK_BITS), strict=False))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _plan_quota(limits: PlanLimits) -> Quota:
    return Quota(limits.per_minute, 60 * MICROS, limits.per_day, "minute")


def _quota(rate: Rate) -> Quota:
    return Quota(rate.requests, rate.period_s * MICROS, 0, _WINDOWS.get(rate.period_s, f"{rate.period_s} s"))
