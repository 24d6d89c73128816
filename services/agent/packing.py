"""Writes the bytes of a pack into parts of limited size, and hands each finished part on.

Used by `capturing`, in a thread. While the machine is held still, finished parts stay on the disk until `release`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from services.agent.manifest import Extent

PART_BYTES_MAX = 16 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024


class Packer:
    """One pack being written. `ship(path, number)` blocks until the part is where it belongs."""

    def __init__(self, spool: Path, pack: int, ship: Callable[[Path, int], None]) -> None:
        self._spool = spool
        self._pack = pack
        self._ship = ship
        self._number = 0
        self._part: BinaryIO | None = None
        self._filled = 0
        self._waiting: list[tuple[Path, int]] = []
        self.is_holding = False
        self.bytes = 0

    def add(self, source: BinaryIO, size_max: int) -> tuple[int, bytes, tuple[Extent, ...]]:
        """Copy a file. Returns its size, SHA-256 and where it lies. At most `size_max` bytes are read."""
        digest, extents, size = hashlib.sha256(), list[Extent](), 0
        while size < size_max:
            chunk = source.read(min(CHUNK_BYTES, size_max - size))
            if not chunk:
                break
            digest.update(chunk)
            extents += self._write(chunk)
            size += len(chunk)
        return size, digest.digest(), _joined(extents)

    def _write(self, chunk: bytes) -> list[Extent]:
        extents: list[Extent] = []
        while chunk:
            if self._part is None:
                self._part = self._path(self._number).open("wb")
                self._filled = 0
            fits = chunk[: PART_BYTES_MAX - self._filled]
            self._part.write(fits)
            extents.append(Extent(self._pack, self._number, self._filled, len(fits)))
            self._filled += len(fits)
            self.bytes += len(fits)
            chunk = chunk[len(fits) :]
            if self._filled == PART_BYTES_MAX:
                self._close()
        return extents

    def _path(self, number: int) -> Path:
        return self._spool / f"part-{number:08d}"

    def _close(self) -> None:
        if self._part is None:
            return
        self._part.close()
        self._part = None
        self._waiting.append((self._path(self._number), self._number))
        self._number += 1
        if not self.is_holding:
            self.release()

    def release(self) -> None:
        """Hand on what was held back."""
        self.is_holding = False
        for path, number in self._waiting:
            self._ship(path, number)
            path.unlink()
        self._waiting.clear()

    def finish(self) -> None:
        """The last part is as long as it is."""
        self._close()


def _joined(extents: list[Extent]) -> tuple[Extent, ...]:
    """Neighbours in one part are one extent."""
    joined: list[Extent] = []
    for extent in extents:
        last = joined[-1] if joined else None
        if last is not None and last.part == extent.part and last.offset + last.length == extent.offset:
            joined[-1] = Extent(last.pack, last.part, last.offset, last.length + extent.length)
        else:
            joined.append(extent)
    return tuple(joined)
