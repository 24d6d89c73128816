"""One look at a workspace: every file, directory and link in it with what tells whether it has changed.

Used by `capturing`. Sockets, pipes and devices are left out; mount points are walked.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

from services.agent.manifest import Kind

FILES_MAX = 2_000_000  # more would not fit the manifest's limit

Signature: TypeAlias = tuple[int, int, int, int]  # size, mtime, ctime, inode: any write changes ctime


class Found(Struct, frozen=True, gc=False):
    kind: Kind
    mode: int
    mtime_ns: int
    signature: Signature


class TooManyFiles(Exception):
    """More than a copy can hold."""


def scan(root: bytes, excludes: re.Pattern[bytes] | None) -> dict[bytes, Found]:
    """Everything below `root`, by path relative to it. What vanishes meanwhile is left out."""
    found: dict[bytes, Found] = {}
    folders = [b""]
    while folders:
        folder = folders.pop()
        try:
            entries = os.scandir(os.path.join(root, folder) if folder else root)
        except OSError:
            continue  # gone, or not ours to read
        with entries:
            for entry in entries:
                if excludes is not None and excludes.match(entry.name):
                    continue
                path = folder + b"/" + entry.name if folder else entry.name
                try:
                    seen = look(entry.stat(follow_symlinks=False))
                except OSError:
                    continue
                if seen is None:
                    continue
                if len(found) >= FILES_MAX:
                    raise TooManyFiles(f"more than {FILES_MAX} files")
                found[path] = seen
                if seen.kind == "directory":
                    folders.append(path)
    return found


def look(status: os.stat_result) -> Found | None:
    """What a stat says; None for what is not copied."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        kind: Kind = "file"
    elif stat.S_ISDIR(mode):
        kind = "directory"
    elif stat.S_ISLNK(mode):
        kind = "link"
    else:
        return None
    signature = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return Found(kind, stat.S_IMODE(mode), status.st_mtime_ns, signature)


def excluding(names: Sequence[str]) -> re.Pattern[bytes] | None:
    """Names with shell wildcards, matched against each name of a path."""
    if not names:
        return None
    return re.compile("|".join(fnmatch.translate(name) for name in names).encode())
