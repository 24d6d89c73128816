"""SSH and SFTP into one machine: public keys only, loopback only, a real shell that starts in the workspace.

Used by `leader` inside the machine's process. Any user name is welcome, as in a container where everybody is root; the
key decides. SFTP sees the machine's directory as `/`; that is a convenience, not a wall: the shell sees the host as its
unprivileged user does. A key of the inbox gets no shell, and its SFTP takes files in and gives none out.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import posixpath
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import asyncssh

LOOPBACK = "127.0.0.1"
SHELL = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LOGIN_TIMEOUT_S = 30
KEEPALIVE_INTERVAL_S = 60
SESSIONS_MAX = 64  # per machine; a runaway script must not eat the host's terminals
# Options of a key that may only hand files in. asyncssh obeys all but the first, which `handle` does.
INBOX_ONLY = "no-shell,no-pty,no-port-forwarding,no-agent-forwarding,no-X11-forwarding"
INBOX = b"/.dumont/inbox"  # where a machine's agent takes in what another's sends
SFTP_READ, SFTP_WRITE = 0x01, 0x02  # draft-ietf-secsh-filexfer-02, SSH_FXF_READ and _WRITE; neither means read
SIGNAL_EXIT = 128  # a shell's way to say "ended by signal n"


def warm() -> None:
    """Load what asyncssh would load at the first login."""
    key = asyncssh.generate_private_key("ssh-ed25519")  # pyright: ignore[reportUnknownMemberType]
    text = key.export_public_key().decode()
    asyncssh.import_authorized_keys(text)
    asyncssh.import_private_key(key.export_private_key())


class Children:
    """The processes this leader started and adopted. The only place that waits for them, so no status is lost."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[subprocess.Popen[bytes], asyncio.Future[int]]] = {}

    def start(self, command: Sequence[str], **how: Any) -> tuple[subprocess.Popen[bytes], asyncio.Future[int]]:
        """Start a process; the future gives its exit status."""
        process = cast("subprocess.Popen[bytes]", subprocess.Popen(command, **how))  # noqa: S603 - running what the customer types is the purpose
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._running[process.pid] = (process, ended)
        return process, ended

    def pids(self) -> list[int]:
        return list(self._running)

    def reap(self) -> list[tuple[int, int]]:
        """Collect all who ended; (pid, exit status) of those that `start` did not start. On SIGCHLD."""
        others: list[tuple[int, int]] = []
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return others
            if pid == 0:
                return others
            status = os.waitstatus_to_exitcode(code)
            if pid in self._running:
                process, ended = self._running.pop(pid)
                process.returncode = status  # or Popen would wait for a process that is no more
                if not ended.done():
                    ended.set_result(status)
            else:
                others.append((pid, status))


