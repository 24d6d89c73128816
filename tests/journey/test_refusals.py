"""Every wrong request to a whole platform gets the documented error of its dialect, and never a 500."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from typing import Any

import msgspec
import nats
import pytest
from msgspec.structs import asdict

from libs.clock import SystemClock
from proto.base import Meta, Request
from proto.gateway.commands import IssueKey
from proto.gateway.words import KEY_PREFIX, KEY_SECRET_BYTES, fingerprint
from tests.journey.platform import Answer, Platform, eventually, unique

NOVITA = {"name": "refused", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
DUMONT = {"gpu": "RTX 4090", "image": "pytorch:2.0-cuda12"}
ISSUE_MAX_S = 5.0
encode = msgspec.json.encode
ELEVEN_MB = b'{"name":"' + b"x" * (11 * 1024 * 1024) + b'"}'
NUL = b'{"name":"a\\u0000b","productName":"RTX 4090 24GB","templateId":"pytorch-jupyter"}'


def code_of(answer: Answer) -> str:
    """The code, once the whole envelope of the dialect is there."""
    error = answer.json["error"]
    assert error["code"] and error["message"]
    if "success" in answer.json:
        assert answer.json["success"] is False
        assert error["request_id"] == answer.headers["x-request-id"]
    else:
        assert error["requestId"] == answer.headers["x-request-id"]
        assert error["timestamp"].endswith("Z")
    return error["code"]


WRONG_BODIES: list[tuple[str, Any, int, str]] = [
    ("bad JSON", b'{"name": ', 400, "VALIDATION_ERROR"),
    ("a wrong type", {**NOVITA, "gpuNum": "two"}, 400, "VALIDATION_ERROR"),
    ("an over-long name", {**NOVITA, "name": "n" * 101}, 400, "VALIDATION_ERROR"),
    ("11 MB", ELEVEN_MB, 413, "PAYLOAD_TOO_LARGE"),
    ("a NUL in the name", NUL, 400, "VALIDATION_ERROR"),
    ("an unknown template", {**NOVITA, "templateId": "no-such-template"}, 404, "TEMPLATE_NOT_FOUND"),
    ("an unknown product", {**NOVITA, "productName": "Abacus 9000"}, 404, "PRODUCT_NOT_FOUND"),
]


@pytest.mark.parametrize(("what", "body", "status", "code"), WRONG_BODIES, ids=[case[0] for case in WRONG_BODIES])
def test_a_wrong_create_gets_the_documented_error(up: Platform, what: str, body: Any, status: int, code: str) -> None:
    del what
    answer = up.request("POST", "/api/instances", body)
    assert (answer.status, code_of(answer)) == (status, code)


@pytest.mark.parametrize("query", ["status=glowing", "limit=0", "limit=many", "offset=-1"])
def test_a_bad_filter_gets_the_documented_error(up: Platform, query: str) -> None:
    for path, key in (("/api/instances", False), ("/api/v1/instances", True)):
        answer = up.request("GET", f"{path}?{query}", key=key)
        assert (answer.status, code_of(answer)) == (400, "VALIDATION_ERROR"), path


VERBS = [
    ("GET", "/api/instances/{}", False),
    ("POST", "/api/instances/{}/start", False),
    ("POST", "/api/instances/{}/stop", False),
    ("DELETE", "/api/instances/{}", False),
    ("PUT", "/api/instances/{}/last-used", False),
    ("GET", "/api/v1/instances/{}", True),
    ("POST", "/api/v1/instances/{}/start", True),
    ("POST", "/api/v1/instances/{}/stop", True),
    ("DELETE", "/api/v1/instances/{}", True),
]


@pytest.mark.parametrize(("method", "path", "key"), VERBS, ids=[f"{verb[0]} {verb[1]}" for verb in VERBS])
def test_an_unknown_instance_is_404(up: Platform, method: str, path: str, key: bool) -> None:
    answer = up.request(method, path.format("inst_unknown"), key=key)
    assert (answer.status, code_of(answer)) == (404, "INSTANCE_NOT_FOUND")


@pytest.fixture(scope="module")
def deleted(up: Platform) -> str:
    instance_id = up.create()
    assert up.request("DELETE", f"/api/v1/instances/{instance_id}?wait=20", key=True).status == 200
    return instance_id


@pytest.mark.parametrize("path", ["/api/instances/{}/start", "/api/v1/instances/{}/start"])
def test_a_deleted_instance_cannot_be_started(up: Platform, deleted: str, path: str) -> None:
    answer = up.request("POST", path.format(deleted), key="v1" in path)
    assert answer.status in (400, 404, 409)
    assert code_of(answer) in ("INSTANCE_NOT_FOUND", "INSTANCE_NOT_STARTABLE", "INVALID_STATE")


@pytest.mark.parametrize(
    ("path", "listed"),
    [
        ("/api/instances/{}", "/api/instances?status=terminated&limit=100"),
        ("/api/v1/instances/{}", "/api/v1/instances?status=deleted&limit=100"),
    ],
)
def test_a_deleted_instance_is_not_found_and_still_listed_for_those_who_ask(
    up: Platform, deleted: str, path: str, listed: str
) -> None:
    answer = up.request("GET", path.format(deleted), key="v1" in path)
    assert (answer.status, code_of(answer)) == (404, "INSTANCE_NOT_FOUND")
    assert deleted in up.request("GET", listed, key="v1" in path).text


def test_deleting_twice_is_once(up: Platform, deleted: str) -> None:
    assert up.request("DELETE", f"/api/instances/{deleted}").status in (200, 404)


def test_stopping_and_starting_twice_is_once(up: Platform) -> None:
    path = f"/api/instances/{up.create_ready()['id']}"
    assert up.request("POST", path + "/start").status == 202  # it is running already
    for _ in range(2):
        assert up.request("POST", path + "/stop").status == 200
        eventually(lambda: up.request("GET", path).json["status"] == "stopped", timeout_s=20, what="stopped")
    for _ in range(2):
        assert up.request("POST", path + "/start").status == 202
    eventually(lambda: up.request("GET", path).json["status"] == "ready", timeout_s=20, what="ready again")


def test_unknown_fields_are_ignored_in_the_novita_dialect(up: Platform) -> None:
    assert up.request("POST", "/api/instances", {**NOVITA, "colour": "blue"}).status == 201


def test_unknown_fields_are_refused_in_the_dumont_dialect(up: Platform) -> None:
    answer = up.request("POST", "/api/v1/instances", {**DUMONT, "colour": "blue"}, key=True)
    assert (answer.status, code_of(answer)) == (400, "VALIDATION_ERROR")


def test_what_cannot_be_stored_never_reaches_the_log(up: Platform) -> None:
    """PostgreSQL has no NUL in text: an event with one would stop every projection, now and at every replay."""
    for raw in (NUL, b'{"gpu":"RTX 4090","label":"a\\u0000b"}', b'{"gpu":"RTX 4090","env":{"A":"\\u0000"}}'):
        path = "/api/instances" if raw is NUL else "/api/v1/instances"
        assert up.request("POST", path, raw, key=raw is not NUL).status == 400
    up.create_ready()


def test_an_unknown_key_is_401(up: Platform) -> None:
    for key in ("dumont_sk_" + "x" * 43, "nonsense"):
        answer = up.request("GET", "/api/v1/instances", key=key)
        assert (answer.status, code_of(answer)) == (401, "UNAUTHENTICATED")


def test_no_key_is_401_in_the_dumont_dialect(up: Platform) -> None:
    answer = up.request("GET", "/api/v1/instances")
    assert (answer.status, code_of(answer)) == (401, "UNAUTHENTICATED")


@pytest.fixture(scope="module")
def strangers_key(up: Platform) -> str:
    """A key of another account: only the bus can issue one."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
    asyncio.run(_issue(up.nats_url, key, "acct_b"))
    return key


