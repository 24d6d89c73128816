"""Stored bytes stay readable for ever: a golden event decodes and comes back byte for byte, and old ones are upcast."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec
import pytest

from proto.base import Event
from proto.upcast import UPCASTS, upcast
from services.contracts import language
from services.contracts.golden import FOLDER, example, golden_path
from tests.tidy.tree import ROOT

GOLDEN = sorted((ROOT / FOLDER).glob("*.json"))
NEWEST = {each.wire_name: each for each in language.events()}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_stored_event_is_read_and_written_back_as_it_was(path: Any) -> None:
    name, version = path.stem.rsplit(".v", 1)
    stored = json.loads(path.read_bytes())
    assert stored["type"] == name
    assert stored.get("v", 1) == int(version)
    newest = upcast(stored)
    spoken = NEWEST[newest["type"]]
    event = msgspec.convert(newest, spoken.event, strict=False)
    if int(version) == spoken.version and newest == stored:
        assert msgspec.json.encode(event) == msgspec.json.format(path.read_bytes(), indent=-1).strip()


@pytest.mark.parametrize("name", sorted(NEWEST))
def test_the_example_of_an_event_names_every_field(name: str) -> None:
    written = json.loads(msgspec.json.encode(example(NEWEST[name])))
    fields = {field.encode_name for field in msgspec.structs.fields(NEWEST[name].event)}
    assert set(written) == fields | {"type"}


def test_every_upcast_step_has_the_golden_file_of_the_shape_it_reads() -> None:
    missing = [key for key in UPCASTS if not (ROOT / FOLDER / f"{key[0]}.v{key[1]}.json").exists()]
    assert not missing


def test_a_golden_path_carries_wire_name_and_version() -> None:
    assert golden_path(NEWEST["instance.interrupted"]).name == "instance.interrupted.v1.json"


class SizeChanged(Event, tag="disk.size_changed", frozen=True, kw_only=True):
    """An example of our own: version 1 counted gigabytes, version 2 counts bytes."""

    v: Literal[2]
    size_bytes: int


def test_an_old_shape_does_not_fit_and_is_upcast_once() -> None:
    steps = {
        ("disk.size_changed", 1): lambda old: {
            "type": "disk.size_changed",
            "v": 2,
            "size_bytes": old["size_gb"] * 1_000_000_000,
        }
    }
    old = {"type": "disk.size_changed", "size_gb": 3}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(old, SizeChanged)
    event = msgspec.convert(upcast(old, steps), SizeChanged)
    assert event == SizeChanged(v=2, size_bytes=3_000_000_000)
    assert msgspec.json.decode(msgspec.json.encode(event), type=SizeChanged) == event


def test_a_renamed_event_is_upcast_through_its_new_name() -> None:
    steps = {("disk.grew", 1): lambda old: {**old, "type": "disk.size_changed", "v": 2}}
    assert upcast({"type": "disk.grew", "size_bytes": 1}, steps)["type"] == "disk.size_changed"


def test_a_table_that_runs_in_a_circle_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not end"):
        upcast({"type": "a.b"}, {("a.b", 1): lambda old: old})
