"""`docs/events.md`: every event with who says it, who hears it, its fields and an example."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import inspect

from services.contracts.golden import golden_path
from services.contracts.language import Spoken

HEAD = """# Events

Written by `just contracts` from `proto/`; edit the structs, not this page.

A *public* event is relayed to the stream `PUB` under `pub.<account>.<wire name>`; teams and webhooks may rely on it
([subscribing](subscribing.md), [AsyncAPI](../proto/generated/asyncapi.yaml)). A *private* one stays in the stream of
its service. Examples are the golden files of `tests/contract/golden`. Fields marked *optional* are left out when they
have their default.
"""


def catalogue(spoken: list[Spoken], root: Path) -> str:
    sections = [HEAD, _contents(spoken)]
    for service in dict.fromkeys(each.service for each in spoken):
        sections.append(f"## Said by {service}\n")
        sections += [_section(each, root) for each in spoken if each.service == service]
    return "\n".join(sections)


def hearers(spoken: Spoken, root: Path) -> list[str]:
    """Services whose policy names the event: reading the policies is how one traces fact to wish."""
    policies = sorted((root / "services").glob("*/policy.py")) + sorted((root / "services").glob("*/policy/*.py"))
    heard_by = {
        policy.relative_to(root / "services").parts[0]
        for policy in policies
        if spoken.event.__name__ in policy.read_text(encoding="utf-8")
    }
    return sorted(heard_by)


def _contents(spoken: list[Spoken]) -> str:
    rows = [
        f"| [`{each.wire_name}`](#{_anchor(each)}) | {each.service} | {_visibility(each)} | {_first_line(each)} |"
        for each in spoken
    ]
    return "\n".join(["| event | said by | | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _section(spoken: Spoken, root: Path) -> str:
    heard = ", ".join(hearers(spoken, root))
    lines = [
        f"### {spoken.wire_name}",
        "",
        _first_line(spoken, whole=True) or "No further meaning than its name.",
        "",
        f"`{spoken.event.__name__}`, {_visibility(spoken)}, version {spoken.version}"
        + (f"; policies of: {heard}" if heard else ""),
        "",
        "| field | type | |",
        "|---|---|---|",
        *_fields(spoken),
        "",
        "```json",
        (root / golden_path(spoken)).read_text(encoding="utf-8").rstrip()
        if (root / golden_path(spoken)).exists()
        else "",
        "```",
        "",
    ]
    return "\n".join(lines)


def _fields(spoken: Spoken) -> list[str]:
    info = inspect.type_info(spoken.event)
    assert isinstance(info, inspect.StructType)
    return [
        f"| `{field.name}` | {_type_text(field.type)} | {'' if field.required else 'optional'} |"
        for field in info.fields
    ]


def _type_text(kind: inspect.Type) -> str:
    match kind:
        case inspect.StructType(cls=cls):
            return f"`{cls.__name__}`"
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.UnionType(types=types):
            return " or ".join(_type_text(each) for each in types)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return f"list of {_type_text(item)}"
        case inspect.DictType(value_type=value):
            return f"map of text to {_type_text(value)}"
        case inspect.NoneType():
            return "null"
        case inspect.StrType():
            return "text"
        case inspect.IntType():
            return "integer"
        case inspect.BoolType():
            return "true or false"
        case inspect.DateTimeType():
            return "instant (RFC 3339 UTC)"
        case _:
            return type(kind).__name__


def _visibility(spoken: Spoken) -> str:
    return "public" if spoken.is_public else "private"


def _anchor(spoken: Spoken) -> str:
    return spoken.wire_name.replace(".", "")


def _first_line(spoken: Spoken, *, whole: bool = False) -> str:
    text = " ".join((spoken.event.__doc__ or "").split())
    return text if whole else text.split(". ")[0].rstrip(".")


def public_without_account(spoken: list[Spoken]) -> list[str]:
    """Public events that a subscriber of one account could never be given, because they do not say whose they are."""
    return [
        each.wire_name
        for each in spoken
        if each.is_public and "account_id" not in {field.name for field in msgspec.structs.fields(each.event)}
    ]
