"""The generated contracts are true of what is really stored, complete, and free of dangling references."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from services.contracts import language
from services.contracts.golden import golden_path
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
