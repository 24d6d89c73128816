"""From untrusted bytes and strings to structs, or to every problem at once with field and reason.

Called by the pipeline for bodies and query strings, and by handlers for rules between fields (`refuse`). The fast
path is one msgspec decode; only when that fails is each field looked at by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, TypeVar, cast, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo

from libs.refusal import Refused
from libs.telemetry.redaction import is_secret_key

PROBLEMS_MAX = 50  # as many as anybody will read
QUERY_FIELDS_MAX = 100  # no route has more than 25
VALUE_CHARS_MAX = 100  # of a wrong value, shown back
# What may hold a secret is not told again, not even to whoever sent it: answers are logged on the way. These are fields
# whose names do not say so by themselves (a private key instead of the public one).
MAY_BE_SECRET = frozenset({"env", "onstart_cmd", "ssh_key", "Idempotency-Key", "url", "webhook_url", "webhookUrl"})
EXACT_MAX = 2**53  # of the whole numbers that a float tells apart
NESTING_MAX = 8  # structs in structs; ours go two deep

# What msgspec says in Python's words, and what we say instead; `proto/reasons.py` has ours in Portuguese.
_KINDS: Mapping[str, str] = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "datetime": "an instant",
    "null": "null",
}
_PARTS: Mapping[str, str] = {"str": "character", "array": "item", "object": "field"}
_BOUNDS: Mapping[str, str] = {"<=": "at most", ">=": "at least"}
_KIND = "|".join(_KINDS)
_SAID: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    ("Expected str matching regex (.*)", lambda said: f"must match {said[1]}"),
    (
        rf"Expected ((?:(?:{_KIND})(?: \| )?)+), got ({_KIND})",
        lambda said: f"must be {' or '.join(_KINDS[word] for word in said[1].split(' | '))}, not {_got(said[2])}",
    ),
    (
        r"Expected (str|array|object) of length (<=|>=) (\d+)",
        lambda said: f"must have {_BOUNDS[said[2]]} {said[3]} {_PARTS[said[1]]}{'' if said[3] == '1' else 's'}",
    ),
    (r"Expected (int|float) (<=|>=|<|>) (\S+)", lambda said: f"must be {_KINDS[said[1]]} {said[2]} {said[3]}"),
    ("Object contains unknown field (.*)", lambda said: f"has an unknown field {said[1]}"),
    ("Object missing required field (.*)", lambda said: f"lacks the field {said[1]}"),
)
_OF_A_VALUE = tuple((re.compile(rf"{form}(?P<place> - at \$\S*)?", re.DOTALL), ours) for form, ours in _SAID)
_UNREADABLE = (
    ("datetime", "an RFC 3339 instant"),
    ("imestamp", "an RFC 3339 instant"),
    ("out of range", "a number in range"),
)

S = TypeVar("S", bound=Struct)
# Not a backslash that is itself escaped, with the text u0000 after it.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


class Problem(Struct, frozen=True):
    """One thing that is wrong, in words for the person who sent it."""

    field: str
    reason: str
    value: Any = None


def refuse(field: str, reason: str, value: Any = None) -> NoReturn:
    """For a rule between fields, or one no schema can state."""
    raise refusal([Problem(field, reason, _shown(field, value))])


def refusal(problems: Sequence[Problem]) -> Refused:
    first = problems[0]
    return Refused(
        "VALIDATION_ERROR", field=first.field, reason=first.reason, errors=msgspec.to_builtins(list(problems))
    )


def read_body(raw: bytes, decoder: msgspec.json.Decoder[S], shape: type[S]) -> S:
    """An empty body counts as `{}` (contract novita A1: clients send the content type and nothing else)."""
    if b"\\u0000" in raw and _NUL.search(raw):
        refuse("body", "Body must not contain the character U+0000")
    raw = raw or b"{}"
    try:
        if not raw.isascii():
            raw.decode()  # msgspec does not look into values that the shape leaves out
        return decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _read_by_field(raw, shape)


def read_query(text: str, shape: type[S]) -> S:
    """`text` is what follows the question mark. The last of several equal names counts."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict")
    except (ValueError, UnicodeDecodeError):
        refuse("query", f"Query must be UTF-8 with at most {QUERY_FIELDS_MAX} fields")
    values = dict(pairs)
    if any("\0" in value for value in values.values()):
        refuse("query", "Query must not contain the character U+0000")
    problems = [Problem(name, f"{_label(name)} must be a number", value) for name, value in _not_numbers(values, shape)]
    try:
        if not problems:
            return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as error:
        problems = _problems(values, shape, strict=False) or [Problem("query", str(error))]
    raise refusal(problems)


