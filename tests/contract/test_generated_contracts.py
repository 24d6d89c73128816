"""The generated contracts are true of what is really stored, complete, and free of dangling references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from services.contracts import language
from services.contracts.golden import golden_path
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from tests.tidy.tree import ROOT

GENERATED = ROOT / "proto" / "generated"
EVENTS = language.events()


def document(name: str) -> dict[str, Any]:
    text = (GENERATED / name).read_text(encoding="utf-8")
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


@pytest.mark.parametrize("spoken", EVENTS, ids=lambda spoken: spoken.wire_name)
def test_a_stored_event_is_valid_by_its_published_schema(spoken: language.Spoken) -> None:
    schema = document("events.schema.json")
    stored = json.loads((ROOT / golden_path(spoken)).read_bytes())
    one = {"$defs": schema["$defs"], "$ref": f"#/$defs/{spoken.event.__name__}"}
    jsonschema.Draft202012Validator(one).validate(stored)


def test_the_schema_knows_every_event() -> None:
    schema = document("events.schema.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {spoken.event.__name__ for spoken in EVENTS} <= set(schema["$defs"])


def test_async_api_lists_the_public_events_and_no_private_one() -> None:
    described = document("asyncapi.yaml")
    assert described["asyncapi"] == "3.0.0"
    assert set(described["channels"]) == {spoken.wire_name for spoken in EVENTS if spoken.is_public}


def test_every_channel_is_a_subject_of_the_public_stream() -> None:
    channels = document("asyncapi.yaml")["channels"]
    assert {channel["address"] for channel in channels.values()} == {f"pub.{{account_id}}.{name}" for name in channels}


@pytest.mark.parametrize("name", sorted(path.name for path in GENERATED.glob("*.*")))
def test_every_reference_leads_somewhere(name: str) -> None:
    whole = document(name)
    dangling = [reference for reference in _references(whole) if not _leads_somewhere(whole, reference)]
    assert not dangling


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _leads_somewhere(whole: Any, reference: str) -> bool:
    place = whole
    for step in reference.removeprefix("#/").split("/"):
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(place, dict) or key not in place:
            return False
        place = place[key]
    return True


def test_http_operations_have_names_of_their_own_and_say_what_they_may_answer() -> None:
    described = document("openapi.json")
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names) == len(ROUTES)
    for one in operations:
        assert one["summary"], one
        assert set(one["tags"]) <= {tag["name"] for tag in described["tags"]}
        refused = {status for status in one["responses"] if status >= "400"}
        assert {"400", "404", "429", "500", "503"} <= refused, one["operationId"]
        schemes = {name for way in one.get("security", described["security"]) for name in way}
        assert schemes <= set(described["components"]["securitySchemes"])


def test_errors_are_listed_in_the_words_of_their_dialect() -> None:
    described = document("openapi.json")
    codes = described["x-error-codes"]
    for name, response in described["components"]["responses"].items():
        for code in filter(None, response["description"].split(" | ")):
            assert codes[code]["advice"], (name, code)
    listed = {name: set(one["description"].split(" | ")) for name, one in described["components"]["responses"].items()}
    assert listed["novita_401"] == {"AUTHENTICATION_ERROR"}
    assert listed["dumont_401"] == {"UNAUTHENTICATED"}
    assert "INSTANCE_NOT_STARTABLE" in listed["novita_400"] - listed["dumont_400"]


EXAMPLES = [route for route in ROUTES if route.example is not None]


@pytest.mark.parametrize("route", EXAMPLES, ids=lambda route: f"{route.method} {route.path}")
def test_an_example_is_what_the_route_takes(route: Route) -> None:
    assert route.body is not None
    msgspec.convert(route.example, route.body)
    described = document("openapi.json")
    operation = described["paths"][route.path][route.method.lower()]
    shown = operation["requestBody"]["content"]["application/json"]
    assert shown["example"] == route.example
    whole = {"components": described["components"], **shown["schema"]}
    jsonschema.Draft202012Validator(whole).validate(shown["example"])
