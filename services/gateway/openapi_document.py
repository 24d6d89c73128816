"""OpenAPI 3.1, generated from the table of routes and the structs it names.

Called by `/openapi.json` and the contracts generator. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from proto.codes import CODES
from services.gateway.auth import AGENT, ANYONE
from services.gateway.dialects.dumont import Page
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from services.gateway.vitals import VERSION

Json = dict[str, Any]
REF = "#/components/schemas/{name}"
# What any route may answer with besides its own success.
COMMON_FAILURES = (400, 401, 403, 404, 413, 415, 429, 500, 503, 504)


def openapi_document() -> Json:
    """The whole document; equal input gives equal bytes."""
    shapes = [shape for route in ROUTES for shape in (route.body, route.query, route.reply) if shape is not None]
    failures = {route.dialect.name: route.dialect.failure_schema for route in ROUTES}
    schemas, components = msgspec.json.schema_components([*shapes, *failures.values(), Page], ref_template=REF)
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
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(components.items())),
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
        "x-error-codes": {code: _code(code) for code in sorted(CODES)},
    }


_SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "dumont_sk_..."},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "agentToken": {"type": "http", "scheme": "bearer", "description": "dumont_agent_..., given to a machine at boot"},
}


def _told(name: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"}}


_RATE_HEADERS = _told("X-RateLimit-Limit") | _told("X-RateLimit-Remaining") | _told("X-RateLimit-Reset")
_RETRY_HEADER = _told("Retry-After")
_HEADERS: Json = {
    name: {"description": description, "schema": {"type": "integer", "minimum": 0}}
    for name, description in (
        ("X-RateLimit-Limit", "Requests that the tighter window allows."),
        ("X-RateLimit-Remaining", "What is left of them."),
        ("X-RateLimit-Reset", "Unix seconds: when all of them are there again."),
        ("Retry-After", "Seconds after which the request may be sent again."),
    )
}


def _operation(route: Route, of: dict[int, Json], components: Json) -> Json:
    parameters = [_path_parameter(name, pattern.pattern) for name, pattern in route.parameters]
    if route.query is not None:
        parameters += _query_parameters(route.query, components)
    if route.method != "GET":
        parameters.append(_header("Idempotency-Key", "A repeat with the same key is done once."))
    operation: Json = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [route.dialect.name],
        "parameters": parameters,
        "responses": _responses(route, of),
        "x-limit-class": route.limits,
    }
    if route.body is not None and msgspec.structs.fields(route.body):
        operation["requestBody"] = {
            "required": any(field.required for field in msgspec.structs.fields(route.body)),
            "content": {"application/json": {"schema": of[id(route.body)]}},
        }
    if route.scope == ANYONE:
        operation["security"] = []
    elif route.scope == AGENT:
        operation["security"] = [{"agentToken": []}]
    else:
        operation["x-scope"] = route.scope
    return operation


def _responses(route: Route, of: dict[int, Json]) -> Json:
    kind, schema = route.media, {"type": "string"}
    if kind == "application/json":
        kind = "text/plain" if route.reply is str else kind
        schema = route.dialect.success_schema(of[id(route.reply)], route.has_meta)
    responses: Json = {
        str(status): {"description": "Success" if status < 400 else "Not ready", "content": {kind: {"schema": schema}}}
        for status in route.statuses
    }
    failure = {"application/json": {"schema": {"$ref": REF.format(name=route.dialect.failure_schema.__name__)}}}
    for status in COMMON_FAILURES:
        responses.setdefault(str(status), {"description": _names(status), "content": failure})
    for status, response in responses.items():
        response["headers"] = _RATE_HEADERS | (_RETRY_HEADER if status in ("429", "503") else {})
    return responses


def _path_parameter(name: str, pattern: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{pattern}$"}}


def _query_parameters(shape: type[Struct], components: Json) -> Iterable[Json]:
    schema: Json = components[shape.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": described}
        for name, described in schema["properties"].items()
    ]


def _header(name: str, description: str) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": {"type": "string"}}


def _operation_id(route: Route) -> str:
    words = [part.strip("{}") for part in route.path.split("/") if part and part not in ("api", "v1")]
    return "_".join([route.dialect.name, route.method.lower(), *words]).replace("-", "_").replace(".", "_")


def _names(status: int) -> str:
    return " | ".join(sorted(code for code, known in CODES.items() if known.status == status))


def _code(code: str) -> Json:
    known = CODES[code]
    return {"status": known.status, "meaning": known.meaning, "retry": known.retry, "advice": known.advice}
