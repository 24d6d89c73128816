"""A commit is read whole, whatever the age of the events in it."""

from __future__ import annotations

from typing import Any

import pytest

from libs.runtime.codec import EventDecoder, UnknownEvent, encode_commit
from proto.base import Event
from tests.spec.runtime.controls import NOW


class DiskGrown(Event, tag="disk.grown", frozen=True, kw_only=True):
    size_bytes: int


class DiskGrownOnce(Event, tag="disk.grown", frozen=True, kw_only=True):
    """Its shape of long ago."""

    size_gb: int


def grow(old: dict[str, Any]) -> dict[str, Any]:
    return {"type": old["type"], "size_bytes": old["size_gb"] * 10**9} if "size_gb" in old else old


OLD_AND_NEW = encode_commit("cmt_1", 3, NOW, [DiskGrown(size_bytes=1), DiskGrownOnce(size_gb=2)], correlation="corr_1")


def test_an_old_event_among_new_ones_is_upcast() -> None:
    commit = EventDecoder(DiskGrown, grow).commit(OLD_AND_NEW)
    assert commit.events == [DiskGrown(size_bytes=1), DiskGrown(size_bytes=2 * 10**9)]
    assert (commit.id, commit.version, commit.at, commit.correlation) == ("cmt_1", 3, NOW, "corr_1")


def test_new_events_never_pass_through_the_upcaster() -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    data = encode_commit("cmt_1", 0, NOW, [DiskGrown(size_bytes=1)])
    assert EventDecoder(DiskGrown, refuse).commit(data).events == [DiskGrown(size_bytes=1)]


@pytest.mark.parametrize("upcast", [None, lambda old: old])
def test_an_event_that_no_shape_holds_is_never_skipped(upcast: Any) -> None:
    with pytest.raises(UnknownEvent):
        EventDecoder(DiskGrown, upcast).commit(OLD_AND_NEW)
