"""Small files with strict rules: remembered ports, secrets that only we can read, atomic replacement.

Called by the embedded servers and the supervisor. Every file here is 0600 in a 0700 folder and is written whole or not
at all, so that a kill at any moment leaves the old or the new text.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path

SECRET_BYTES = 32
PORT_TRIES_MAX = 200
# Ports we pick for servers that must come back on the same port lie below the usual ephemeral range (32768-60999 on
# Linux): a client that keeps dialling a dead port inside that range may be given that very port as its own and connect
# to itself, and the server could then never bind it again.
PORT_FIRST = 15000
PORT_LAST = 32000
LOOPBACK = "127.0.0.1"
# Ports this process has given out. A plan picks several before the first server binds its own, and two of some hundred
# runs a day would otherwise be given one port twice (five picks of 17,000: one run in 1,700).
_given: set[int] = set()


def private_folder(path: Path) -> Path:
    """Create `path` for our eyes only; an existing folder keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def replace_private(path: Path, text: str) -> None:
    """Write `text` to `path` (0600), whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def remembered_secret(path: Path) -> str:
    """The hex secret kept in `path`; made on first use."""
    if not path.exists():
        private_folder(path.parent)
        replace_private(path, secrets.token_hex(SECRET_BYTES))
    return path.read_text().strip()


def remembered_port(path: Path, host: str = LOOPBACK) -> int:
    """The port kept in `path`, picked on first use; picked again only when somebody else has taken it meanwhile."""
    if path.exists():
        port = int(path.read_text())
        if is_free(port, host):
            _given.add(port)
            return port
    port = pick_port(host)
    private_folder(path.parent)
    replace_private(path, str(port))
    return port


def pick_port(host: str = LOOPBACK) -> int:
    """A TCP port nobody listens on now, and no one in this process was given before.

    Another process may take it before its server binds it: the server's start then fails. Raises OSError.
    """
    for _ in range(PORT_TRIES_MAX):
        port = PORT_FIRST + secrets.randbelow(PORT_LAST - PORT_FIRST)
        if port not in _given and is_free(port, host):
            _given.add(port)
            return port
    raise OSError(f"no free port between {PORT_FIRST} and {PORT_LAST} after {PORT_TRIES_MAX} tries")


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could bind this port now (as servers do it: with SO_REUSEADDR)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True