class _MachineFiles(asyncssh.SFTPServer):
    """Files of the machine, `/` being its directory and relative names starting in the workspace."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], directory: str) -> None:
        super().__init__(channel, chroot=directory.encode())  # pyright: ignore[reportUnknownMemberType]

    def map_path(self, path: bytes) -> bytes:
        return super().map_path(posixpath.join(b"/workspace", path))

    def realpath(self, path: bytes) -> bytes:
        # Not resolved on disk: a workspace that is a link to a shared volume keeps its name.
        return posixpath.normpath(posixpath.join(b"/workspace", path))


class _Inbox(_MachineFiles):
    """Files may be made in the folders that are there, written and renamed. What was written is not to be had back."""

    REFUSED = (
        "open56", "read", "setstat", "lsetstat", "fsetstat", "scandir", "remove", "mkdir", "rmdir",
        "readlink", "symlink", "link", "statvfs", "fstatvfs",
    )  # fmt: skip

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], directory: str) -> None:
        super().__init__(channel, directory)
        for name in self.REFUSED:
            setattr(self, name, _refuse)

    def map_path(self, path: bytes) -> bytes:
        if not self.realpath(path).startswith(INBOX + b"/"):
            _refuse()
        return super().map_path(path)

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if pflags & (SFTP_READ | SFTP_WRITE) != SFTP_WRITE:
            _refuse()
        return super().open(path, pflags, attrs)


def _refuse(*_asked: object) -> NoReturn:
    raise asyncssh.SFTPPermissionDenied("this key may only hand files in")


def _may_have_shell(channel: asyncssh.SSHServerChannel[bytes]) -> bool:
    connection = cast("asyncssh.SSHServerConnection", channel.get_connection())
    return connection.check_key_permission("shell")


def authorized_keys(public_keys: Sequence[str], inbox_public_keys: Sequence[str]) -> str:
    """Who may log in. Those of the inbox only hand files in."""
    return "\n".join([*(f"{INBOX_ONLY} {key}" for key in inbox_public_keys), *public_keys])


async def open_server(
    directory: str,
    *,
    private: Path,
    port: int,
    authorized_keys: str,
    environment: Mapping[str, str],
    children: Children,
) -> int:
    """Serve SSH on `port` of the loopback, or on one the system picks when that is 0 or taken. Returns the port."""

    async def handle(process: asyncssh.SSHServerProcess[bytes]) -> None:
        if not _may_have_shell(process.channel):
            process.stderr.write(b"this key may only hand files in\n")
            process.exit(1)
            return
        await _serve_session(process, directory, environment, children)

    def files(channel: asyncssh.SSHServerChannel[bytes]) -> asyncssh.SFTPServer:
        return (_MachineFiles if _may_have_shell(channel) else _Inbox)(channel, directory)

    options: dict[str, Any] = {
        "server_host_keys": [_host_key(private / "ssh_host_key")],
        "authorized_client_keys": asyncssh.import_authorized_keys(authorized_keys),
        "process_factory": handle,
        "sftp_factory": files,
        "allow_scp": True,
        "encoding": None,
        "line_editor": False,
        "login_timeout": LOGIN_TIMEOUT_S,
        "keepalive_interval": KEEPALIVE_INTERVAL_S,
        "password_auth": False,
        "kbdint_auth": False,
        "gss_host": None,
        "agent_forwarding": False,
        "reuse_address": True,
    }
    try:
        server = await asyncssh.listen(LOOPBACK, port, **options)
    except OSError:
        if port == 0:
            raise
        server = await asyncssh.listen(LOOPBACK, 0, **options)
    return server.get_port()


def _host_key(path: Path) -> asyncssh.SSHKey:
    """The machine's identity, kept over stop and start so that known_hosts stays true."""
    if path.exists():
        return asyncssh.read_private_key(path)
    key = asyncssh.generate_private_key("ssh-ed25519")  # pyright: ignore[reportUnknownMemberType]
    path.touch(mode=0o600)
    path.write_bytes(key.export_private_key())
    return key


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """What a process inside the machine finds in its environment: nothing of the daemon's own."""
    return {"PATH": SYSTEM_PATH, "SHELL": SHELL, "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8", **environment}


async def _serve_session(
    process: asyncssh.SSHServerProcess[bytes], directory: str, environment: Mapping[str, str], children: Children
) -> None:
    if len(children.pids()) >= SESSIONS_MAX:
        process.stderr.write(b"too many sessions in this machine\n")
        process.exit(1)
        return
    how: dict[str, Any] = {"cwd": Path(directory, "workspace"), "env": surroundings(environment)}
    command = [SHELL, "-c", process.command] if process.command else [SHELL, "-l"]
    if process.term_type:
        how["env"]["TERM"] = process.term_type
        status = await _run_on_terminal(process, command, how, children)
    else:
        status = await _run_on_pipes(process, command, how, children)
    process.exit(status if status >= 0 else SIGNAL_EXIT - status)
    await process.wait_closed()


async def _run_on_pipes(
    process: asyncssh.SSHServerProcess[bytes], command: Sequence[str], how: dict[str, Any], children: Children
) -> int:
    pipe = subprocess.PIPE
    child, ended = children.start(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, **how)
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    status = await ended
    await process.stdout.drain()
    await process.stderr.drain()
    return status


async def _run_on_terminal(
    process: asyncssh.SSHServerProcess[bytes], command: Sequence[str], how: dict[str, Any], children: Children
) -> int:
    ours, theirs = pty.openpty()
    width, height, width_pixels, height_pixels = process.term_size
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, width_pixels, height_pixels))
    try:
        # preexec_fn is safe here: this process has one thread.
        _, ended = children.start(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,
            **how,
        )
    finally:
        os.close(theirs)
    await process.redirect(stdin=os.fdopen(os.dup(ours), "wb", 0), stdout=os.fdopen(ours, "rb", 0))
    status = await ended
    await process.stdout.drain()
    return status


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
