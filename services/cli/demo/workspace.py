"""The customer's files: written over SFTP, remembered by checksum, and looked for after a loss.

Used by `acts`. Owns the key pair of the demo's customer and what is known of every file that a machine acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from libs.clock import SystemClock

CONNECT_S_MAX, WRITE_S_MAX = 10.0, 30.0
FILES, FILE_BYTES = 200, 20_000
FILES_AT_ONCE = 16
JOURNAL_BYTES, JOURNAL_PAUSE_S = 400, 0.02
JOURNAL_FIRST = 20  # entries before the machine is taken: the writer is well under way by then
FOLDERS = ("model", "data", "results")

_ssh: Any = asyncssh  # its keyword arguments are untyped


@dataclass(frozen=True)
class Written:
    """A file as it was when the machine acknowledged it."""

    checksum: str
    at_s: float  # unix seconds


@dataclass(frozen=True)
class Comparison:
    """What is left of what was written. `loss_s`: how long before the loss the oldest missing work had been done."""

    written: int
    intact: int
    missing: int
    changed: int
    loss_s: float


@dataclass
class Workspace:
    """The files of one instance, wherever it runs."""

    key: asyncssh.SSHKey = field(default_factory=lambda: _ssh.generate_private_key("ssh-ed25519"))
    files: dict[str, Written] = field(default_factory=dict[str, Written])
    journal_length: int = 0
    _written: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def public_key(self) -> str:
        return self.key.export_public_key().decode().strip()

    async def fill(self, instance: dict[str, Any]) -> int:
        """Write FILES files in a few folders; the number of bytes."""
        async with self._sftp(instance) as sftp:
            for folder in FOLDERS:
                await sftp.makedirs(folder, exist_ok=True)
            slots = asyncio.Semaphore(FILES_AT_ONCE)

            async def put(number: int) -> None:
                async with slots:
                    name = f"{FOLDERS[number % len(FOLDERS)]}/file-{number:04}.bin"
                    await self._put(sftp, name, secrets.token_bytes(FILE_BYTES))

            async with asyncio.TaskGroup() as group:
                for number in range(FILES):
                    group.create_task(put(number))
        return FILES * FILE_BYTES

    async def keep_writing(self, instance: dict[str, Any], begun: asyncio.Event) -> None:
        """Work goes on until the machine is gone: a small file every few milliseconds. Returns when it is cut off."""
        first = self.journal_length + JOURNAL_FIRST
        with contextlib.suppress(asyncssh.Error, OSError):
            async with self._sftp(instance) as sftp:
                await sftp.makedirs("journal", exist_ok=True)
                while True:
                    self.journal_length += 1
                    entry = f"journal/{self.journal_length:06}.txt"
                    await self._put(sftp, entry, secrets.token_hex(JOURNAL_BYTES // 2).encode())
                    if self.journal_length == first:
                        begun.set()
                    async with self._written:
                        self._written.notify_all()
                    await asyncio.sleep(JOURNAL_PAUSE_S)

    async def until_written(self, more: int) -> None:
        """Wait while that many more files are written by `keep_writing`."""
        wanted = self.journal_length + more
        async with asyncio.timeout(WRITE_S_MAX), self._written:
            await self._written.wait_for(lambda: self.journal_length >= wanted)

    async def compare(self, instance: dict[str, Any], taken_at_s: float) -> Comparison:
        """Read everything back through the instance, wherever it is now."""
        found: dict[str, str | None] = {}
        async with self._sftp(instance) as sftp:
            slots = asyncio.Semaphore(FILES_AT_ONCE)

            async def get(name: str) -> None:
                async with slots:
                    try:
                        async with sftp.open(name, "rb") as opened:
                            found[name] = _checksum(await opened.read())
                    except asyncssh.SFTPNoSuchFile:
                        found[name] = None

            async with asyncio.TaskGroup() as group:
                for name in self.files:
                    group.create_task(get(name))
        missing = {name for name, checksum in found.items() if checksum is None}
        changed = {name for name, file in self.files.items() if found[name] not in (None, file.checksum)}
        gone = missing | changed
        loss_s = max((taken_at_s - self.files[name].at_s for name in gone), default=0.0)
        result = Comparison(len(self.files), len(self.files) - len(gone), len(missing), len(changed), max(0.0, loss_s))
        for name in gone:
            del self.files[name]  # the next act starts from what is there
        return result

    async def goes_on(self, instance: dict[str, Any]) -> bool:
        """A new file can be written and read back."""
        content = secrets.token_bytes(FILE_BYTES)
        async with self._sftp(instance) as sftp:
            await self._put(sftp, "results/after.bin", content)
            async with sftp.open("results/after.bin", "rb") as opened:
                return await opened.read() == content

    async def _put(self, sftp: Any, name: str, content: bytes) -> None:
        async with sftp.open(name, "wb") as opened:
            await opened.write(content)
        self.files[name] = Written(_checksum(content), SystemClock().now().timestamp())

    @asynccontextmanager
    async def _sftp(self, instance: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """The machine's host key is made with it, so there is none to know beforehand."""
        way_in: dict[str, Any] = {"username": "root", "client_keys": [self.key], "known_hosts": None}
        where = (instance["ssh_host"], instance["ssh_port"])
        async with (
            asyncssh.connect(*where, connect_timeout=CONNECT_S_MAX, **way_in) as connection,
            connection.start_sftp_client() as sftp,
        ):
            yield sftp


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
