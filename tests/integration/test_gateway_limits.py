"""Limits over HTTP: what every answer says, what is refused, and for whom. Time stands still unless a test moves it."""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from libs.config import ConfigError
from libs.spec.hand_clock import HandClock
from proto.gateway.commands import ChangePlan
from tests.integration.gateway_world import KEY, OTHER_KEY, Answered, GatewayWorld, running_gateway

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
UNKNOWN_KEY = "dumont_sk_" + "u" * 43
INSTANCES = "/api/v1/instances"
NOVITA = {"name": "made", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
SEEDS = Path(__file__).parents[1] / "journey" / "seeds"
RETRIES = "004_03_error_handling_with_retries.js"


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOON)


@pytest.fixture
async def free(clock: HandClock) -> AsyncIterator[GatewayWorld]:
    async with running_gateway(plan="free", clock=clock) as found:
        yield found


def rates(answer: Answered) -> tuple[int, int, int]:
    """Limit, remaining, and seconds from NOON until all is there again."""
    found = [int(answer.headers[f"X-RateLimit-{name}"]) for name in ("Limit", "Remaining", "Reset")]
    return found[0], found[1], found[2] - int(NOON.timestamp())


async def burst(world: GatewayWorld, count: int, key: str | None = KEY, path: str = INSTANCES) -> list[Answered]:
    return [await world.call("GET", path, key=key) for _ in range(count)]


async def test_sixty_quick_requests_pass_on_free_and_the_61st_is_429(free: GatewayWorld, clock: HandClock) -> None:
    answers = await burst(free, 61)

    assert [answer.status for answer in answers] == [200] * 60 + [429]
    assert [rates(answer) for answer in answers[:60]] == [(60, 59 - n, 1 + n) for n in range(60)]
    refused = answers[60]
    assert rates(refused) == (60, 0, 60)
    assert refused.headers["Retry-After"] == "1"
    assert refused.code == "RATE_LIMIT_EXCEEDED"
    assert refused.json["error"]["details"] == {"retry_after": 1, "limit": 60, "window": "minute"}
    clock.wait(seconds=1)
    assert [answer.status for answer in await burst(free, 2)] == [200, 429]
    assert (await free.call("GET", INSTANCES, key=OTHER_KEY)).status == 200  # another account has its own


async def test_the_day_has_a_limit_of_its_own_and_ends_at_midnight_utc(free: GatewayWorld, clock: HandClock) -> None:
    statuses: list[int] = []
    for _ in range(1_001):
        statuses.append((await free.call("GET", INSTANCES)).status)
        clock.wait(seconds=2)
    assert statuses == [200] * 1_000 + [429]
    refused = await free.call("GET", INSTANCES)
    assert rates(refused) == (1_000, 0, 12 * 3_600)
    assert int(refused.headers["Retry-After"]) == 12 * 3_600 - 1_001 * 2
    assert refused.json["error"]["details"]["window"] == "day"
    clock.wait(seconds=int(refused.headers["Retry-After"]) - 1)
    assert (await free.call("GET", INSTANCES)).status == 429
    clock.wait(seconds=1)
    assert (await free.call("GET", INSTANCES)).status == 200


