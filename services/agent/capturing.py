"""Copies a workspace that goes on changing, so that the copy is of one instant.

Used by `snapshotting` and `syncing`, in a thread. Rounds: look, copy what has changed, look again; when a look finds
nothing changed since it was copied, all of it is as it was at that look. A workspace that never stands still is held
still for the last, small round (`freezing`). When even that would take too long, the copy says that it is of no single
instant; it still has everything written before `captured_at`.

A change within the clock tick of the copy could hide behind the same times, so what changed less than RACY_NS before
it was copied is copied again, as git does with its index.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import BinaryIO

from msgspec import Struct
from msgspec.structs import replace

from libs.clock import Clock
from services.agent import freezing
from services.agent.manifest import FORM, Entry, Manifest, Pack
from services.agent.packing import Packer
from services.agent.scanning import Found, Signature, look, scan

ROUNDS_MAX = 3
RACY_NS = 50_000_000  # several ticks of the kernel's file clock (at most 10 ms)
SETTLE_S = 0.06
FROZEN_BYTES_MAX = 64 * 1024 * 1024  # copied in well under FROZEN_S_MAX
PACKS_MAX = 24  # below what the gateway takes; then everything still alive in the smallest is stored anew
LIVE_SHARE_MIN = 0.5


def nanoseconds(clock: Clock) -> int:
    """The instant as files' times count."""
    return int(clock.now().timestamp() * 1e9)


class Known(Struct, frozen=True, gc=False):
    """What was copied of one path. `signature` None: it may have changed unseen, so it is copied again."""

    signature: Signature | None
    entry: Entry


class Copied(Struct, frozen=True):
    """A finished copy and what the next one may build on."""

    manifest: Manifest
    known: Mapping[bytes, Known]
    stored_bytes: int


