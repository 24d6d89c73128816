"""Takes in what the primary's agent sends, and keeps the workspace as it was at the end of the last whole cycle.

Used by `work` in a CPU standby. Owns the folder `inbox`: one subfolder, for the generation that carries the instance
now. When another generation does, or this machine takes over, the old subfolder is moved out of reach, so a late
machine has nowhere to write. Killed at any point it begins again with the newest manifest.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from libs.clock import Clock
from services.agent import restoring
from services.agent.answers import ReceiveOrder
from services.agent.manifest import BadManifest, Entry, Manifest, unpack
from services.agent.restoring import NotRestored, Restored
from services.agent.settings import AgentSettings
from services.agent.syncing import DRAFT_SUFFIX, MANIFEST_SUFFIX, part_name

INBOX, RETIRED, APPLIED_FILE = "inbox", "retired", "applied"
SOURCE = "standby"


class Applied(Struct, frozen=True):
    """The copy that the workspace is."""

    generation: int
    copy_id: str
    captured_at: str
    files: int
    bytes: int
    copies: int = 1  # how many this machine has taken in


class Receiver:
    """What this machine has received. All methods block: call them in a thread, one at a time."""

    def __init__(self, settings: AgentSettings, clock: Clock) -> None:
        self._folder = Path(settings.agent_dir)
        self._root = os.fsencode(os.path.realpath(settings.agent_workspace))
        self._clock = clock
        self._current: Manifest | None = None  # what the workspace is; unknown after a restart
        self.applied = self._read_applied()

    def obey(self, order: ReceiveOrder) -> Restored | None:
        """One step: the right inbox, then the newest copy. Returns what this machine has, when it is to take over.

        Raises NotRestored when it takes over and has nothing whole.
        """
        began_s = time.monotonic()
        self._fence(order)
        self._apply_newest()
        if not order.takes_over:
            return None
        applied = self.applied
        if applied is None:
            raise NotRestored("no whole copy has been received")
        self._current = None  # from here on the workspace is the customer's
        took_ms = round((time.monotonic() - began_s) * 1000)
        return Restored(SOURCE, applied.captured_at, applied.files, applied.bytes, took_ms)

    def note_own(self, generation: int, manifest: Manifest) -> None:
        """Our own workspace, held still, was sent as this copy: it is what we have if we take over again."""
        self._note(generation, manifest)

    def _fence(self, order: ReceiveOrder) -> None:
        """Only the generation that carries the instance finds its folder; after a takeover nobody does."""
        inbox, retired = self._folder / INBOX, self._folder / RETIRED
        inbox.mkdir(mode=0o700, exist_ok=True)
        retired.mkdir(mode=0o700, exist_ok=True)
        wanted = "" if order.takes_over else str(order.generation)
        for folder in list(inbox.iterdir()):
            if folder.name != wanted and folder.name.isdigit():
                shutil.rmtree(retired / folder.name, ignore_errors=True)
                folder.rename(retired / folder.name)
        if wanted:
            (inbox / wanted).mkdir(mode=0o700, exist_ok=True)

    def _apply_newest(self) -> None:
        """The newest copy of the newest generation that has one."""
        applied = self.applied
        for folder, manifest_path in self._copies():
            stamp = (int(folder.name), manifest_path.name.removesuffix(MANIFEST_SUFFIX))
            if applied is not None and stamp <= (applied.generation, applied.copy_id):
                return
            try:
                manifest = unpack(manifest_path.read_bytes())
                self._apply(folder, manifest)
            except (BadManifest, NotRestored, OSError):
                self._current = None
                continue  # a damaged copy: the one before it is whole
            self._note(int(folder.name), manifest)
            self._current = manifest
            self._tidy(folder, manifest)
            return

    def _copies(self) -> Sequence[tuple[Path, Path]]:
        """Every manifest received, newest first."""
        folders = [path for place in (INBOX, RETIRED) for path in (self._folder / place).glob("[0-9]*")]
        found = [(folder, path) for folder in folders for path in folder.glob("*" + MANIFEST_SUFFIX)]
        return sorted(found, key=lambda each: (int(each[0].name), each[1].name), reverse=True)

    def _apply(self, folder: Path, manifest: Manifest) -> None:
        """Drafts of what is new are checked first; then they are moved into their places, and what is gone goes."""
        was = {entry.path: entry for entry in self._current.entries} if self._current is not None else {}
        changed = [entry for entry in manifest.entries if not _is_same(was.get(entry.path), entry)]
        news = msgspec.structs.replace(manifest, entries=tuple(changed))
        restoring.prepare(self._root, news)
        for part, pieces in restoring.by_part(news):
            body = (folder / part_name(part.pack_id, part.number)).read_bytes()
            restoring.write_pieces(self._root, body, pieces)
        restoring.finish(self._root, news, self._clock)
        restoring.remove_others(self._root, manifest)

    def _tidy(self, folder: Path, manifest: Manifest) -> None:
        """Packs that this copy does not need, older manifests, drafts and generations are done with."""
        needed = {pack.pack_id for pack in manifest.packs}
        for path in folder.iterdir():
            copy_id = path.name.partition("-")[0].removesuffix(MANIFEST_SUFFIX)
            is_wanted = copy_id in needed and not path.name.endswith((MANIFEST_SUFFIX, DRAFT_SUFFIX))
            if copy_id < manifest.copy_id and not is_wanted:
                path.unlink(missing_ok=True)
        for old in (self._folder / RETIRED).glob("[0-9]*"):
            if old != folder and int(old.name) < int(folder.name):
                shutil.rmtree(old, ignore_errors=True)

    def _read_applied(self) -> Applied | None:
        try:
            return msgspec.json.decode((self._folder / APPLIED_FILE).read_bytes(), type=Applied)
        except (OSError, msgspec.DecodeError):
            return None

    def _note(self, generation: int, manifest: Manifest) -> None:
        path = self._folder / APPLIED_FILE
        new = path.with_suffix(".new")
        captured_at = manifest.captured_at.isoformat()
        copies = 1 if self.applied is None else self.applied.copies + 1
        applied = Applied(generation, manifest.copy_id, captured_at, manifest.files, manifest.bytes, copies)
        new.write_bytes(msgspec.json.encode(applied))
        new.replace(path)
        self.applied = applied


def _is_same(was: Entry | None, entry: Entry) -> bool:
    """Where its bytes lie does not matter."""
    return was is not None and msgspec.structs.replace(was, extents=()) == msgspec.structs.replace(entry, extents=())
