"""Fills a new machine from a snapshot, checks every file, and only then lets the customer's command run.

Called by `work` when the machine was ordered with DUMONT_AGENT_RESTORE. Killed at any point it begins again; what is
there already is written again. Owns the file `restored`, which says that this machine has its files.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from libs.clock import Clock
from services.agent import memory
from services.agent.capturing import RACY_NS, SETTLE_S, Known, nanoseconds
from services.agent.manifest import BadManifest, Entry, Extent, Manifest, unpack
from services.agent.memory import LastCopy
from services.agent.packing import CHUNK_BYTES
from services.agent.scanning import look, scan
from services.agent.settings import AgentSettings
from services.agent.transfer import Part, Transfer

RESTORED_FILE = "restored"
DRAFT_SUFFIX = b".dumont-part"


class NotRestored(Exception):
    """The workspace is not what the manifest says. `detail` names the first difference."""


class Restored(Struct, frozen=True):
    """`reported`: the platform has heard of it."""

    source: str
    captured_at: str
    files: int
    bytes: int
    took_ms: int
    reported: bool = False


def restored(settings: AgentSettings) -> Restored | None:
    """What this machine was filled from; None: not yet."""
    try:
        return msgspec.json.decode(Path(settings.agent_dir, RESTORED_FILE).read_bytes(), type=Restored)
    except (OSError, msgspec.DecodeError):
        return None


def note(settings: AgentSettings, done: Restored) -> None:
    path = Path(settings.agent_dir, RESTORED_FILE)
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(done))
    new.replace(path)


async def fill(source: str, *, settings: AgentSettings, transfer: Transfer, clock: Clock) -> Restored:
    """Raises NotRestored or TransferFailed."""
    began_s = time.monotonic()
    root = os.fsencode(os.path.realpath(settings.agent_workspace))
    try:
        manifest = await asyncio.to_thread(unpack, await transfer.get_manifest(source))
    except BadManifest as error:
        raise NotRestored(str(error)) from error
    try:
        await asyncio.to_thread(prepare, root, manifest)
        for part, pieces in by_part(manifest):
            body = await transfer.get_part(source, part)
            await asyncio.to_thread(write_pieces, root, body, pieces)
        known = await asyncio.to_thread(finish, root, manifest, clock)
    except OSError as error:
        raise NotRestored(f"{error.strerror}: {os.fsdecode(error.filename or b'')}") from error
    last = LastCopy(source, manifest.packs, tuple(known))
    await asyncio.to_thread(memory.remember, Path(settings.agent_dir), last)
    took_ms = round((time.monotonic() - began_s) * 1000)
    captured_at = manifest.captured_at.isoformat()
    done = Restored(source, captured_at, manifest.files, manifest.bytes, took_ms)
    note(settings, done)
    return done


def by_part(manifest: Manifest) -> Iterable[tuple[Part, Sequence[tuple[Entry, Extent, int]]]]:
    """Each part once, with what of which file it has: entry, extent, and where in the file that begins."""
    parts: dict[tuple[int, int], list[tuple[Entry, Extent, int]]] = {}
    for entry in manifest.entries:
        position = 0
        for extent in entry.extents:
            parts.setdefault((extent.pack, extent.part), []).append((entry, extent, position))
            position += extent.length
    for (pack, number), pieces in sorted(parts.items()):
        yield Part(manifest.packs[pack].pack_id, number), pieces


def prepare(root: bytes, manifest: Manifest) -> None:
    """Directories, and an empty draft for every file."""
    for entry in sorted(manifest.entries, key=lambda entry: entry.path):
        place = _place(root, entry.path)
        if entry.kind == "directory":
            if os.path.islink(place) or (os.path.exists(place) and not os.path.isdir(place)):
                os.unlink(place)
            os.makedirs(place, exist_ok=True)
            os.chmod(place, 0o700)  # its own mode comes last: it may forbid us to write
        elif entry.kind == "file":
            with open(place + DRAFT_SUFFIX, "wb"):
                pass


def _place(root: bytes, path: bytes) -> bytes:
    """A path of the manifest below the root, and nowhere else."""
    if path.startswith(b"/") or b".." in path.split(b"/"):
        raise NotRestored(f"the manifest names {os.fsdecode(path)}")
    return os.path.join(root, path)


def write_pieces(root: bytes, body: bytes, pieces: Sequence[tuple[Entry, Extent, int]]) -> None:
    whole = memoryview(body)
    for entry, extent, position in pieces:
        piece = whole[extent.offset : extent.offset + extent.length]
        if len(piece) != extent.length:
            raise NotRestored(f"a part is too short for {os.fsdecode(entry.path)}")
        with open(_place(root, entry.path) + DRAFT_SUFFIX, "r+b") as draft:
            draft.seek(position)
            draft.write(piece)


def finish(root: bytes, manifest: Manifest, clock: Clock) -> list[Known]:
    """Check every draft, put it in its place, then count what is there. Directories last, from the inside out."""
    for entry in manifest.entries:
        place = _place(root, entry.path)
        if entry.kind == "file":
            _check(place + DRAFT_SUFFIX, entry)
            os.chmod(place + DRAFT_SUFFIX, entry.mode)
            os.utime(place + DRAFT_SUFFIX, ns=(entry.mtime_ns, entry.mtime_ns))
            _make_room(place)
            os.rename(place + DRAFT_SUFFIX, place)
        elif entry.kind == "link":
            _make_room(place)
            os.symlink(entry.target, place)
    for entry in sorted(manifest.entries, key=lambda entry: entry.path, reverse=True):
        if entry.kind == "directory":
            place = _place(root, entry.path)
            os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))
            os.chmod(place, entry.mode)
    return _count(root, manifest, clock)


def remove_others(root: bytes, manifest: Manifest) -> None:
    """Take away what the manifest does not name."""
    named = {entry.path for entry in manifest.entries}
    found = scan(root, None)
    for path in sorted(found, reverse=True):  # what is inside before what it is in
        if path not in named:
            place = os.path.join(root, path)
            if found[path].kind == "directory":
                shutil.rmtree(place, ignore_errors=True)
            elif os.path.lexists(place):
                os.unlink(place)


def _make_room(place: bytes) -> None:
    if os.path.islink(place) or os.path.isfile(place):
        os.unlink(place)
    elif os.path.isdir(place):
        shutil.rmtree(place)


def _check(draft: bytes, entry: Entry) -> None:
    digest, size = hashlib.sha256(), 0
    with open(draft, "rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    if size != entry.size or digest.digest() != entry.sha256:
        raise NotRestored(f"{os.fsdecode(entry.path)} differs from its checksum")


def _count(root: bytes, manifest: Manifest, clock: Clock) -> list[Known]:
    """Everything is there; what the next copy need not copy again."""
    time.sleep(SETTLE_S)
    sure_before_ns = nanoseconds(clock) - RACY_NS
    known: list[Known] = []
    for entry in manifest.entries:
        try:
            seen = look(os.lstat(os.path.join(root, entry.path)))
        except OSError as error:
            raise NotRestored(f"{os.fsdecode(entry.path)} is missing") from error
        if seen is None or seen.kind != entry.kind or (entry.kind == "file" and seen.signature[0] != entry.size):
            raise NotRestored(f"{os.fsdecode(entry.path)} is not as it was")
        if entry.kind != "directory":
            known.append(Known(seen.signature if seen.signature[2] < sure_before_ns else None, entry))
    return known


async def report(done: Restored, *, settings: AgentSettings, transfer: Transfer) -> None:
    """Raises TransferFailed."""
    facts = {"kind": "restored", "source": done.source, "captured_at": done.captured_at}
    await transfer.report(facts | {"files": done.files, "bytes": done.bytes, "took_ms": done.took_ms})
    note(settings, msgspec.structs.replace(done, reported=True))


async def report_failure(source: str, why: str, transfer: Transfer) -> None:
    """Raises TransferFailed."""
    await transfer.report({"kind": "restore_failed", "source": source, "code": "restore_failed", "detail": why[:500]})