async def test_every_answer_says_where_the_caller_stands(free: GatewayWorld) -> None:
    asked = [
        ("GET", INSTANCES, KEY, {}, 200),
        ("POST", INSTANCES, KEY, {"json": {"gpu": "RTX 4090"}}, 201),
        ("POST", INSTANCES, KEY, {"json": {"gpu": 7}}, 400),
        ("POST", INSTANCES, KEY, {"data": io.BytesIO(b"x" * 11_000_000)}, 413),
        ("POST", INSTANCES, KEY, {"data": io.BytesIO(b"x"), "headers": {"Content-Type": "text/plain"}}, 415),
        ("GET", f"{INSTANCES}/inst_none", KEY, {}, 404),
        ("GET", INSTANCES, None, {}, 401),
        ("GET", INSTANCES, UNKNOWN_KEY, {}, 401),
        ("GET", "/api/v1/webhooks", "dumont_sk_" + "r" * 43, {}, 403),
        ("GET", "/api/v1/nowhere", KEY, {}, 404),
        ("PUT", INSTANCES, KEY, {}, 405),
        ("OPTIONS", INSTANCES, None, {}, 204),
        ("HEAD", INSTANCES, KEY, {}, 200),
        ("GET", "/api/instances", None, {}, 200),
        ("GET", "/health", None, {}, 200),
        ("GET", "/livez", None, {}, 200),
        ("GET", "/metrics", None, {}, 200),
        ("GET", "/openapi.json", None, {}, 200),
        ("POST", "/api/v1/agent/status", None, {"json": {"instance_id": "inst_1"}}, 401),
        ("POST", "/api/v1/agent/status", "dumont_agent_x", {"json": {"instance_id": "inst_1"}}, 401),
    ]
    for method, path, key, more, status in asked:
        answer = await free.call(method, path, key=key, **more)
        assert answer.status == status, (method, path, answer.raw[:200])
        limit, remaining, reset_s = rates(answer)
        assert 0 <= remaining < limit, (method, path)
        assert reset_s > 0, (method, path)


async def test_a_503_says_it_too(free: GatewayWorld) -> None:
    await free.owner_bus.close()
    answer = await free.call("GET", INSTANCES)
    assert (answer.status, rates(answer)) == (503, (60, 59, 1))


async def test_a_plan_counts_at_once(free: GatewayWorld, clock: HandClock) -> None:
    await burst(free, 61)
    await free.gateway.keys.execute(ChangePlan(now=clock.now(), account_id="acct_default", plan="pro"))
    assert rates((await burst(free, 1))[0]) == (300, 239, 13)  # sixty are used, at the new pace of five a second
    account = (await free.call("GET", "/api/v1/account")).json["data"]
    assert (account["plan"], account["limits"]) == ("pro", {"per_minute": 300, "per_day": 10_000})


async def test_seed_001s_classes_hold_per_address(free: GatewayWorld, clock: HandClock) -> None:
    created = [await free.call("POST", "/api/instances", key=None, json=NOVITA) for _ in range(11)]
    assert [answer.status for answer in created] == [201] * 10 + [429]
    assert rates(created[0]) == (10, 9, 6)
    assert rates(created[10]) == (10, 0, 60)
    assert created[10].json["error"]["retryAfter"] == 6
    clock.wait(seconds=6)
    assert (await free.call("POST", "/api/instances", key=None, json=NOVITA)).status == 201
    # The account's plan holds as well, whatever the dialect: 11 of its 60 are spent, 6 came back.
    read = await burst(free, 60, None, "/api/instances")
    assert [answer.status for answer in read] == [200] * 55 + [429] * 5


async def test_status_queries_have_a_class_of_their_own(clock: HandClock) -> None:
    async with running_gateway(plan="enterprise", clock=clock) as world:
        read = await burst(world, 101, None, "/api/instances")
        assert [answer.status for answer in read] == [200] * 100 + [429]
        assert rates(read[0]) == (100, 99, 1)  # one comes back every 0.6 s
        assert (await world.call("POST", "/api/instances", key=None, json=NOVITA)).status == 201
        assert (await world.call("GET", INSTANCES)).status == 200  # Dumont has plans, no classes


