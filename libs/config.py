"""Configuration: one frozen struct per service, read from the environment, checked at start, documented in place.

Called by every composition root (`read(Struct)`), by the supervisor (which sets what children read) and by the
generator of `deploy/env.md` (`describe(Struct)`). Owns the only reads of `os.environ` and the rule that secrets never
show in a repr.

A field is declared with `setting(...)`, which carries unit, reason and example; its variable is `DUMONT_<FIELD>` in
capitals unless `env` says otherwise. Everything wrong with an environment is reported in one error, not one by one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

PREFIX = "DUMONT_"
REDACTED = "***"

S = TypeVar("S", bound=Struct)


class Secret:
    """Text that must not be printed: repr and str give `***`, `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Secret({REDACTED})"

    def __str__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


class ConfigError(Exception):
    """The environment cannot be used. `problems` are sentences for the operator; values of secrets are not in them."""

    def __init__(self, owner: str, problems: Sequence[str]) -> None:
        super().__init__(f"{owner} cannot start:\n" + "\n".join(f"  - {problem}" for problem in problems))
        self.problems = list(problems)


class Setting(Struct, frozen=True):
    """One line of `deploy/env.md`."""

    env: str
    type_name: str
    default: str
    unit: str
    reason: str
    example: str
    is_secret: bool


def setting(reason: str, *, unit: str = "", example: str = "", env: str = "", **limits: Any) -> Any:
    """Metadata of a field: `port: Annotated[int, setting("…", unit="port", ge=0, le=65535)] = 3000`.

    `limits` are msgspec constraints (ge, le, gt, min_length, max_length, pattern).
    """
    return Meta(description=reason, extra={"unit": unit, "example": example, "env": env}, **limits)


def read(struct: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Build `struct` from the environment. Raises ConfigError naming every variable that is missing or wrong."""
    values = os.environ if environ is None else environ
    raw: dict[str, str] = {}
    problems: list[str] = []
    for field, line in _fields(struct):
        text = values.get(line.env, "")
        if text != "":
            raw[field.name] = text
            problems += _problem_of(field, line, text)
        elif field.required:
            problems.append(f"{line.env} is not set: {line.reason}" + _example(line))
    if problems:
        raise ConfigError(struct.__name__, problems)
    return msgspec.convert(raw, struct, strict=False, dec_hook=_decode)


def describe(struct: type[Struct]) -> list[Setting]:
    """The documentation rows of a config struct, in the order of declaration."""
    return [line for _, line in _fields(struct)]


def environment(config: Struct) -> dict[str, str]:
    """The variables that make `read` return an equal struct: how a supervisor hands configuration to a child.

    Contains secrets in the clear: only for the environment of a process we start.
    """
    lines = {field.name: line.env for field, line in _fields(type(config))}
    return {line: _text(value) for name, line in lines.items() if (value := getattr(config, name)) is not None}


def variable(name: str, default: str = "") -> str:
    """One variable of the surrounding world that is nobody's setting (PATH, NO_COLOR). Settings belong in a struct."""
    return os.environ.get(name, default)


def surroundings() -> dict[str, str]:
    """A copy of the whole environment, to start a child from."""
    return dict(os.environ)


def adopt(variables: Mapping[str, str]) -> None:
    """Make `variables` this process's own: for a forked child before its service reads them."""
    os.environ.update(variables)


def _fields(struct: type[Struct]) -> list[tuple[msgspec.structs.FieldInfo, Setting]]:
    hints = get_type_hints(struct, include_extras=True)
    return [(field, _line(field, hints[field.name])) for field in msgspec.structs.fields(struct)]


def _line(field: msgspec.structs.FieldInfo, hint: Any) -> Setting:
    meta = _meta(hint)
    extra: dict[str, str] = (meta.extra or {}) if meta else {}
    default = "" if field.default is msgspec.NODEFAULT or isinstance(field.default, Secret) else _text(field.default)
    return Setting(
        env=extra.get("env") or PREFIX + field.name.upper(),
        type_name=_type_name(hint),
        default="required" if field.required else default,
        unit=extra.get("unit", ""),
        reason=(meta.description or "") if meta else "",
        example=extra.get("example", ""),
        is_secret=_is_secret(hint),
    )


def _problem_of(field: msgspec.structs.FieldInfo, line: Setting, text: str) -> list[str]:
    """Convert one value alone, so that every wrong one is reported and a secret's text never is."""
    try:
        msgspec.convert(text, field.type, strict=False, dec_hook=_decode)
    except (msgspec.ValidationError, ValueError) as error:
        shown = REDACTED if line.is_secret else repr(text)
        return [f"{line.env}={shown}: {str(error)[:1].lower()}{str(error)[1:]}" + _example(line)]
    return []


def _example(line: Setting) -> str:
    return f" (for example {line.example})" if line.example else ""


def _decode(wanted: type[Any], value: Any) -> Any:
    if wanted is Secret:
        return Secret(str(value))
    raise TypeError(f"a setting cannot be a {wanted.__name__}")


def _text(value: Any) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _meta(hint: Any) -> Meta | None:
    """The declaration of a field, also inside a union: `Annotated[int, setting(...)] | None`."""
    found = (argument if isinstance(argument, Meta) else _meta(argument) for argument in get_args(hint))
    return next((meta for meta in found if meta is not None), None)


def _is_secret(hint: Any) -> bool:
    return hint is Secret or any(_is_secret(argument) for argument in get_args(hint))


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return _type_name(get_args(hint)[0])
    arguments = get_args(hint)
    if arguments:
        return " | ".join(_type_name(argument) for argument in arguments)
    if hint is type(None):
        return "unset"
    return cast("str", getattr(hint, "__name__", None) or str(hint))


def name_user() -> None:
    """Give the local user a name when the system has none for it: asyncssh refuses to connect for a bare number."""
    os.environ.setdefault("LOGNAME", "dumont")