def _not_numbers(values: Mapping[str, str], shape: type[Struct]) -> list[tuple[str, str]]:
    """`nan` and `inf` are floats to a parser and nonsense to a filter."""
    found: list[tuple[str, str]] = []
    for name in _floats(shape) & values.keys():
        try:
            if not math.isfinite(float(values[name])):
                found.append((name, values[name]))
        except ValueError:
            continue  # said better by the schema
    return found


@cache
def _floats(shape: type[Struct]) -> frozenset[str]:
    """Kept, because to look takes as long as all the rest of a request."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(shape) if _is_float(field.type))


def _is_float(kind: Any) -> bool:
    return kind is float or any(_is_float(part) for part in get_args(kind))


def _read_by_field(raw: bytes, shape: type[S]) -> S:
    """What a decoder refuses, looked at again: 100.0 is an integer to JSON Schema and to whoever wrote it."""
    try:
        values = _with_integers(msgspec.json.decode(raw))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refusal([Problem("body", f"Body must be valid JSON: {error}")]) from None
    except RecursionError:
        raise refusal([Problem("body", "Body must be valid JSON: nested too deeply")]) from None
    if not isinstance(values, dict):
        raise refusal([Problem("body", "Body must be a JSON object")])
    try:
        return msgspec.convert(values, shape)
    except msgspec.ValidationError:
        problems = _problems(cast("dict[str, Any]", values), shape, strict=True)
        raise refusal(problems or [Problem("body", "Body is not valid")]) from None


def _with_integers(value: Any) -> Any:
    """The same with every number that is whole, and exactly known, as an integer."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT_MAX else value
    if isinstance(value, list):
        return [_with_integers(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _with_integers(item) for name, item in cast("dict[str, Any]", value).items()}
    return value


def _problems(values: Mapping[str, Any], shape: type[Struct], *, strict: bool, prefix: str = "") -> list[Problem]:
    found: list[Problem] = []
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    for name, field in fields.items():
        path = prefix + name
        if name in values:
            found += _problems_of(values[name], field, path, strict=strict)
        elif field.required:
            found.append(Problem(path, f"{_label(name)} is required"))
    if shape.__struct_config__.forbid_unknown_fields:
        found += [Problem(prefix + name, f"Unknown field {name}") for name in values if name not in fields]
    return found[:PROBLEMS_MAX]


def _problems_of(value: Any, field: FieldInfo, path: str, *, strict: bool) -> list[Problem]:
    inner = _struct_in(field.type)
    if inner is not None and isinstance(value, dict) and path.count(".") < NESTING_MAX:
        return _problems(cast("dict[str, Any]", value), inner, strict=strict, prefix=f"{path}.")
    try:
        msgspec.convert(value, field.type, strict=strict)
    except msgspec.ValidationError as error:
        return [Problem(path, f"{_label(field.encode_name)} {_reason(str(error), field.type)}", _shown(path, value))]
    return []


def _struct_in(kind: Any) -> type[Struct] | None:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind
    return next((inner for part in get_args(kind) if (inner := _struct_in(part)) is not None), None)


def _reason(text: str, kind: Any) -> str:
    words = _literals(kind)
    if words:
        return "must be one of " + ", ".join(words)
    text = text.replace("`", "")
    for form, ours in _OF_A_VALUE:
        if said := form.fullmatch(text):
            return ours(said) + (said["place"] or "")
    return next((f"must be {said}" for word, said in _UNREADABLE if word in text), "is not valid")


def _got(kind: str) -> str:
    return "a boolean" if kind == "bool" else _KINDS[kind]


def _literals(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(word) for word in get_args(kind) if word != ""]
    if get_origin(kind) is Annotated:
        return _literals(get_args(kind)[0])
    return [word for part in get_args(kind) for word in _literals(part)]


def _label(name: str) -> str:
    """`productName` -> `Product name`: the wording of seed 001."""
    words = " ".join(word if word.isupper() else word.lower() for word in _WORDS.findall(name)) or name
    return words[:1].upper() + words[1:]


def _shown(path: str, value: Any) -> Any:
    """A short value back to whoever sent it, unless the field is one that secrets are put into."""
    words = path.split(".")
    if any(is_secret_key(word) or word in MAY_BE_SECRET for word in words):
        return None
    if isinstance(value, str):
        return value[:VALUE_CHARS_MAX]
    return value if isinstance(value, int | float | bool) else None
