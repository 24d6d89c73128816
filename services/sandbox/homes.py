"""Machine directories and who owns them: DATA/sandbox/machines/<id>/ with `workspace/`, volumes beside them.

Used by `carriers` and `__main__`. When the daemon is root each machine gets a user of its own, so that machines cannot
read each other and everything of a machine can be found by its user. A user must be able to reach its directory: when
DATA lies under a closed directory (/root), the machines live under /var/tmp and DATA holds a link to them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from services.sandbox.leader import PRIVATE
from services.sandbox.records import Record, Volume, replace

# Above the users of usual systems and below `nobody` (65534), the highest id a rootless container maps.
USER_ID_FIRST, USER_ID_LAST = 20_000, 59_999
GROUP_ID_FIRST, GROUP_ID_LAST = 60_000, 64_999
# What a volume's group may do; set-group-id: new files are the group's too.
DIRECTORY_BITS, FILE_BITS = 0o2770, 0o060
OPEN_PLACE = Path("/var/tmp")  # noqa: S108 - a root-owned directory is made in it, refused if it is not ours


class NoFreeUser(Exception):
    """More machines than user ids."""


class Homes:
    """The directories of all machines and volumes."""

    def __init__(self, root: Path) -> None:
        """`root` is DATA/sandbox. Called before the event loop: it forks to try out another user."""
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o711)  # machines pass through it to their own directories; what is in it is closed
        self._root = root
        # Clouds side by side on one host start at different places, so that they rarely share a user.
        self._start = int.from_bytes(hashlib.sha256(str(root.resolve()).encode()).digest()[:4], "big")
        self.isolated = os.geteuid() == 0 and _can_become(USER_ID_FIRST)
        self._directory = self._place()

    def home(self, machine_id: str) -> Path:
        return self._directory / machine_id

    @property
    def gateway_file(self) -> Path:
        """Where agents look the gateway up: one file for all, so that machines that outlived us find it too."""
        return self._directory / "gateway"

    def gpu_file(self, machine_id: str) -> Path:
        """What the machine's GPUs are doing. Beside its directory: nothing of the machine may write it."""
        return self._directory / "gpus" / f"{machine_id}.json"

    def tell(self, path: Path, content: bytes) -> None:
        """Leave word for machines, which may read it and no more."""
        path.parent.mkdir(mode=0o711, exist_ok=True)
        replace(path, content)
        path.chmod(0o644)

    def volume(self, volume_id: str) -> Path:
        return self._directory / "volumes" / volume_id

    def make(self, record: Record, volume: Volume | None) -> Path:
        """The machine's directory, made if it is not there."""
        home = self.home(record.machine_id)
        home.mkdir(mode=0o700, exist_ok=True)
        private = home / PRIVATE
        private.mkdir(mode=0o700, exist_ok=True)
        workspace = home / "workspace"
        if volume is not None and not workspace.is_symlink():
            workspace.symlink_to(self.volume(volume.volume_id))
        elif volume is None:
            workspace.mkdir(mode=0o755, exist_ok=True)
        if record.user_id:
            for path in (home, private, workspace):
                os.chown(path, record.user_id, record.user_id, follow_symlinks=False)
        mounted = home / record.mount_path.lstrip("/")
        if volume is not None and not mounted.is_symlink() and not mounted.exists():
            mounted.symlink_to(self.volume(volume.volume_id))
        return home

    def share(self, record: Record, volume: Volume) -> None:
        """Turn the machine's own workspace into the volume's directory, by renaming it: open files stay open.

        Every step can be met again after a crash between any two of them.
        """
        workspace, place = self.home(record.machine_id) / "workspace", self.volume(volume.volume_id)
        if workspace.is_symlink():
            return
        if workspace.is_dir():
            workspace.rename(place)  # over the volume's own directory, which is empty
        if volume.group_id:
            _hand_over(place, record.user_id, volume.group_id)
        workspace.symlink_to(place)

    def wipe(self, machine_id: str) -> None:
        """Take the machine's directory away. A volume it links to stays, and what it wrote there is for the others."""
        home = self.home(machine_id)
        workspace = home / "workspace"
        if self.isolated and workspace.is_symlink():
            place = workspace.resolve()
            if place.is_relative_to(self._directory / "volumes") and place.is_dir():
                _hand_over(place, home.lstat().st_uid, place.lstat().st_gid)
        shutil.rmtree(home, ignore_errors=True)
        self.gpu_file(machine_id).unlink(missing_ok=True)

    def make_volume(self, volume: Volume) -> None:
        path = self.volume(volume.volume_id)
        path.mkdir(parents=True, exist_ok=True)
        if volume.group_id:
            os.chown(path, 0, volume.group_id)
            path.chmod(0o2770)  # set-group-id: what one machine writes, the others may change

    def wipe_volume(self, volume_id: str) -> None:
        shutil.rmtree(self.volume(volume_id), ignore_errors=True)

    def free_user(self, taken: Iterable[int]) -> int:
        return _first_free(USER_ID_FIRST, USER_ID_LAST, taken, self._start) if self.isolated else 0

    def free_group(self, taken: Iterable[int]) -> int:
        return _first_free(GROUP_ID_FIRST, GROUP_ID_LAST, taken, self._start) if self.isolated else 0

    def _place(self) -> Path:
        wanted = self._root / "machines"
        if wanted.is_symlink():
            return _owned(wanted.resolve())
        wanted.mkdir(mode=0o711, exist_ok=True)
        if not self.isolated or _can_reach(USER_ID_FIRST, wanted):
            return wanted.resolve()
        digest = hashlib.sha256(str(wanted.resolve()).encode()).hexdigest()[:16]
        elsewhere = OPEN_PLACE / f"dumont-sandbox-{digest}"
        elsewhere.mkdir(mode=0o711, exist_ok=True)
        wanted.rmdir()
        wanted.symlink_to(elsewhere)
        return _owned(elsewhere)


