"""JSON Schema of every event and AsyncAPI 3.0 of the public ones, made from the structs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import yaml

from services.contracts.language import Spoken

CLOUD_EVENT_HEADERS = {
    "ce-id": "Identity of the fact; the same on every delivery. Use it to drop repeats.",
    "ce-type": "Wire name, as in the payload's `type`.",
    "ce-source": "The service that says it.",
    "ce-subject": "The thing it is about.",
    "ce-time": "When it happened, RFC 3339 UTC.",
    "traceparent": "W3C trace context of what caused it, when sampled.",
}


def json_schema(spoken: list[Spoken]) -> str:
    """`$defs` holds every event and shape by struct name; the document accepts any event, told apart by `type`."""
    references, components = _schemas(spoken, "#/$defs/{name}")
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events of the Dumont Cloud platform",
        "description": "Public events are those listed in asyncapi.yaml; the others stay inside their service.",
        "oneOf": references,
        "$defs": components,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def async_api(spoken: list[Spoken], version: str) -> str:
    """What a subscriber of the PUB stream may rely on. `send` is the platform's side of it."""
    public = [each for each in spoken if each.is_public]
    _, components = _schemas(public, "#/components/schemas/{name}")
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Dumont Cloud events",
            "version": version,
            "description": "One NATS message per public event, CloudEvents 1.0 in binary mode: attributes are headers,"
            " the fact is the JSON body. Stream PUB keeps them; docs/subscribing.md shows how to read and resume.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "`./dumont up` prints the URL"}
        },
        "channels": {each.wire_name: _channel(each) for each in public},
        "operations": {f"say {each.wire_name}": _operation(each) for each in public},
        "components": {
            "messages": {each.wire_name: _message(each) for each in public},
            "schemas": components,
            "messageTraits": {"cloudEvent": {"headers": _headers()}},
        },
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def _schemas(spoken: list[Spoken], template: str) -> tuple[Any, dict[str, Any]]:
    return msgspec.json.schema_components([each.event for each in spoken], ref_template=template)


def _channel(spoken: Spoken) -> dict[str, Any]:
    return {
        "address": f"pub.{{account_id}}.{spoken.wire_name}",
        "parameters": {"account_id": {"description": "The account it concerns, e.g. `acct_7`; `*` hears all of them."}},
        "messages": {spoken.wire_name: {"$ref": f"#/components/messages/{spoken.wire_name}"}},
    }


def _operation(spoken: Spoken) -> dict[str, Any]:
    return {"action": "send", "channel": {"$ref": f"#/channels/{spoken.wire_name}"}}


def _message(spoken: Spoken) -> dict[str, Any]:
    return {
        "name": spoken.wire_name,
        "title": spoken.event.__name__,
        "summary": (spoken.event.__doc__ or "").strip(),
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
        "payload": {"$ref": f"#/components/schemas/{spoken.event.__name__}"},
    }


def _headers() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in CLOUD_EVENT_HEADERS.items()},
    }
