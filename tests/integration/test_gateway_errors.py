"""No request, however wrong, is answered with 500; every error is the documented one, in the words of its dialect."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from proto.codes import CODES
from services.gateway.auth import AGENT
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from tests.integration.gateway_world import (
    DUMONT,
    KEY,
    NOVITA,
    OTHER_ACCOUNT,
    READER_KEY,
    GatewayWorld,
    issue,
    running_gateway,
)

ELEVEN_MB = b'{"name":"' + b"x" * (11 * 1024 * 1024) + b'"}'
PARAMETERS = {"gpu": "RTX_4090", "provider": "sandbox", "machine_id": "12345", "id": "inst_none"}


@pytest_asyncio.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    async with running_gateway() as found:
        yield found


def target(route: Route, id_: str) -> str:
    path = route.path
    for name, _ in route.parameters:
        value = PARAMETERS.get(name, id_) if name in ("gpu", "provider", "machine_id") else id_
        path = path.replace(f"{{{name}}}", value)
    return path


def shape_is_right(dialect: str, body: dict[str, Any], request_id: str) -> bool:
    error = body["error"]
    if dialect == "novita":
        return "success" not in body and error["message"] and error["requestId"] == request_id and error["timestamp"]
    return body["success"] is False and error["message"] and error["request_id"] == request_id


JSON_TYPE = {"Content-Type": "application/json"}
WITH_BODY = [route for route in ROUTES if route.body is not None]
BAD_BODIES: list[tuple[str, bytes, int, str]] = [
    ("bad JSON", b'{"name": ', 400, "VALIDATION_ERROR"),
    ("not an object", b"[1, 2]", 400, "VALIDATION_ERROR"),
    ("not UTF-8", b'{"name": "\xff\xfe"}', 400, "VALIDATION_ERROR"),
    ("nested too deeply", b'{"a":' * 5000 + b"1" + b"}" * 5000, 400, "VALIDATION_ERROR"),
    ("a NUL", b'{"name": "a\\u0000b"}', 400, "VALIDATION_ERROR"),
    ("11 MB", ELEVEN_MB, 413, "PAYLOAD_TOO_LARGE"),
]


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: f"{route.method} {route.path}")
async def test_every_body_that_cannot_be_read_is_refused(world: GatewayWorld, route: Route) -> None:
    for what, raw, status, code in BAD_BODIES:
        refused = await world.call(route.method, target(route, "inst_none"), data=io.BytesIO(raw), headers=JSON_TYPE)
        assert (refused.status, refused.code) == (status, code), what
        assert shape_is_right(route.dialect.name, refused.json, refused.headers["X-Request-ID"]), what


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_no_route_answers_500_to_nonsense(world: GatewayWorld, route: Route) -> None:
    nonsense: list[dict[str, Any]] = [
        {},
        {"params": {"limit": "x", "status": "nonsense", "offset": "-1", "wait": "nan", "max_price": "inf"}},
        {"params": {"limit": "9" * 30, "q": "\u00e9", "hours": "0", "statusModel": "odd"}},
        {"json": {"name": 7, "gpu": [], "instance_id": {}, "instanceName": None, "minutes": "1", "scopes": [3]}},
        {"headers": {"Idempotency-Key": "k" * 300}},
        {"headers": {"X-Dumont-Position": "nowhere"}},
        {"headers": {"X-Request-ID": "bad id", "Accept-Language": ";;q=,pt;q=z,en"}},
    ]
    for more in nonsense:
        answered = await world.call(route.method, target(route, "inst_none"), **more)
        assert answered.status < 500 or (answered.status == 503 and route.path in ("/health", "/readyz")), more
        if answered.status >= 400 and route.path not in ("/health", "/readyz"):
            assert answered.code in CODES or answered.code in route.dialect.renames.values(), more
            assert CODES[answered.code].status == answered.status if answered.code in CODES else True


WITH_ID = [route for route in ROUTES if any(name in ("id", "instanceId") for name, _ in route.parameters)]


@pytest.mark.parametrize("route", WITH_ID, ids=lambda route: f"{route.method} {route.path}")
async def test_unknown_ids_are_404_and_malformed_ones_400(world: GatewayWorld, route: Route) -> None:
    codes = {"api-keys": "API_KEY_NOT_FOUND", "webhooks": "WEBHOOK_NOT_FOUND", "failovers": "FAILOVER_NOT_FOUND"}
    code = codes.get(route.path.split("/")[3] if route.path.startswith("/api/v1/") else "", "INSTANCE_NOT_FOUND")
    unknown = await world.call(route.method, target(route, "inst_none"))
    assert (unknown.status, unknown.code) == (404, code)
    for bad in ("inst%2F1", "inst.1", "inst%20x", "%00", "i" * 129, "%ff", "*", "%3E"):
        refused = await world.call(route.method, target(route, bad))
        assert (refused.status, refused.code) == (400, "VALIDATION_ERROR"), bad


NOVITA_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"name": "n" * 101}, "name"),
    ({"name": ""}, "name"),
    ({"name": "two words"}, "name"),
    ({"name": 5}, "name"),
    ({"productName": None}, "productName"),
    ({"templateId": 212}, "templateId"),
    ({"gpuNum": 9}, "gpuNum"),
    ({"gpuNum": 1.5}, "gpuNum"),
    ({"gpuNum": "1"}, "gpuNum"),
    ({"rootfsSize": 19}, "rootfsSize"),
    ({"rootfsSize": 1e400}, "body"),
    ({"region": "MARS-01"}, "region"),
    ({"webhookUrl": "ftp://x"}, "webhookUrl"),
    ({"webhookUrl": "http://"}, "webhookUrl"),
    ({"billingMode": "monthly"}, "billingMode"),
]


@pytest.mark.parametrize(("change", "field"), NOVITA_FIELDS, ids=lambda value: str(value)[:40])
async def test_each_wrong_field_of_a_novita_create_is_named(
    world: GatewayWorld, change: dict[str, Any], field: str
) -> None:
    refused = await world.call("POST", "/api/instances", key=None, json={**NOVITA, **change})
    assert (refused.status, refused.code) == (400, "VALIDATION_ERROR")
    assert refused.json["error"]["details"]["field"] == field
    assert refused.json["error"]["details"]["reason"]


async def test_all_problems_are_told_at_once_and_the_first_as_seed_001_does(world: GatewayWorld) -> None:
    refused = await world.call("POST", "/api/instances", key=None, json={"gpuNum": 0, "region": "x"})

    error = refused.json["error"]
    assert (error["details"]["field"], error["details"]["reason"]) == ("name", "Name is required")
    named = {problem["field"]: problem["message"] for problem in error["validationErrors"]}
    assert named["productName"] == "Product name is required"
    assert set(named) == {"name", "productName", "templateId", "gpuNum", "region"}
    assert named["region"].startswith("Region must be one of CN-HK-01")
    headers = {"Accept-Language": "pt-BR"}
    told = await world.call("POST", "/api/instances", key=None, json={"gpuNum": 0, "region": "x"}, headers=headers)
    assert told.json["error"]["message"] == "Parâmetros inválidos: name é obrigatório"
    problems = {problem["field"]: problem["message"] for problem in told.json["error"]["validationErrors"]}
    assert problems["gpuNum"] == "gpuNum deve ser um inteiro >= 1"
    assert set(problems) == set(named)


@pytest.mark.parametrize(
    "query", ["status=nonsense", "limit=0", "limit=101", "limit=abc", "offset=-1", "limit=1.5", "statusModel=x"]
)
async def test_a_bad_filter_is_400_in_both_dialects(world: GatewayWorld, query: str) -> None:
    novita = await world.call("GET", f"/api/instances?{query}")
    assert (novita.status, novita.code) == (400, "VALIDATION_ERROR")
    assert novita.json["error"]["details"]["field"] == query.split("=", maxsplit=1)[0]
    dumont = await world.call("GET", f"/api/v1/instances?{query}")
    assert (dumont.status, dumont.code) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "query", ["max_price=nan", "min_reliability=inf", "num_gpus=9", "machine_type=x", "region=a%00b"]
)
async def test_a_bad_market_filter_is_400(world: GatewayWorld, query: str) -> None:
    refused = await world.call("GET", f"/api/v1/offers?{query}")
    assert (refused.status, refused.code) == (400, "VALIDATION_ERROR")


async def test_unknown_fields_are_refused_in_dumont_and_ignored_in_novita(world: GatewayWorld) -> None:
    refused = await world.call("POST", "/api/v1/instances", json={**DUMONT, "disk_gb": 5})
    assert (refused.status, refused.json["error"]["details"]["field"]) == (400, "disk_gb")
    assert (await world.call("POST", "/api/instances", json={**NOVITA, "disk_gb": 5})).status == 201


async def test_a_whole_number_is_an_integer_however_it_is_written(world: GatewayWorld) -> None:
    body = b'{"gpu": "RTX 4090", "disk_size": 1.5e2, "num_gpus": 2.0, "max_price": 4, "ports": [8080.0]}'
    created = await world.call("POST", "/api/v1/instances", data=body, headers=JSON_TYPE)
    assert (created.status, created.json["data"]["disk_size"], created.json["data"]["num_gpus"]) == (201, 150, 2)
    refused = await world.call("POST", "/api/v1/instances", data=body.replace(b"2.0", b"2.5"), headers=JSON_TYPE)
    assert refused.json["error"]["details"]["errors"] == [
        {"field": "num_gpus", "reason": "num_gpus deve ser um inteiro, não um número", "value": 2.5}
    ]


async def test_gpu_and_offer_exclude_each_other(world: GatewayWorld) -> None:
    both = await world.call("POST", "/api/v1/instances", json={**DUMONT, "offer_id": "offer-1"})
    none = await world.call("POST", "/api/v1/instances", json={})
    assert (both.status, none.status) == (400, 400)


async def test_unknown_products_and_templates(world: GatewayWorld) -> None:
    product = await world.call("POST", "/api/instances", json={**NOVITA, "productName": "RTX 9999"})
    template = await world.call("POST", "/api/instances", json={**NOVITA, "templateId": "no-such"})
    assert (product.status, product.code) == (404, "PRODUCT_NOT_FOUND")
    assert (template.status, template.code) == (404, "TEMPLATE_NOT_FOUND")
    for known in ("template-123", "212"):
        assert (await world.call("POST", "/api/instances", json={**NOVITA, "templateId": known})).status == 201


# --- who asks -------------------------------------------------------------------------------------------------------


async def test_unknown_missing_and_revoked_keys_are_401(world: GatewayWorld) -> None:
    for key in (None, "dumont_sk_" + "z" * 43, "nonsense"):
        refused = await world.call("GET", "/api/v1/instances", key=key)
        assert (refused.status, refused.code) == (401, "UNAUTHENTICATED")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    wrong = await world.call("GET", "/api/instances", key="dumont_sk_" + "z" * 43)
    assert (wrong.status, wrong.code) == (401, "AUTHENTICATION_ERROR")


async def test_both_places_for_a_key(world: GatewayWorld) -> None:
    assert (await world.call("GET", "/api/v1/instances", key=None, headers={"X-API-Key": KEY})).status == 200
    assert (
        await world.call("GET", "/api/v1/instances", key=None, headers={"Authorization": f"bearer {KEY}"})
    ).status == 200


async def test_a_key_is_shown_once_works_at_once_and_is_refused_once_revoked(world: GatewayWorld) -> None:
    issued = await world.call("POST", "/api/v1/api-keys", json={"name": "ci", "scopes": ["instances:read"]})
    assert issued.status == 201
    key, key_id = issued.json["data"]["key"], issued.json["data"]["id"]
    assert (await world.call("GET", "/api/v1/instances", key=key)).status == 200
    denied = await world.call("POST", "/api/v1/instances", key=key, json=DUMONT)
    assert (denied.status, denied.code) == (403, "INSUFFICIENT_SCOPE")
    listed = await world.call("GET", "/api/v1/api-keys")
    assert key.encode() not in listed.raw
    assert {one["id"] for one in listed.json["data"]} == {"key_k", "key_r", key_id}

    assert (await world.call("DELETE", f"/api/v1/api-keys/{key_id}")).status == 200
    assert (await world.call("GET", "/api/v1/instances", key=key)).status == 401
    assert (await world.call("DELETE", f"/api/v1/api-keys/{key_id}")).status == 200


async def test_no_key_can_issue_more_than_it_may(world: GatewayWorld) -> None:
    await issue(world, "dumont_sk_" + "w" * 43, OTHER_ACCOUNT, scopes=("keys:write",))
    more = await world.call("POST", "/api/v1/api-keys", key="dumont_sk_" + "w" * 43, json={"name": "x"})
    assert (more.status, more.code) == (403, "INSUFFICIENT_SCOPE")
    same = {"name": "x", "scopes": ["keys:write"], "expires_in_days": 1}
    assert (await world.call("POST", "/api/v1/api-keys", key="dumont_sk_" + "w" * 43, json=same)).status == 201


async def test_outside_a_developers_loopback_everything_needs_a_key() -> None:
    async with running_gateway(mode="production") as world:
        open_paths = {"/livez", "/readyz", "/health", "/openapi.json"}
        for route in ROUTES:
            answered = await world.call(route.method, target(route, "inst_none"), key=None)
            is_agents = route.scope == AGENT  # its token is checked against the instance that the body names
            assert (answered.status == 401) == (route.path not in open_paths and not is_agents), route
        assert (await world.call("GET", "/api/instances", key=READER_KEY)).status == 200


# --- paths, methods, languages, ids ---------------------------------------------------------------------------------


async def test_unknown_paths_and_methods(world: GatewayWorld) -> None:
    for path in (
        "/api/v1/nothing",
        "/api/nothing",
        "/nothing",
        "/",
        "/api/v1/instances/",
        "/api//instances",
        "/a" * 2000,
    ):
        refused = await world.call("GET", path)
        assert (refused.status, refused.code) == (404, "NOT_FOUND"), path
    put = await world.call("PUT", "/api/v1/instances")
    assert (put.status, put.code, put.headers["Allow"]) == (405, "METHOD_NOT_ALLOWED", "GET, HEAD, OPTIONS, POST")
    assert (await world.call("PATCH", "/api/instances/inst_1")).status == 405


async def test_preflight_and_headers(world: GatewayWorld) -> None:
    preflight = await world.call("OPTIONS", "/api/instances", key=None)
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    head = await world.call("HEAD", "/api/v1/instances")
    assert (head.status, head.raw) == (200, b"")
    got = await world.call(
        "GET", "/api/instances", headers={"X-Request-ID": "req_1_0.25", "X-Correlation-ID": "corr_9"}
    )
    assert (got.headers["X-Request-ID"], got.headers["X-Correlation-ID"]) == ("req_1_0.25", "corr_9")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Server"] == "dumont"
    forged = await world.call("GET", "/api/instances", headers={"X-Request-ID": "a b"})
    assert forged.headers["X-Request-ID"].startswith("req_")


async def test_form_bodies_are_415(world: GatewayWorld) -> None:
    refused = await world.call("POST", "/api/v1/instances", data={"gpu": "RTX 4090"})
    assert (refused.status, refused.code) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("en", "Instance not found: inst_none"),
        ("pt-BR,pt;q=0.9", "Máquina não encontrada: inst_none"),
        ("de, en;q=0.8, pt;q=0.5", "Instance not found: inst_none"),
        ("*", "Máquina não encontrada: inst_none"),
    ],
)
async def test_texts_follow_the_callers_language(world: GatewayWorld, accept: str, message: str) -> None:
    refused = await world.call("GET", "/api/v1/instances/inst_none", headers={"Accept-Language": accept})
    assert refused.json["error"]["message"] == message


# --- idempotency ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "body", "other"), [
    ("/api/instances", NOVITA, {**NOVITA, "gpuNum": 2}),
    ("/api/v1/instances", DUMONT, {**DUMONT, "disk_size": 50}),
])  # fmt: skip
async def test_one_idempotency_key_is_one_instance(
    world: GatewayWorld, path: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    key = {"Idempotency-Key": "once-1"}
    first = await world.call("POST", path, json=body, headers=key)
    repeat = await world.call("POST", path, json=dict(reversed(body.items())), headers=key)
    conflict = await world.call("POST", path, json=other, headers=key)

    assert (first.status, repeat.status) == (201, 201)
    assert "Idempotent-Replayed" not in first.headers
    assert repeat.headers["Idempotent-Replayed"] == "true"
    assert len(world.owner.views) == 1
    assert first.headers["Location"] == repeat.headers["Location"]
    assert (conflict.status, conflict.code) == (409, "IDEMPOTENCY_CONFLICT")


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "\u00e9", "two words"])
async def test_an_idempotency_key_that_is_none_is_refused_rather_than_ignored(world: GatewayWorld, key: str) -> None:
    for path, body in (("/api/instances", NOVITA), ("/api/v1/instances", DUMONT)):
        refused = await world.call("POST", path, json=body, headers={"Idempotency-Key": key})
        assert (refused.status, refused.code) == (400, "VALIDATION_ERROR")
        assert refused.json["error"]["details"]["field"] == "Idempotency-Key"
    assert not world.owner.views


# --- operations -----------------------------------------------------------------------------------------------------


async def test_readyz_metrics_and_openapi(world: GatewayWorld) -> None:
    ready = await world.call("GET", "/readyz", key=None)
    assert (ready.status, ready.json) == (200, {"ready": True, "reasons": []})
    await world.call("GET", "/api/instances")
    text = (await world.call("GET", "/metrics", key=None)).raw.decode()
    assert 'dumont_http_requests_total{service="gateway",dialect="novita",method="GET",route="/api/instances"' in text
    assert 'dumont_up{service="instance"} 1' in text
    document = (await world.call("GET", "/openapi.json", key=None)).json
    assert document["openapi"] == "3.1.0"
    assert {(route.path, route.method.lower()) for route in ROUTES} == {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }


async def test_a_stop_lets_requests_in_flight_finish_and_takes_no_new_ones(world: GatewayWorld) -> None:
    world.owner.waits_for = asyncio.Event()
    reading = asyncio.create_task(world.call("GET", "/api/v1/instances"))
    await world.owner.waiting.wait()
    world.stop.set()
    async with asyncio.timeout(5):
        while True:
            try:
                async with aiohttp.ClientSession() as stranger, stranger.get(f"{world.url}/livez"):
                    await asyncio.sleep(0.01)
            except aiohttp.ClientConnectionError:
                break
    world.owner.waits_for.set()
    assert (await reading).status == 200


async def test_endpoints_are_shown_only_while_a_machine_answers_there(world: GatewayWorld) -> None:
    instance_id = (await world.call("POST", "/api/v1/instances", json=DUMONT)).json["data"]["id"]
    for status, is_shown in (("ready", True), ("stopped", False), ("deleted", False)):
        world.owner.becomes(instance_id, status)
        dumont = (await world.call("GET", f"/api/v1/instances/{instance_id}")).json["data"]
        novita = (await world.call("GET", f"/api/instances/{instance_id}")).json
        assert bool(dumont["ssh_port"]) == bool(novita["connectionDetails"]) == is_shown
