"""Routes: what one is, and how a request finds its own. The table itself is `routes.py`.

Used by the dialects (which list theirs), the pipeline (`Router`) and the OpenAPI document. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

from libs.refusal import Refused
from services.gateway.call import Answer, Call
from services.gateway.dialects import Dialect
from services.gateway.validation import refuse

# Classes of contract novita A1 and dumont 0; what each allows is decided by plan, elsewhere.
LimitClass = Literal["create", "read", "write", "agent", "unlimited"]
Handler: TypeAlias = Callable[[Call], Awaitable[Answer]]

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # one NATS subject token; contract novita A1
NAME = re.compile(r"[^\x00-\x1f/]{1,100}")
MONTH = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])")
# Path parameters that are not ids.
PARAMETERS: Mapping[str, re.Pattern[str]] = {"gpu": NAME, "month": MONTH}
PATH_CHARS_MAX = 2048  # the longest route with the longest ids is under 400


class Empty(Struct, frozen=True):
    """A body or query without fields of its own; what else is sent is ignored."""


@dataclass(frozen=True)
class Route:
    """`reply` is what a success carries; `renames` go before the dialect's own. `example`: a body, for the reader."""

    method: str
    path: str
    dialect: Dialect
    scope: str
    limits: LimitClass
    handle: Handler
    summary: str
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    reply: Any = None
    statuses: Sequence[int] = (200,)
    has_meta: bool = False
    renames: Mapping[str, str] = field(default_factory=dict[str, str])
    example: Mapping[str, Any] | None = None
    media: str = "application/json"  # of a success; anything else is text of its own shape

    @cached_property
    def parameters(self) -> Sequence[tuple[str, re.Pattern[str]]]:
        """Names in the path, in order, each with what its value must look like."""
        names = [part[1:-1] for part in self.path.split("/") if part.startswith("{")]
        return [(name, PARAMETERS.get(name, ID)) for name in names]


class _Node:
    """One segment of the tree of paths."""

    __slots__ = ("any", "methods", "static")

    def __init__(self) -> None:
        self.static: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.methods: dict[str, Route] = {}


class Router:
    """Finds the route of a request: one dict lookup per segment, fixed segments before parameters."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root = _Node()
        for route in routes:
            node = self._root
            for part in route.path.split("/")[1:]:
                node = self._step(node, part)
            if route.method in node.methods:
                raise ValueError(f"{route.method} {route.path} is in the table twice")
            node.methods[route.method] = route

    def methods(self, path: str) -> tuple[Mapping[str, Route], list[str]]:
        """What the path allows (empty when there is no such path) and its raw parameter values."""
        if len(path) > PATH_CHARS_MAX:
            return {}, []
        node, values = self._root, list[str]()
        for part in path.split("/")[1:]:
            found = node.static.get(part)
            if found is None:
                found = node.any
                if found is None or not part:
                    return {}, []
                values.append(part)
            node = found
        return node.methods, values

    @staticmethod
    def _step(node: _Node, part: str) -> _Node:
        if part.startswith("{"):
            node.any = node.any or _Node()
            return node.any
        return node.static.setdefault(part, _Node())


def read_path(route: Route, values: Sequence[str]) -> dict[str, str]:
    """Parameters by name, decoded and checked. Raises VALIDATION_ERROR."""
    if not values:
        return {}
    found: dict[str, str] = {}
    for (name, pattern), raw in zip(route.parameters, values, strict=True):
        value = unquote(raw) if "%" in raw else raw
        if not pattern.fullmatch(value):
            refuse(name, f"{name} must match {pattern.pattern}", value)
        found[name] = value
    return found


def route_of(router: Router, method: str, path: str) -> tuple[Route, list[str]]:
    """Raises NOT_FOUND or METHOD_NOT_ALLOWED (with `allow` in its facts)."""
    methods, values = router.methods(path)
    if not methods:
        raise Refused("NOT_FOUND", method=method, path=path[:200])
    route = methods.get("GET" if method == "HEAD" else method)
    if route is None:
        raise Refused("METHOD_NOT_ALLOWED", method=method, path=path[:200], allow=allowed(methods))
    return route, values


def allowed(methods: Mapping[str, Route]) -> str:
    """For the Allow header."""
    also = ["OPTIONS", "HEAD"] if "GET" in methods else ["OPTIONS"]
    return ", ".join(sorted({*methods, *also}))