def _hand_over(place: Path, user_id: int, group_id: int) -> None:
    """Let a volume's group change what one machine's user has written. Follows no link, touches nobody else's files."""
    for folder, _, files, folder_descriptor in os.fwalk(place, follow_symlinks=False):
        del folder
        _open_to_group(folder_descriptor, user_id, group_id, DIRECTORY_BITS)
        for name in files:
            try:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_descriptor)
            except OSError:
                continue  # a link, a socket, or gone meanwhile
            try:
                _open_to_group(descriptor, user_id, group_id, FILE_BITS)
            finally:
                os.close(descriptor)


def _open_to_group(descriptor: int, user_id: int, group_id: int, bits: int) -> None:
    found = os.fstat(descriptor)
    if found.st_uid != user_id:
        return
    os.fchown(descriptor, -1, group_id)
    also_run = (found.st_mode & 0o100) >> 3
    os.fchmod(descriptor, (found.st_mode & 0o7777) | bits | also_run)


def _owned(place: Path) -> Path:
    """Refuse a directory that somebody else prepared for us under a public one."""
    place.mkdir(mode=0o711, exist_ok=True)
    found = place.lstat()
    if found.st_uid != os.geteuid() or not place.is_dir() or place.is_symlink():
        raise PermissionError(f"{place} is not a directory of ours")
    return place


def _first_free(first: int, last: int, taken: Iterable[int], start: int) -> int:
    used = set(taken)
    count = last - first + 1
    for step in range(count):
        number = first + (start + step) % count
        if number not in used:
            return number
    raise NoFreeUser(f"all ids from {first} to {last} are taken")


def _can_become(user_id: int) -> bool:
    return _succeeds_as(user_id, Path("/"))


def _can_reach(user_id: int, path: Path) -> bool:
    return _succeeds_as(user_id, path.resolve())


def _succeeds_as(user_id: int, path: Path) -> bool:
    """Whether `user_id` exists for this kernel and may enter `path`, found out by being it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(user_id, user_id, user_id)
            os.setresuid(user_id, user_id, user_id)
            os.chdir(path)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
