"""OpenAPI 3.1, generated from the table of routes and the structs it names.

Called by `/openapi.json` and the contracts generator. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from proto.codes import CODES
from services.gateway.auth import AGENT, ANYONE
from services.gateway.dialects import Dialect
from services.gateway.dialects.dumont import Page
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from services.gateway.vitals import VERSION

Json = dict[str, Any]
REF = "#/components/schemas/{name}"
# What any route may answer with besides its own success, and what one that changes something may say as well.
FAILURES = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
FAILURES_OF_A_WISH = (402, 409, 502)
_SPOKEN_BY = {"NOVITA_API_ERROR": "novita"}  # the other dialects never say it
_TAGS: Mapping[str, str] = {
    "dumont": "`/api/v1`: the envelope `{success, data}`, unknown fields are refused, errors in Portuguese unless "
    "Accept-Language says otherwise.",
    "novita": "`/api` and `/health`: bare bodies, unknown fields are ignored. On a developer's own machine no key is "
    "needed.",
    "operations": "For operators and tools. Bytes that are no HTTP request are refused in this form too.",
}
_INTERNAL = re.compile(r"\s*\((?:see )?(?:contract|design|seed)[^)]*\)", re.IGNORECASE)


def openapi_document() -> Json:
    """The whole document; equal input gives equal bytes."""
    shapes = [shape for route in ROUTES for shape in (route.body, route.query, route.reply) if shape is not None]
    dialects = {route.dialect.name: route.dialect for route in ROUTES}
    failures = [dialect.failure_schema for dialect in dialects.values()]
    schemas, components = msgspec.json.schema_components([*shapes, *failures, Page], ref_template=REF)
    of: dict[int, Json] = {id(shape): schema for shape, schema in zip(shapes, schemas, strict=False)}
    paths: Json = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dumont Cloud",
            "version": VERSION,
            "description": "GPU instances that survive losing their GPUs. Errors carry one of the codes under "
            "`x-error-codes`; their texts follow Accept-Language (en, pt-BR).",
        },
        "servers": [{"url": "http://localhost:3000"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items()],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {
                _failure_name(dialect, status): _failure(dialect, status)
                for dialect in dialects.values()
                for status in sorted((*FAILURES, *FAILURES_OF_A_WISH))
            },
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
        "x-error-codes": _codes(dialects.values()),
    }


_SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "dumont_sk_..."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "agentToken": {"type": "http", "scheme": "bearer", "description": "dumont_agent_..., given to a machine at boot"},
}


def _header(description: str, **schema: Any) -> Json:
    return {"description": description, "schema": schema or {"type": "string"}}


_HEADERS: Json = {
    "X-Request-ID": _header("Yours if you sent one, else a fresh one. Quote it when something is wrong."),
    "X-Correlation-ID": _header("Yours if you sent one; goes along with everything that the request sets off."),
    "X-RateLimit-Limit": _header("Requests that the tighter window allows.", type="integer", minimum=0),
    "X-RateLimit-Remaining": _header("What is left of them.", type="integer", minimum=0),
    "X-RateLimit-Reset": _header("Unix seconds: when all of them are there again.", type="integer", minimum=0),
    "Retry-After": _header("Seconds after which the request may be sent again.", type="integer", minimum=0),
    "X-Dumont-Position": _header("Where the change is in the log. Send it with a read that must show the change."),
    "X-Dumont-Stale": _header("`true`: the answer may lack what was changed last.", const="true"),
    "Idempotent-Replayed": _header("`true`: this was done by an earlier request with the same key.", const="true"),
    "Location": _header("The path of what was made."),
    "Content-Language": _header("Of the texts.", enum=["en", "pt-BR"]),
    "WWW-Authenticate": _header("How to say who you are."),
}
_ALWAYS = ("X-Request-ID", "X-Correlation-ID", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_OF_STATUS: Mapping[int, tuple[str, ...]] = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
    504: ("Retry-After",),
}


def _headers(*more: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_ALWAYS, *more)}


def _parameter(name: str, description: str, **schema: Any) -> Json:
    kind = {"type": "string", **schema}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": kind}


_PARAMETERS: Json = {
    "RequestId": _parameter("X-Request-ID", "Letters, digits and `._-`, at most 128; anything else is replaced."),
    "CorrelationId": _parameter("X-Correlation-ID", "The same for a chain of requests."),
    "AcceptLanguage": _parameter("Accept-Language", "Of texts for people: `en` or `pt-BR`."),
    "Position": _parameter(
        "X-Dumont-Position", "From an earlier answer: show what that one changed.", pattern="^[A-Z_]{1,40}:[0-9]{1,18}$"
    ),
    "IdempotencyKey": _parameter(
        "Idempotency-Key", "A repeat with the same key is done once.", pattern="^[\\x21-\\x7e]{1,255}$"
    ),
    "LastEventId": _parameter("Last-Event-ID", "Of the last event that you have: the stream goes on after it."),
}


def _operation(route: Route, of: dict[int, Json], components: Json) -> Json:
    named = [_path_parameter(name, pattern.pattern) for name, pattern in route.parameters]
    if route.query is not None:
        named += _query_parameters(route.query, components)
    shared = ["RequestId", "CorrelationId", "AcceptLanguage"]
    if route.method != "GET":
        shared.append("IdempotencyKey")
    elif route.scope != ANYONE:
        shared.append("Position")
    if route.media == "text/event-stream":
        shared.append("LastEventId")
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.dialect.name],
        "parameters": [*named, *({"$ref": f"#/components/parameters/{name}"} for name in shared)],
        "responses": _responses(route, of),
        "x-limit-class": route.limits,
    }
    if description := _description(route):
        operation["description"] = description
    if route.body is not None and msgspec.structs.fields(route.body):
        content: Json = {"schema": of[id(route.body)]}
        if route.example is not None:
            content["example"] = dict(route.example)
        operation["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(route.body)),
            "content": {"application/json": content},
        }
    if route.scope == ANYONE:
        operation["security"] = []
    elif route.scope == AGENT:
        operation["security"] = [{"agentToken": []}]
    else:
        operation["x-scope"] = route.scope
        if route.dialect.open_on_loopback:
            operation["security"] = [{"bearer": []}, {"apiKey": []}, {}]
    return operation


def _description(route: Route) -> str:
    """What the handler says of itself, and the query of its parameters."""
    told = [route.handle.__doc__, None if route.query is None else route.query.__doc__]
    return _INTERNAL.sub("", " ".join(" ".join(text.split()) for text in told if text))


def _responses(route: Route, of: dict[int, Json]) -> Json:
    schema: Json = {"type": "string"}
    kind = route.media
    if kind == "application/json":
        kind = "text/plain" if route.reply is str else kind
        schema = route.dialect.success_schema(of[id(route.reply)], route.has_meta)
    responses: Json = {
        str(status): {
            "description": "Success" if status < 400 else "Not ready",
            "headers": _headers(*_headers_of_a_success(route, status)),
            "content": {kind: {"schema": schema}},
        }
        for status in route.statuses
    }
    for status in sorted(_failures_of(route)):
        reference = {"$ref": f"#/components/responses/{_failure_name(route.dialect, status)}"}
        responses.setdefault(str(status), reference)
    return responses


def _failures_of(route: Route) -> Sequence[int]:
    if route.method != "GET":
        return (*FAILURES, *FAILURES_OF_A_WISH)
    return [status for status in FAILURES if route.scope != ANYONE or status not in (401, 403)]


def _headers_of_a_success(route: Route, status: int) -> Sequence[str]:
    if route.method == "GET":
        return ("X-Dumont-Stale",)
    return ("X-Dumont-Position", "Idempotent-Replayed", *(("Location",) if status == 201 else ()))


def _failure(dialect: Dialect, status: int) -> Json:
    schema = {"$ref": REF.format(name=dialect.failure_schema.__name__)}
    return {
        "description": _names(dialect, status),
        "headers": _headers("Content-Language", *_OF_STATUS.get(status, ())),
        "content": {"application/json": {"schema": schema}},
    }


def _failure_name(dialect: Dialect, status: int) -> str:
    return f"{dialect.name}_{status}"


def _names(dialect: Dialect, status: int) -> str:
    """The codes of a status as the dialect spells them."""
    said = (code for code in CODES if _SPOKEN_BY.get(code, dialect.name) == dialect.name)
    shown = {dialect.renames.get(code, code): code for code in said}
    return " | ".join(sorted(name for name, code in shown.items() if CODES.get(name, CODES[code]).status == status))


def _codes(dialects: Iterable[Dialect]) -> Json:
    """Ours, and what a dialect calls them that has a name of its own."""
    own = {name: code for dialect in dialects for code, name in dialect.renames.items() if name not in CODES}
    return {name: _code(own.get(name, name)) for name in sorted((*CODES, *own))}


def _path_parameter(name: str, pattern: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{pattern}$"}}


def _query_parameters(shape: type[Struct], components: Json) -> Iterable[Json]:
    schema: Json = components[shape.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": described}
        for name, described in schema["properties"].items()
    ]


def _operation_id(route: Route) -> str:
    words = [part.strip("{}") for part in route.path.split("/") if part and part not in ("api", "v1")]
    return "_".join([route.dialect.name, route.method.lower(), *words]).replace("-", "_").replace(".", "_")


def _code(code: str) -> Json:
    known = CODES[code]
    return {"status": known.status, "meaning": known.meaning, "retry": known.retry, "advice": known.advice}
