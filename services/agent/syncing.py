"""Keeps a CPU standby in sync: one cycle after the other, over SFTP, only what has changed, whole or not at all.

Used by `work` in the primary's machine. A cycle is a capture like a snapshot's; its parts go first, its manifest last
and under another name until it is complete, so the standby sees a cycle entirely or not. It is written into the folder
that the standby's own agent has made for our generation: once a later one is the primary, that folder is gone, and what
a late machine sends finds no place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import asyncssh

from libs.clock import Clock
from libs.config import name_user
from services.agent import freezing
from services.agent.answers import SyncOrder
from services.agent.capturing import Capture, Copied, Known
from services.agent.manifest import Manifest, Pack, pack_up
from services.agent.packing import Packer
from services.agent.scanning import TooManyFiles, excluding
from services.agent.settings import AgentSettings
from services.agent.transfer import UNHEARD, Transfer, TransferFailed

INBOX = "/.dumont/inbox"  # in the standby, as its SFTP shows it
SPOOL = "sync_spool"
CONNECT_TIMEOUT_S = 15.0
CYCLE_TIMEOUT_S = 300.0  # contract dumont 5
# The last copy: what it may take, how long we wait to hear that it counts, and how long everything is held still when
# that is unknown, or known. A platform that says nothing for so long has long given this machine up.
LAST_COPY_TIMEOUT_S, LAST_REPORT_TIMEOUT_S = 20.0, 20.0
HELD_UNKNOWN_S, HELD_S_MAX = 60.0, 300
RETRY_MIN_S = 2.0  # after a copy that failed, doubling up to the interval: a standby may just not be there yet
LAST_PAUSE_S = 10.0  # before another try to hold still
# The next copy begins so much before one interval is over that it is there when it is: what this one took and half of
# that again, but never more than half the interval, or a large workspace would be copied all the time.
LEAD_RATIO, LEAD_SHARE_MAX = 1.5, 0.5
MANIFEST_SUFFIX, DRAFT_SUFFIX = ".manifest", ".draft"

ssh: Any = asyncssh  # its types are partial


class Syncer:
    """All cycles to one standby in one generation. Forgotten with the agent: the next one begins with a whole copy.

    `sent_last` is told of the copy that hands over, before anybody else is."""

    def __init__(
        self,
        order: SyncOrder,
        settings: AgentSettings,
        transfer: Transfer,
        clock: Clock,
        sent_last: Callable[[int, Manifest], None],
    ) -> None:
        self.order = order
        self._sent_last = sent_last
        self._settings = settings
        self._transfer = transfer
        self._clock = clock
        self._known: Mapping[bytes, Known] = {}
        self._packs: tuple[Pack, ...] = ()
        self._failures = 0  # in a row
        self._reporting: asyncio.Task[None] | None = None
        name_user()

    async def run(self) -> None:
        """For ever. What goes wrong ends a cycle, not the next."""
        try:
            while True:
                began_s = self._clock.monotonic_s()
                if self.order.is_last:
                    await self._hand_over(began_s)
                    await self._clock.sleep(LAST_PAUSE_S)
                    continue
                await self._clock.sleep(max(0.0, await self._cycle(began_s)))
        finally:
            if self._reporting is not None:
                self._reporting.cancel()

    async def _cycle(self, began_s: float) -> float:
        """One copy. Returns how long to wait with the next, so that this one is not older than an interval then."""
        now = self._clock.now()
        facts: dict[str, Any] = {
            "kind": "synced",
            "source": self.order.standby_machine_id,
            "cycle": int(now.timestamp() // self.order.interval_s),
        }
        captured_at = None
        try:
            async with asyncio.timeout(CYCLE_TIMEOUT_S):
                copied = await self._send(f"{int(now.timestamp() * 1000):015d}")
        except (OSError, asyncssh.Error, TooManyFiles, TimeoutError) as error:
            # What the standby has of this cycle is unknown: begin the next with a whole copy.
            self._known, self._packs = {}, ()
            facts |= {"ok": False, "detail": f"{type(error).__name__}: {error}"[:500]}
        else:
            self._known, self._packs = copied.known, copied.manifest.packs
            manifest, captured_at = copied.manifest, copied.manifest.captured_at
            facts |= {"files": manifest.files, "bytes": copied.stored_bytes, "captured_at": captured_at}
        took_s = self._clock.monotonic_s() - began_s
        facts["took_ms"] = round(took_s * 1000)
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(self._report(facts))
        if captured_at is None:
            self._failures += 1
            return min(self.order.interval_s - took_s, RETRY_MIN_S * 2 ** min(self._failures - 1, 10))
        self._failures = 0
        age_s = (self._clock.now() - captured_at).total_seconds()
        return self.order.interval_s - age_s - min(took_s * LEAD_RATIO, self.order.interval_s * LEAD_SHARE_MAX)

    async def _report(self, facts: dict[str, Any]) -> None:
        """Beside the next copies, which do not wait for a platform that is away: one at a time, the next says more."""
        with contextlib.suppress(TransferFailed):  # the standby has it all the same, and says so when it takes over
            await self._transfer.report(facts)

    async def _hand_over(self, began_s: float) -> None:
        """Hold everything still, send the last copy, and stay so until we are told what we are now.

        Cancelled then (`Work`), which ends the holding. Not heard: everything goes on, and we try again later."""
        now = self._clock.now()
        facts: dict[str, Any] = {
            "kind": "synced",
            "source": self.order.standby_machine_id,
            "cycle": int(now.timestamp() // self.order.interval_s),
            "is_last": True,
        }
        scope = self._settings.agent_scope
        with contextlib.ExitStack() as holding:
            if not holding.enter_context(freezing.held(scope, limit_s=HELD_S_MAX)):
                return
            try:
                async with asyncio.timeout(LAST_COPY_TIMEOUT_S):
                    copied = await self._send(f"{int(now.timestamp() * 1000):015d}", is_held=True)
            except (OSError, asyncssh.Error, TooManyFiles, TimeoutError):
                self._known, self._packs = {}, ()
                return
            manifest = copied.manifest
            self._known, self._packs = copied.known, manifest.packs
            await asyncio.to_thread(self._sent_last, self.order.generation, manifest)
            facts |= {"files": manifest.files, "bytes": copied.stored_bytes, "captured_at": manifest.captured_at}
            facts["took_ms"] = round((self._clock.monotonic_s() - began_s) * 1000)
            held_s = float(HELD_S_MAX)
            try:
                async with asyncio.timeout(LAST_REPORT_TIMEOUT_S):
                    await self._transfer.report(facts)
            except TransferFailed as refused:
                if refused.code != UNHEARD:
                    return
                held_s = HELD_UNKNOWN_S
            except TimeoutError:
                held_s = HELD_UNKNOWN_S
            await self._clock.sleep(max(0.0, held_s - (self._clock.monotonic_s() - began_s)))

    async def _send(self, copy_id: str, *, is_held: bool = False) -> Copied:
        order, loop = self.order, asyncio.get_running_loop()
        spool = Path(self._settings.agent_dir, SPOOL)
        shutil.rmtree(spool, ignore_errors=True)
        spool.mkdir(mode=0o700)
        folder = f"{INBOX}/{order.generation}"
        async with ssh.connect(order.host, **_login(order)) as connection, connection.start_sftp_client() as files:

            async def put(path: Path, name: str) -> None:
                await files.put(os.fspath(path), f"{folder}/{name}{DRAFT_SUFFIX}")
                await files.posix_rename(f"{folder}/{name}{DRAFT_SUFFIX}", f"{folder}/{name}")

            def ship(path: Path, number: int) -> None:
                asyncio.run_coroutine_threadsafe(put(path, part_name(copy_id, number)), loop).result()

            capture = Capture(
                copy_id,
                os.fsencode(os.path.realpath(self._settings.agent_workspace)),
                known=self._known,
                packs=self._packs,
                packer=Packer(spool, len(self._packs), ship),
                excludes=excluding(order.excludes),
                scope=self._settings.agent_scope,
                clock=self._clock,
                is_held=is_held,
            )
            copied = await asyncio.to_thread(capture.run)
            manifest = spool / "manifest"
            await asyncio.to_thread(manifest.write_bytes, pack_up(copied.manifest))
            await put(manifest, copy_id + MANIFEST_SUFFIX)
        return copied


def _login(order: SyncOrder) -> dict[str, Any]:
    return {
        "port": order.port,
        "username": "root",
        "client_keys": [ssh.import_private_key(order.private_key)],
        "known_hosts": None,  # made by our own platform, and the key opens only the inbox
        "connect_timeout": CONNECT_TIMEOUT_S,
        "config": None,
        "agent_path": None,
        "x509_trusted_certs": [],
        "x509_trusted_cert_paths": [],
    }


def part_name(copy_id: str, number: int) -> str:
    return f"{copy_id}-{number:08d}"
