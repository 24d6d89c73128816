"""Keeps secrets out of log lines and spans: by the name of a field and by the look of a value.

Called by `libs.telemetry.log` and `libs.telemetry.trace` only. Two nets, because either alone leaks: a key name says
what a value is meant to be, a pattern catches a credential inside an error text or a URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import msgspec

REDACTED = "[redacted]"
# A log fact nested deeper than this is cut off; our own structs are at most 4 deep.
DEPTH_MAX = 8
# Key names are literals of our code plus the keys of logged dictionaries; the cache must not grow with the latter.
KEY_NAMES_CACHED_MAX = 4096

# Words that make a key secret when they are a whole part of it (`api_key`, `X-Api-Key`, `apiKey`), so that
# `token_count` is hidden too rather than `agent_token` shown: hiding too much is the cheaper mistake.
_SECRET_WORDS = frozenset(
    {
        "secret",
        "secrets",
        "token",
        "tokens",
        "password",
        "passwd",
        "authorization",
        "cookie",
        "credential",
        "credentials",
    }
)
_SECRET_PAIRS = frozenset(
    {("api", "key"), ("private", "key"), ("secret", "key"), ("access", "key"), ("signing", "key")}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# The prefix stays: it tells the operator what kind of credential was there.
_SECRET_VALUE = re.compile(
    rb"(dumont_sk_|dumont_agent_)[A-Za-z0-9_.\-]+"
    rb"|(\b[Bb][Ee][Aa][Rr][Ee][Rr]\s+)[A-Za-z0-9_.~+/=\-]+"
    rb"|(\b[A-Za-z][A-Za-z0-9+.\-]*://)[^\s/@\"\\]+@"
)

Plain: TypeAlias = Any  # what msgspec can encode as it is


def redact_bytes(line: bytes) -> bytes:
    """Blank out anything in an encoded line that looks like a credential. Costs three substring searches when clean."""
    if b"dumont_" not in line and b"://" not in line and b"earer" not in line.lower():
        return line
    return _SECRET_VALUE.sub(_keep_prefix, line)


def redact_text(text: str) -> str:
    return redact_bytes(text.encode("utf-8", "replace")).decode()


def _keep_prefix(found: re.Match[bytes]) -> bytes:
    own, bearer, scheme = found.groups()
    if scheme is not None:
        return scheme + REDACTED.encode() + b"@"
    return (own or bearer) + REDACTED.encode()


@lru_cache(maxsize=KEY_NAMES_CACHED_MAX)
def is_secret_key(name: str) -> bool:
    """True for `password`, `X-Api-Key`, `agentToken`; false for `key_id`, `monkey`."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not _SECRET_WORDS.isdisjoint(words) or "apikey" in words:
        return True
    return any(pair in _SECRET_PAIRS for pair in pairwise(words))


def plain(value: object, depth: int = 0) -> Plain:
    """The value as dicts, lists and scalars, with the values of secret keys replaced at every level."""
    match value:
        case Mapping() | list() | tuple() | set() | frozenset() | msgspec.Struct() if depth >= DEPTH_MAX:
            shown: Plain = "[too deep]"
        case Mapping():
            shown = _plain_mapping(value, depth)  # pyright: ignore[reportUnknownArgumentType]
        case list() | tuple() | set() | frozenset():
            shown = [plain(item, depth + 1) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case msgspec.Struct():
            shown = _plain_mapping({name: getattr(value, name) for name in value.__struct_fields__}, depth)
        case BaseException():
            shown = f"{type(value).__name__}: {value}"
        case _:
            shown = value
    return shown


def _plain_mapping(facts: Mapping[Any, object], depth: int) -> dict[str, Plain]:
    return {str(key): REDACTED if is_secret_key(str(key)) else plain(value, depth + 1) for key, value in facts.items()}
