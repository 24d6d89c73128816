"""What the agent remembers of its last copy, so that the next one stores only what has changed. Owns `last_copy`.

Used by `snapshotting` and `restoring`. Losing it costs a full copy and nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from services.agent.capturing import Copied, Known
from services.agent.manifest import Pack

LAST_COPY_FILE = "last_copy"


class Report(Struct, frozen=True):
    """What the platform is told of a finished copy."""

    captured_at: datetime
    files: int
    bytes: int
    stored_bytes: int
    took_ms: int
    packs: tuple[str, ...]
    is_point_in_time: bool


class LastCopy(Struct, frozen=True):
    """`report` None: the machine was filled from this copy, it did not make it."""

    copy_id: str
    packs: tuple[Pack, ...]
    known: tuple[Known, ...]
    report: Report | None = None

    @property
    def by_path(self) -> Mapping[bytes, Known]:
        return {known.entry.path: known for known in self.known}


NOTHING = LastCopy("", (), ())


def remembered(folder: Path) -> LastCopy:
    """NOTHING when there is none, or none that can be read."""
    try:
        return msgspec.msgpack.decode(zlib.decompress((folder / LAST_COPY_FILE).read_bytes()), type=LastCopy)
    except (OSError, zlib.error, msgspec.DecodeError):
        return NOTHING


def remember(folder: Path, last: LastCopy) -> None:
    """Whole or not at all."""
    path = folder / LAST_COPY_FILE
    new = path.with_suffix(".new")
    new.write_bytes(zlib.compress(msgspec.msgpack.encode(last), 1))
    new.replace(path)


def of_copy(copied: Copied, took_ms: int) -> LastCopy:
    manifest = copied.manifest
    report = Report(
        captured_at=manifest.captured_at,
        files=manifest.files,
        bytes=manifest.bytes,
        stored_bytes=copied.stored_bytes,
        took_ms=took_ms,
        packs=tuple(pack.pack_id for pack in manifest.packs),
        is_point_in_time=manifest.is_point_in_time,
    )
    return LastCopy(manifest.copy_id, manifest.packs, tuple(copied.known.values()), report)
