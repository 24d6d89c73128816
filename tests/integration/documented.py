"""Whether an answer is one that /openapi.json announces: its status, headers, media type and every field of its body.

Used by `gateway_world`, so that every answer in every test of the gateway is held against the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema
import msgspec
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from services.gateway.openapi_document import openapi_document
from services.gateway.routes import ROUTES
from services.gateway.routing import Router

HERE = "urn:openapi"
ALWAYS = ("X-Request-ID", "X-Correlation-ID", "X-Content-Type-Options", "Access-Control-Allow-Origin")


@cache
def document() -> dict[str, Any]:
    return openapi_document()


@cache
def _router() -> Router:
    return Router(ROUTES)


def assert_documented(method: str, path: str, status: int, headers: Mapping[str, str], raw: bytes) -> None:
    """Of answers to GET, POST, PUT and DELETE on known paths; the others have no place in the document."""
    for name in ALWAYS:
        assert headers.get(name), f"{method} {path}: {status} without {name}"
    methods, _ = _router().methods(path.partition("?")[0])
    route = methods.get(method)
    if route is None:
        return
    operation = document()["paths"][route.path][method.lower()]
    said = f"{method} {route.path}: {status}"
    assert str(status) in operation["responses"], f"{said} is not documented"
    pointer, response = _response(route.path, method, status)
    for name in response["headers"]:
        is_sometimes = not name.startswith("X-RateLimit-") and name not in ("Content-Language", "WWW-Authenticate")
        assert is_sometimes or name in headers, f"{said} without {name}"
    kind = headers["Content-Type"].partition(";")[0]
    assert kind in response["content"], f"{said} says {kind}"
    if kind == "application/json" and raw:
        body = msgspec.json.decode(raw)
        problem = jsonschema.exceptions.best_match(
            _validator(f"{pointer}/content/application~1json/schema").iter_errors(body)
        )
        assert problem is None, f"{said} is not as documented: {problem.message} at {problem.json_path}"


def _response(path: str, method: str, status: int) -> tuple[str, Any]:
    escaped = path.replace("~", "~0").replace("/", "~1").replace("{", "%7B").replace("}", "%7D")
    found = document()["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in found:
        name = found["$ref"].rpartition("/")[2]
        return f"/components/responses/{name}", document()["components"]["responses"][name]
    return f"/paths/{escaped}/{method.lower()}/responses/{status}", found


@cache
def _validator(pointer: str) -> Any:
    registry = Registry().with_resource(HERE, DRAFT202012.create_resource(document()))
    return jsonschema.Draft202012Validator({"$ref": f"{HERE}#{pointer}"}, registry=registry)
