"""Golden events: one stored example per event and version, written once and never edited.

Called by `python -m services.contracts --golden NAME`; read by `tests/contract` (decode, re-encode, upcast) and by the
catalogue. Values are built from the struct's own fields, the same every time, and differ from the defaults so that
every field shows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from services.contracts.language import Spoken

FOLDER = Path("tests/contract/golden")
EXAMPLE_INSTANT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)

# Words of the seeds' own examples, by field name; every other text is built from the name.
EXAMPLE_TEXTS = {
    "instance_id": "inst_abc123",
    "account_id": "acct_7",
    "machine_id": "mach_7k2m",
    "provider_machine_id": "sbx-41",
    "provider": "sandbox",
    "host_id": "host-12345",
    "offer_id": "offer-1",
    "name": "my-training",
    "gpu": "RTX 4090",
    "region": "us-east",
    "image": "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime",
    "webhook_url": "https://example.com/hook",
    "host": "127.0.0.1",
    "label": "mach_7k2m",
    "key_id": "key_1",
    "prefix": "dumont_sk_Ab1",
    "last4": "x9Yz",
    "key_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "ssh_public_key": "ssh-ed25519 AAAA example",
    "code": "STARTUP_TIMEOUT",
}
EXAMPLE_NUMBERS = {"port": 22, "public_port": 40022, "target_port": 8888, "v": 1}
EXAMPLE_NUMBER_ENDINGS = (
    ("_micros_per_hour", 400_000),
    ("_micros_per_hour_max", 500_000),
    ("_ppm", 998_000),
    ("_ms", 2_000),
    ("_minutes", 15),
    ("_gb", 80),
    ("_mbps", 1_000),
)


def golden_path(spoken: Spoken) -> Path:
    return FOLDER / f"{spoken.wire_name}.v{spoken.version}.json"


def write_golden(spoken: Spoken, root: Path) -> Path | None:
    """Write the example unless there is one already. None: nothing written, because golden files are never changed."""
    path = root / golden_path(spoken)
    if path.exists():
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(example(spoken)), indent=2) + b"\n")
    return golden_path(spoken)


def example(spoken: Spoken) -> Any:
    """A complete, plausible instance of the event."""
    return _value(inspect.type_info(spoken.event), "")


def _value(kind: inspect.Type, name: str, default: Any = msgspec.UNSET) -> Any:
    match kind:
        case inspect.StructType(cls=cls, fields=fields):
            return cls(**{field.name: _value(field.type, field.name, field.default) for field in fields})
        case inspect.UnionType(types=types):
            return _value(next(each for each in types if not isinstance(each, inspect.NoneType)), name, default)
        case inspect.LiteralType(values=values):
            return next((value for value in values if value != default), values[0])
        case inspect.BoolType():
            return default is not True
        case inspect.IntType():
            return _number(name, default)
        case inspect.DateTimeType():
            return EXAMPLE_INSTANT
        case inspect.StrType():
            return EXAMPLE_TEXTS.get(name, f"some {name.replace('_', ' ')}".strip())
        case inspect.VarTupleType(item_type=item) | inspect.SetType(item_type=item):
            return (_value(item, name),)
        case inspect.ListType(item_type=item):
            return [_value(item, name)]
        case inspect.DictType(key_type=inspect.LiteralType() as key, value_type=value):
            return {_value(key, name): _value(value, name)}
        case inspect.DictType(value_type=value):
            return {"EXAMPLE": _value(value, name)}
        case _:
            raise TypeError(
                f"{name}: an event field cannot be a {type(kind).__name__}; see docs/how-to-add-an-event.md"
            )


def _number(name: str, default: Any) -> int:
    wanted = EXAMPLE_NUMBERS.get(name)
    if wanted is None:
        wanted = next((number for ending, number in EXAMPLE_NUMBER_ENDINGS if name.endswith(ending)), 3)
    return wanted if wanted != default else wanted + 1
