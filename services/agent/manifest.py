"""What a copy of a workspace is: a manifest that names every file, and packs that hold their bytes.

Written by `capturing`, read by `restoring`; stored and sent as zlib-compressed msgpack: names of files are bytes.
A pack is what one copy added, cut into numbered parts; a file lies in one or more extents of parts.
"""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

FORM = 1
MANIFEST_BYTES_MAX = 512 * 1024 * 1024  # unpacked: a few million files
COMPRESSION = 1  # names and digests: more effort gains little

Kind: TypeAlias = Literal["file", "directory", "link"]


class Extent(Struct, frozen=True, array_like=True, gc=False):
    """`length` bytes at `offset` of part `part` of `Manifest.packs[pack]`."""

    pack: int
    part: int
    offset: int
    length: int


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One file, directory or symbolic link. `path` is relative to the workspace; `target` is a link's."""

    path: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    size: int = 0
    sha256: bytes = b""
    extents: tuple[Extent, ...] = ()
    target: bytes = b""


class Pack(Struct, frozen=True, array_like=True, gc=False):
    pack_id: str
    bytes: int


class Manifest(Struct, frozen=True):
    """Everything written before `captured_at` is in it; `is_point_in_time`: and nothing written later."""

    form: int
    copy_id: str
    captured_at: datetime
    is_point_in_time: bool
    packs: tuple[Pack, ...]
    entries: tuple[Entry, ...]

    @property
    def files(self) -> int:
        return sum(1 for entry in self.entries if entry.kind == "file")

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)


class BadManifest(Exception):
    """What was read is not a manifest, or one of a later form."""


_decoder = msgspec.msgpack.Decoder(Manifest)


def pack_up(manifest: Manifest) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(manifest), COMPRESSION)


def unpack(body: bytes) -> Manifest:
    """Raises BadManifest."""
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(body, MANIFEST_BYTES_MAX)
        manifest = _decoder.decode(raw)
    except (zlib.error, msgspec.DecodeError) as error:
        raise BadManifest(str(error)) from error
    if manifest.form != FORM:
        raise BadManifest(f"form {manifest.form} is not {FORM}")
    return manifest