class Capture:
    """One copy of `root`. `known` and `packs` are those of the copy it adds to; `is_held`: nothing moves already."""

    def __init__(
        self,
        copy_id: str,
        root: bytes,
        *,
        known: Mapping[bytes, Known],
        packs: tuple[Pack, ...],
        packer: Packer,
        excludes: re.Pattern[bytes] | None = None,
        scope: str,
        clock: Clock,
        is_held: bool = False,
    ) -> None:
        self._copy_id = copy_id
        self._root = root
        self._packs = packs
        self._known = dict(_worth_keeping(known, packs))
        self._packer = packer
        self._excludes = excludes
        self._scope = scope
        self._clock = clock
        self._is_held = is_held

    def run(self) -> Copied:
        """Blocks. Raises OSError when the disk is full, TooManyFiles, and what the packer's `ship` raises."""
        for number in range(ROUNDS_MAX):
            if number:
                time.sleep(SETTLE_S)
            captured_at, found, changed = self._look()
            if not changed:
                return self._copied(found, captured_at, is_point_in_time=True)
            self._copy_all(changed, found)
        frozen = self._copy_frozen()
        if frozen is not None:
            return self._copied(frozen[1], frozen[0], is_point_in_time=True)
        captured_at, found, changed = self._look()
        self._copy_all(changed, found)
        return self._copied(found, captured_at, is_point_in_time=False)

    def _look(self) -> tuple[datetime, dict[bytes, Found], list[bytes]]:
        captured_at = self._clock.now()
        found = scan(self._root, self._excludes)
        changed = [path for path, seen in found.items() if self._is_changed(path, seen)]
        return captured_at, found, changed

    def _is_changed(self, path: bytes, seen: Found) -> bool:
        known = self._known.get(path)
        if known is None or known.entry.kind != seen.kind:
            return True
        if seen.kind == "directory":
            return False  # its mode and times are read from the last look
        return known.signature != seen.signature

    def _copy_frozen(self) -> tuple[datetime, dict[bytes, Found]] | None:
        """The last round with everything held still; None when that cannot be, or would take too long."""
        with contextlib.nullcontext(True) if self._is_held else freezing.held(self._scope) as is_held:
            if not is_held:
                return None
            captured_at, found, changed = self._look()
            if sum(found[path].signature[0] for path in changed) > FROZEN_BYTES_MAX:
                return None
            self._packer.is_holding = True
            began_s = time.monotonic()
            self._copy_all(changed, found)
            took_s = time.monotonic() - began_s
        self._packer.release()
        return (captured_at, found) if took_s < freezing.FROZEN_S_MAX / 2 else None

    def _copy_all(self, changed: list[bytes], found: dict[bytes, Found]) -> None:
        for path in changed:
            known = self._copy(path, found[path])
            if known is None:
                self._known.pop(path, None)
            else:
                self._known[path] = known

    def _copy(self, path: bytes, seen: Found) -> Known | None:
        """None when it is gone or cannot be read."""
        place = os.path.join(self._root, path)
        try:
            if seen.kind == "directory":
                return Known(None, Entry(path, "directory", seen.mode, seen.mtime_ns))
            if seen.kind == "link":
                entry = Entry(path, "link", seen.mode, seen.mtime_ns, target=os.readlink(place))
                return Known(seen.signature, entry)
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb", buffering=0) as source:
            return self._copy_file(path, source)

    def _copy_file(self, path: bytes, source: BinaryIO) -> Known | None:
        before = look(os.fstat(source.fileno()))
        if before is None or before.kind != "file":
            return None
        copied_ns = nanoseconds(self._clock)
        try:
            size, digest, extents = self._packer.add(source, before.signature[0])
        except PermissionError:
            return None
        after = look(os.fstat(source.fileno()))
        entry = Entry(path, "file", before.mode, before.mtime_ns, size, digest, extents)
        is_sure = after is not None and after.signature == before.signature and size == before.signature[0]
        is_racy = before.signature[2] > copied_ns - RACY_NS
        return Known(before.signature if is_sure and not is_racy else None, entry)

    def _copied(self, found: dict[bytes, Found], captured_at: datetime, *, is_point_in_time: bool) -> Copied:
        self._packer.finish()
        entries: list[Entry] = []
        known: dict[bytes, Known] = {}
        for path, seen in found.items():
            was = self._known.get(path)
            if seen.kind == "directory":
                entries.append(Entry(path, "directory", seen.mode, seen.mtime_ns))
            elif was is not None:
                entries.append(was.entry)
                known[path] = was
        packs = (*self._packs, Pack(self._copy_id, self._packer.bytes))
        used, entries, known = _renumbered(packs, entries, known)
        manifest = Manifest(FORM, self._copy_id, captured_at, is_point_in_time, used, tuple(entries))
        return Copied(manifest, known, self._packer.bytes)


def _worth_keeping(known: Mapping[bytes, Known], packs: tuple[Pack, ...]) -> Mapping[bytes, Known]:
    """Without what lies in packs that are mostly dead, and in the smallest ones when there are too many."""
    live = [0] * len(packs)
    for each in known.values():
        for extent in each.entry.extents:
            live[extent.pack] += extent.length
    by_size = sorted(range(len(packs)), key=lambda number: live[number])
    crowded = set(by_size[: max(0, len(packs) + 1 - PACKS_MAX)])
    stale = crowded | {number for number, pack in enumerate(packs) if live[number] < LIVE_SHARE_MIN * pack.bytes}
    if not stale:
        return known
    return {
        path: each for path, each in known.items() if not any(extent.pack in stale for extent in each.entry.extents)
    }


def _renumbered(
    packs: tuple[Pack, ...], entries: list[Entry], known: dict[bytes, Known]
) -> tuple[tuple[Pack, ...], list[Entry], dict[bytes, Known]]:
    """Only the packs that some file still lies in, and every extent by its pack's new number."""
    used = sorted({extent.pack for entry in entries for extent in entry.extents})
    if used == list(range(len(packs))):
        return packs, entries, known
    number = {old: new for new, old in enumerate(used)}

    def moved(entry: Entry) -> Entry:
        extents = tuple(replace(extent, pack=number[extent.pack]) for extent in entry.extents)
        return replace(entry, extents=extents)

    entries = [moved(entry) for entry in entries]
    by_path = {entry.path: entry for entry in entries}
    again = {path: Known(each.signature, by_path[path]) for path, each in known.items()}
    return tuple(packs[old] for old in used), entries, again