@pytest.mark.parametrize(("method", "path", "key"), VERBS, ids=[f"{verb[0]} {verb[1]}" for verb in VERBS])
def test_another_accounts_instance_is_404(up: Platform, strangers_key: str, method: str, path: str, key: bool) -> None:
    del key
    mine = up.create()
    answer = up.request(method, path.format(mine), key=strangers_key)
    assert (answer.status, code_of(answer)) == (404, "INSTANCE_NOT_FOUND")


def test_a_list_shows_only_the_own_account(up: Platform, strangers_key: str) -> None:
    up.create()
    assert up.request("GET", "/api/v1/instances", key=strangers_key).json["data"] == []


def test_nothing_of_all_this_was_logged_as_a_bug(up: Platform) -> None:
    """A 500 is written with its traceback; there is none in any service's log."""
    lines = [line for path in (up.data_dir / "logs").glob("*.log") for line in path.read_text().splitlines()]
    told = [json.loads(line) for line in lines if line.startswith("{")]
    assert [line for line in told if line.get("status") == 500 or line["level"] in ("error", "critical")] == []


def test_the_log_of_every_service_keeps_the_key_to_itself(up: Platform) -> None:
    assert [path.name for path in (up.data_dir / "logs").glob("*.log") if up.api_key in path.read_text()] == []


async def _issue(nats_url: str, key: str, account_id: str) -> None:
    wish = IssueKey(
        now=SystemClock().now(),
        key_id=unique("key").replace("-", "_"),
        account_id=account_id,
        name="a stranger",
        **asdict(fingerprint(key)),
    )
    client = await nats.connect(nats_url, allow_reconnect=False)
    try:
        request = Request(Meta(request_id=unique("req"), deadline=time.time() + ISSUE_MAX_S), msgspec.Raw(encode(wish)))
        answer = await client.request("cmd.gateway.issue_key", encode(request), timeout=ISSUE_MAX_S)
        assert json.loads(answer.data).get("refused") is None, answer.data
    finally:
        await client.close()
