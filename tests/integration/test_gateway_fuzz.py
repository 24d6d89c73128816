"""Every route with bodies, queries and ids made from its own schema, right and wrong: never a 500, and every answer is
one that /openapi.json announces (`gateway_world` looks). The same requests on every run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, Phase, given, settings

from services.gateway.openapi_document import openapi_document
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from tests.integration.gateway_world import GatewayWorld, running_gateway

DOCUMENT = openapi_document()
REQUESTS_PER_ROUTE = 16
JSON_TYPE = {"Content-Type": "application/json"}
ODD = ["", "0", "-1", "9" * 30, "1e400", "nan", "true", "null", "\u00e9\U0001f600", "a\tb", "%00", "../..", "'; --"]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(ODD), st.text(st.characters(codec="utf-8"), max_size=20),
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
WAITS = {"wait", "wait_s"}  # of no use to a test


def fitting(schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that are valid by a schema, as far as it says."""
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return st.deferred(lambda: fitting(DOCUMENT["components"]["schemas"][name]))
        case {"anyOf": list(choices)}:
            return st.one_of(*(fitting(one) for one in choices))
        case {"enum": list(words)}:
            return st.sampled_from(words)
        case {"type": "string", "pattern": str(pattern)}:
            return st.from_regex(pattern, fullmatch=True)
        case {"type": "string", "format": "date-time"}:
            return st.sampled_from(["2026-11-22T10:00:00Z", "2099-01-01T00:00:00.5+14:00", "2026-11-22T10:00:00"])
        case {"type": "string"}:
            longest = min(schema.get("maxLength", 20), 20)
            return st.text(st.characters(codec="utf-8"), min_size=schema.get("minLength", 0), max_size=longest)
        case {"type": "integer"}:
            return st.integers(schema.get("minimum"), schema.get("maximum"))
        case {"type": "number"}:
            return st.floats(
                schema.get("minimum", 0), schema.get("maximum", 1e6), exclude_min="exclusiveMinimum" in schema
            )
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "null"}:
            return st.none()
        case {"type": "array"}:
            return st.lists(fitting(schema.get("items", {})), min_size=schema.get("minItems", 0), max_size=3)
        case {"type": "object", "properties": dict(properties)}:
            required = {name: fitting(properties[name]) for name in schema.get("required", ())}
            others = {name: fitting(one) for name, one in properties.items() if name not in required}
            return st.fixed_dictionaries(required, optional=others)
        case {"type": "object"}:
            return st.dictionaries(st.text(max_size=5), fitting(schema.get("additionalProperties") or {}), max_size=3)
        case _:
            return ANYTHING


@st.composite
def spoilt(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> Any:
    """One field of it is anything."""
    value = draw(whole)
    if not isinstance(value, dict):
        return draw(ANYTHING)
    name = draw(st.sampled_from([*sorted(value), "nobody_knows_me"]))
    return {**value, name: draw(ANYTHING)}


@st.composite
def requests(draw: st.DrawFn, route: Route, known: str) -> tuple[str, bytes | None]:
    """A target and a body. `known`: an instance that is there."""
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    path, asked = route.path, dict[str, Any]()
    for parameter in (one for one in operation["parameters"] if "name" in one):
        name, value = parameter["name"], draw(fitting(parameter["schema"]) | st.sampled_from(ODD))
        if parameter["in"] == "path":
            path = path.replace(
                f"{{{name}}}", quote(str(draw(st.sampled_from([known, "none", value]))) or "x", safe="")
            )
        elif name not in WAITS and draw(st.booleans()):
            asked[name] = str(value).lower() if isinstance(value, bool) else value
    body: bytes | None = None
    if "requestBody" in operation:
        whole = fitting(operation["requestBody"]["content"]["application/json"]["schema"])
        body = msgspec.json.encode(draw(st.one_of(whole, whole, spoilt(whole), ANYTHING)))
    return path + (f"?{urlencode(asked)}" if asked else ""), body


async def answers(world: GatewayWorld, route: Route, target: str, body: bytes | None) -> int:
    answered = await world.call(route.method, target, data=body, headers=JSON_TYPE if body else {})
    assert answered.status != 500, (target, body, answered.raw)
    if answered.status == 400 and answered.code == "VALIDATION_ERROR":
        assert answered.json["error"]["details"]["reason"], (target, body)
    return answered.status


def test_whatever_is_asked_the_answer_is_documented() -> None:
    seen: dict[int, int] = {}
    with asyncio.Runner() as runner:
        entering = running_gateway()
        world = runner.run(entering.__aenter__())
        try:
            made = runner.run(world.call("POST", "/api/v1/instances", json={"gpu": "RTX 4090"}))
            for route in ROUTES:
                _ask_often(runner, world, route, made.json["data"]["id"], seen)
        finally:
            runner.run(entering.__aexit__(None, None, None))
    assert seen[200] > 300, "most requests that fit a schema are carried out"
    assert seen[400] > 100, "and the spoilt ones are not"
    assert 429 not in seen


def _ask_often(runner: asyncio.Runner, world: GatewayWorld, route: Route, known: str, seen: dict[int, int]) -> None:
    @settings(
        max_examples=REQUESTS_PER_ROUTE, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests(route, known))
    def ask(request: tuple[str, bytes | None]) -> None:
        status = runner.run(answers(world, route, *request))
        seen[status] = seen.get(status, 0) + 1

    ask()
