"""Which events exist, found by reading `proto`: the one list that schemas, catalogue, golden files and tests share."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import types
from typing import Any, get_args

import msgspec
from msgspec import Struct

import proto
from proto.base import Event


class Spoken(Struct, frozen=True):
    """One event type and who says it. `version` is what stored events carry as `v` (1 when absent)."""

    event: type[Event]
    wire_name: str
    service: str
    version: int

    @property
    def is_public(self) -> bool:
        return self.event.public


def events() -> list[Spoken]:
    """Every event, by service and then in the order of its `AnyEvent` union."""
    found: list[Spoken] = []
    for service in event_packages():
        module = importlib.import_module(f"proto.{service}.events")
        found += [_spoken(service, event) for event in _members(module.AnyEvent)]
    return found


def event_packages() -> list[str]:
    """Names of the services whose language has events."""
    return sorted(
        package.name
        for package in pkgutil.iter_modules(proto.__path__)
        if package.ispkg and importlib.util.find_spec(f"proto.{package.name}.events")
    )


def defined(service: str) -> list[type[Event]]:
    """Every event struct written down in a service's module, whether or not its union knows it."""
    module = importlib.import_module(f"proto.{service}.events")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Event) and value.__module__ == module.__name__
    ]


def _spoken(service: str, event: type[Event]) -> Spoken:
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, msgspec.inspect.StructType)
    version = next((_literal(field.type) for field in info.fields if field.name == "v"), 1)
    return Spoken(event=event, wire_name=str(info.tag), service=service, version=version)


def _literal(kind: msgspec.inspect.Type) -> int:
    assert isinstance(kind, msgspec.inspect.LiteralType)
    version = kind.values[0]
    assert isinstance(version, int)
    return version


def _members(union: Any) -> list[type[Event]]:
    if isinstance(union, types.UnionType):
        return [member for part in get_args(union) for member in _members(part)]
    return [union]