@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
async def test_the_retry_client_of_seed_004_succeeds_unchanged() -> None:
    """With a class that gives one back every 2 s: it is refused, waits 1 and 2 s, and is let through."""
    limits = '{"address": {"create": {"requests": 2, "period_s": 4}}}'
    async with running_gateway(limits=limits, plan="free") as world:
        snippet = (SEEDS / RETRIES).read_text().replace("http://localhost:3000", world.url)
        body = "{productName: 'RTX 4090 24GB', templateId: 'pytorch-jupyter', name: 'n' + i}"
        calls = f"""
        (async () => {{
          const client = new RobustAPIClient();
          for (let i = 0; i < 4; i++) {{
            const made = await client.makeRequest(client.apiBase + '/api/instances',
              {{method: 'POST', body: JSON.stringify({body})}});
            console.log('made', made.instanceId);
          }}
        }})().catch(e => {{ console.error(e); process.exit(1); }});
        """
        done = await _node(snippet + calls)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("made inst_") == 4
    assert "Rate limited, retrying in 1000ms" in done.stdout


async def _node(text: str) -> subprocess.CompletedProcess[str]:
    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["node", "-"], input=text, capture_output=True, text=True, timeout=60, check=False)

    return await asyncio.to_thread(run)


# --- failed logins ---------------------------------------------------------------------------------------------------


async def test_failed_logins_are_limited_per_address(free: GatewayWorld, clock: HandClock) -> None:
    attempts = await burst(free, 21, UNKNOWN_KEY)
    assert [answer.status for answer in attempts] == [401] * 20 + [429]
    assert rates(attempts[0]) == (20, 19, 3)
    assert attempts[20].headers["Retry-After"] == "3"
    assert (await free.call("GET", INSTANCES)).status == 200  # whoever has a key is not locked out by a neighbour
    assert (await free.call("GET", INSTANCES, key=None)).status == 401  # nobody has tried a key here
    clock.wait(seconds=3)
    assert [answer.status for answer in await burst(free, 2, "not-a-key")] == [401, 429]


async def test_agents_with_a_wrong_token_count_as_failed_logins(free: GatewayWorld) -> None:
    body = {"instance_id": "inst_1"}
    statuses = [
        (await free.call("POST", "/api/v1/agent/status", key=f"dumont_agent_{n}", json=body)).status for n in range(22)
    ]
    assert statuses == [401] * 20 + [429] * 2


async def test_an_address_behind_our_proxies_is_the_one_they_saw(clock: HandClock) -> None:
    async with running_gateway(clock=clock, trusted_proxies=1, plan="free") as world:

        async def login(forwarded: str) -> int:
            return (await world.call("GET", INSTANCES, key=UNKNOWN_KEY, headers={"X-Forwarded-For": forwarded})).status

        assert [await login(f"198.51.100.{n}, 192.0.2.1") for n in range(21)][
            -1
        ] == 429  # the left one is the client's word
        assert await login("192.0.2.2") == 401
        assert [await login(f"2001:db8::{n:x}") for n in range(1, 22)][-1] == 429  # one network, one client
        assert await login("2001:db8:0:1::1") == 401


async def test_without_proxies_nobody_chooses_an_address(clock: HandClock) -> None:
    async with running_gateway(clock=clock, plan="free") as world:
        answers = [
            await world.call("GET", INSTANCES, key=UNKNOWN_KEY, headers={"X-Forwarded-For": f"192.0.2.{n}"})
            for n in range(21)
        ]
        assert answers[-1].status == 429


# --- off -------------------------------------------------------------------------------------------------------------


async def test_without_limits_nothing_is_counted(clock: HandClock) -> None:
    async with running_gateway(clock=clock, plan="free", no_limits=True) as world:
        answers = [*await burst(world, 70), *await burst(world, 30, UNKNOWN_KEY)]
        assert {answer.status for answer in answers} == {200, 401}
        assert not any("X-RateLimit-Limit" in answer.headers for answer in answers)
        assert (await world.call("GET", "/api/v1/account")).json["data"]["limits"] is None


async def test_limits_are_never_off_for_others() -> None:
    with pytest.raises(ConfigError, match="DUMONT_NO_LIMITS"):
        async with running_gateway(no_limits=True, gateway_host="0.0.0.0"):
            pass
