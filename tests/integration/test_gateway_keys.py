"""API keys over HTTP: made, rotated, used, revoked; and what the account can read about it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.eventlog.memory import MemoryLog
from libs.runtime.codec import decode_commit
from libs.spec.hand_clock import HandClock
from services.gateway.keys import STREAM
from services.gateway.usage import note_last
from tests.integration.gateway_world import KEY, OTHER_KEY, READER_KEY, GatewayWorld, running_gateway
from tests.integration.test_gateway_limits import NOON

KEYS = "/api/v1/api-keys"


@pytest.fixture
def clock() -> HandClock:
    return HandClock(NOON)


@pytest.fixture
async def world(clock: HandClock) -> AsyncIterator[GatewayWorld]:
    async with running_gateway(clock=clock) as found:
        yield found


async def made(world: GatewayWorld, key: str = KEY, **body: Any) -> Any:
    answer = await world.call("POST", KEYS, key=key, json={"name": "ci", **body})
    assert answer.status == 201, answer.raw
    return answer.json["data"]


async def works(world: GatewayWorld, key: str) -> bool:
    status = (await world.call("GET", "/api/v1/account", key=key)).status
    assert status in (200, 401)
    return status == 200


async def listed(world: GatewayWorld) -> dict[str, Any]:
    return {item["id"]: item for item in (await world.call("GET", KEYS)).json["data"]}


async def test_a_rotated_key_works_beside_the_new_one_until_the_stated_time(
    world: GatewayWorld, clock: HandClock
) -> None:
    old = await made(world, scopes=["account:read", "keys:write"])
    answer = await world.call("POST", f"{KEYS}/{old['id']}/rotate", json={"overlap_minutes": 60})
    new = answer.json["data"]

    assert answer.status == 201
    assert (new["replaces"], new["name"], new["scopes"]) == (old["id"], "ci", ["account:read", "keys:write"])
    assert new["replaced_valid_until"] == "2026-11-22T13:00:00.000Z"
    assert await works(world, old["key"])
    assert await works(world, new["key"])
    clock.wait(minutes=59, seconds=59)
    assert await works(world, old["key"])
    clock.wait(seconds=1)
    assert not await works(world, old["key"])
    assert await works(world, new["key"])
    known = await listed(world)
    assert (known[old["id"]]["is_active"], known[old["id"]]["successor_id"]) == (False, new["id"])


async def test_without_overlap_the_old_key_ends_at_once(world: GatewayWorld) -> None:
    old = await made(world)
    await world.call("POST", f"{KEYS}/{old['id']}/rotate", json={"overlap_minutes": 0})
    assert not await works(world, old["key"])


async def test_a_key_is_rotated_once(world: GatewayWorld) -> None:
    old = await made(world)
    assert (await world.call("POST", f"{KEYS}/{old['id']}/rotate", json={})).status == 201
    count = len(await listed(world))
    again = await world.call("POST", f"{KEYS}/{old['id']}/rotate", json={})
    assert (again.status, again.code) == (409, "INVALID_STATE")
    assert len(await listed(world)) == count  # nothing was issued on the way


async def test_nobody_gets_more_scopes_by_rotating(world: GatewayWorld) -> None:
    """Whoever may write keys could otherwise take over the strongest one."""
    strong = await made(world)
    weak = await made(world, scopes=["keys:write"])
    refused = await world.call("POST", f"{KEYS}/{strong['id']}/rotate", key=weak["key"], json={})
    assert (refused.status, refused.code) == (403, "INSUFFICIENT_SCOPE")
    issued = await world.call("POST", KEYS, key=weak["key"], json={"name": "more", "scopes": ["instances:write"]})
    assert (issued.status, issued.code) == (403, "INSUFFICIENT_SCOPE")
    assert await works(world, strong["key"])


@pytest.mark.parametrize("path", [KEYS, f"{KEYS}/key_1/rotate"])
async def test_a_repeat_with_the_same_idempotency_key_shows_the_same_secret(world: GatewayWorld, path: str) -> None:
    if "rotate" in path:
        path = f"{KEYS}/{(await made(world))['id']}/rotate"
    body = {"name": "ci"} if path == KEYS else {}
    headers = {"Idempotency-Key": "once"}
    first, repeat = [await world.call("POST", path, json=body, headers=headers) for _ in range(2)]
    other = await world.call("POST", KEYS, json={"name": "ci"}, headers={"Idempotency-Key": "twice"})

    assert (first.status, repeat.status) == (201, 201)
    assert first.json["data"] == repeat.json["data"]
    assert repeat.headers["Idempotent-Replayed"] == "true"
    assert await works(world, first.json["data"]["key"])
    assert other.json["data"]["key"] != first.json["data"]["key"]


async def test_the_same_idempotency_key_does_not_make_another_key(world: GatewayWorld) -> None:
    headers = {"Idempotency-Key": "once"}
    await world.call("POST", KEYS, json={"name": "one"}, headers=headers)
    conflict = await world.call("POST", KEYS, json={"name": "two"}, headers=headers)
    assert (conflict.status, conflict.code) == (409, "IDEMPOTENCY_CONFLICT")


async def test_the_last_use_is_told_and_noted_for_many_keys_at_once(clock: HandClock) -> None:
    log = MemoryLog()
    async with running_gateway(clock=clock, log=log) as world:
        keys = [await made(world, name=f"key {n}") for n in range(5)]
        assert [item["last_used_at"] for item in (await listed(world)).values() if item["name"] == "key 0"] == [None]
        before = await log.last_seq(STREAM)
        for key in keys:
            for _ in range(20):
                assert await works(world, key["key"])
        assert await log.last_seq(STREAM) == before  # a request writes nothing
        await note_last(world.gateway)
        assert await log.last_seq(STREAM) == before + 1
        await note_last(world.gateway)
        assert await log.last_seq(STREAM) == before + 1  # no news, no note
    clock.wait(hours=1)
    async with running_gateway(clock=clock, log=log) as again:
        told = {item["name"]: item["last_used_at"] for item in (await listed(again)).values()}
        assert {told[f"key {n}"] for n in range(5)} == {"2026-11-22T12:00:00.000Z"}


async def test_the_days_count_survives_a_restart(clock: HandClock) -> None:
    log = MemoryLog()
    limits = '{"plans": {"dumont": {"free": {"per_day": 30}}}}'
    async with running_gateway(clock=clock, log=log, plan="free", limits=limits) as world:
        for _ in range(20):
            assert (await world.call("GET", "/api/v1/account")).status == 200
    clock.wait(minutes=5)
    async with running_gateway(clock=clock, log=log, plan="free", limits=limits) as again:
        statuses = [(await again.call("GET", "/api/v1/account")).status for _ in range(12)]
    assert statuses == [200] * 10 + [429] * 2


async def test_what_was_done_can_be_read_by_the_account_and_by_nobody_else(
    world: GatewayWorld, clock: HandClock
) -> None:
    old = await made(world)
    clock.wait(seconds=1)
    rotated = await world.call("POST", f"{KEYS}/{old['id']}/rotate", json={}, headers={"X-Request-ID": "req-audit"})
    clock.wait(seconds=1)
    await world.call("DELETE", f"{KEYS}/{old['id']}", key=rotated.json["data"]["key"])

    told = (await world.call("GET", "/api/v1/audit?limit=4")).json
    said = [(entry["event"], entry["actor"], entry["subject_id"]) for entry in told["data"]]
    new_id = rotated.json["data"]["id"]
    assert said == [
        ("key.revoked", new_id, old["id"]),
        ("key.rotated", "key_k", old["id"]),
        ("key.issued", "key_k", new_id),
        ("key.issued", "key_k", old["id"]),
    ]
    assert told["data"][1]["request_id"] == "req-audit"
    assert told["meta"]["total"] == 7  # the account and two keys came before
    assert old["id"] not in (await world.call("GET", "/api/v1/audit", key=OTHER_KEY)).raw.decode()
    assert (await world.call("GET", "/api/v1/audit", key=READER_KEY)).status == 403


async def test_no_secret_of_a_key_is_in_the_log(world: GatewayWorld) -> None:
    key = (await made(world))["key"]
    stored = [message.data for batch in [await _all(world.log)] for message in batch]
    assert any(b"key.issued" in data for data in stored)
    assert not any(key.encode() in data for data in stored)


async def _all(log: MemoryLog) -> Any:
    async for batch in log.follow(STREAM, after_seq=0):
        for message in batch:
            decode_commit(message.data)
        return batch
    return ()


async def test_errors_name_the_language_they_are_in(world: GatewayWorld) -> None:
    for accepted, language, message in (
        ("en;q=0.4, pt-BR;q=0.8", "pt-BR", "Chave de API não encontrada: key_none"),
        ("pt;q=0.1, en;q=0.2", "en", "API key not found: key_none"),
    ):
        answer = await world.call("DELETE", f"{KEYS}/key_none", headers={"Accept-Language": accepted})
        assert (answer.status, answer.code) == (404, "API_KEY_NOT_FOUND")
        assert answer.headers["Content-Language"] == language
        assert answer.json["error"]["message"] == message


async def test_a_repeat_shows_the_same_secret_of_a_webhook_and_another_request_another(world: GatewayWorld) -> None:
    made = await world.call(
        "POST", "/api/v1/webhooks", json={"name": "n", "url": "https://example.com/", "events": ["*"]}
    )
    for path in (f"/api/v1/webhooks/{made.json['data']['id']}/rotate-secret", "/api/v1/webhooks/default-secret"):
        method = "PUT" if path.endswith("default-secret") else "POST"
        once, twice = {"Idempotency-Key": "once"}, {"Idempotency-Key": "twice"}
        shown = [
            (await world.call(method, path, json={}, headers=headers)).json["data"]["secret"]
            for headers in (once, once, twice, {}, {})
        ]
        assert shown[0] == shown[1]
        assert len(set(shown)) == len(shown) - 1
