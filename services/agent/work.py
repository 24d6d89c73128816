"""What the agent does beside its heartbeats: fill the machine once, take snapshots when asked. Used by `program`.

One snapshot at a time. What the world does wrong ends a piece of work, not the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from libs.clock import Clock
from libs.config import surroundings
from services.agent import freezing, restoring, snapshotting
from services.agent.answers import ReceiveOrder, SnapshotOrder, SyncOrder
from services.agent.receiving import SOURCE, Receiver
from services.agent.restoring import NotRestored, Restored
from services.agent.settings import AgentSettings
from services.agent.syncing import Syncer
from services.agent.transfer import UNHEARD, Transfer, TransferFailed

INHERITED = ("PATH", "LANG", "LC_ALL", "TZ")
COMMAND_NOTE = "start_command."  # and the boot in which it has begun
# Notes that it begins, which only one can do, and becomes the customer's command. So an agent that dies at any moment
# leaves it either begun or to be begun by the next agent.
ONCE = '{ set -C && true > "$0"; } 2>/dev/null || exit 0; exec /bin/sh -c "$1"'
SERVING_FILE = "serving"  # of a machine that has taken over
REPORT_PAUSE_S = 5.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
RECEIVE_PAUSE_S = 1.0  # between two looks for a new copy


class Serving(Struct, frozen=True):
    """A machine that has taken over, and what ran in it before the customer's programs."""

    boot: str
    machine_runs_on: Mapping[int, str]


class Work:
    """`message` is the newest outcome, for the next heartbeat."""

    def __init__(self, settings: AgentSettings, transfer: Transfer, clock: Clock, group: asyncio.TaskGroup) -> None:
        self._settings = settings
        self._transfer = transfer
        self._clock = clock
        self._group = group
        self._snapshot: asyncio.Task[None] | None = None
        self._filling: asyncio.Task[None] | None = None
        self._syncer: Syncer | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._receiver = Receiver(settings, clock)
        self._receive_order: ReceiveOrder | None = None
        self._receiving: asyncio.Task[None] | None = None
        self.message = ""

    @property
    def is_busy(self) -> bool:
        return any(task is not None and not task.done() for task in (self._snapshot, self._filling))

    @property
    def received(self) -> dict[str, Any] | None:
        """What a CPU standby has, for its heartbeat; None: nothing whole."""
        applied = self._receiver.applied
        if applied is None:
            return None
        return {
            "captured_at": applied.captured_at,
            "files": applied.files,
            "bytes": applied.bytes,
            "copies": applied.copies,
        }

    def begin(self) -> None:
        """What this machine was ordered for."""
        if Path(self._settings.agent_dir, SERVING_FILE).exists():
            self._note_serving()
        if self._settings.agent_restore:
            self._filling = self._group.create_task(self._fill())

    def run_start_command(self) -> None:
        """The customer's, once per boot. This machine has the files, and no other carries the instance."""
        command = self._settings.agent_start_command
        note = Path(self._settings.agent_dir, COMMAND_NOTE + _boot(self._settings))
        if not command or note.exists():
            return
        self._forget_notes(but=note)
        with Path(self._settings.agent_dir, "start.log").open("ab") as log:
            subprocess.Popen(  # noqa: S603 - the customer's own command in the customer's own machine
                ["/bin/sh", "-c", ONCE, str(note.absolute()), command],
                cwd=self._settings.agent_workspace,
                env=self._command_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _forget_notes(self, *, but: Path | None = None) -> None:
        for note in Path(self._settings.agent_dir).glob(COMMAND_NOTE + "*"):
            if note != but:
                note.unlink(missing_ok=True)

    def order(self, order: SnapshotOrder | None) -> None:
        """Asked for with every heartbeat until it is there, so one under way is left alone."""
        if order is None or self.is_busy:
            return
        self._snapshot = self._group.create_task(self._take(order))

    def sync(self, order: SyncOrder | None) -> None:
        """The same order again and again; another standby, generation or pace begins anew."""
        if self._syncer is not None and order is not None and _is_same_target(order, self._syncer.order):
            self._syncer.order = order  # asked to make the next one the last, or not to
            return
        if order is None and self._syncer is None:
            return
        if self._syncing is not None:
            self._syncing.cancel()
        self._syncer = self._syncing = None
        if order is not None:
            self._syncer = Syncer(order, self._settings, self._transfer, self._clock, self._receiver.note_own)
            self._syncing = self._group.create_task(self._syncer.run())

    def receive(self, order: ReceiveOrder | None) -> None:
        """For a CPU standby: from now on until told otherwise. One that carried the instance has handed over."""
        self._receive_order = order
        if order is not None and not order.takes_over:
            self._retire()
        if order is not None and (self._receiving is None or self._receiving.done()):
            self._receiving = self._group.create_task(self._receive())

    async def _receive(self) -> None:
        while (order := self._receive_order) is not None:
            try:
                done = await asyncio.to_thread(self._receiver.obey, order)
            except NotRestored as error:
                self.message, why = f"not restored: {error}", str(error)
                await self._tell(partial(restoring.report_failure, SOURCE, why, self._transfer))
                return
            if done is not None:
                await self._took_over(done)
                return
            await self._clock.sleep(RECEIVE_PAUSE_S)

    def _note_serving(self) -> None:
        """What runs before the customer's programs do, once per boot."""
        path, boot = Path(self._settings.agent_dir, SERVING_FILE), _boot(self._settings)
        if path.exists() and msgspec.json.decode(path.read_bytes(), type=Serving).boot == boot:
            return
        new = path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(Serving(boot, freezing.running(self._settings.agent_scope))))
        new.replace(path)

    def _retire(self) -> None:
        """Another machine carries the instance now: the customer's programs here end, before anything goes on."""
        serving = Path(self._settings.agent_dir, SERVING_FILE)
        if not serving.exists():
            return
        noted = msgspec.json.decode(serving.read_bytes(), type=Serving)
        freezing.end_others(self._settings.agent_scope, noted.machine_runs_on)
        self._forget_notes()
        serving.unlink()

    async def _took_over(self, done: Restored) -> None:
        self._note_serving()
        self.run_start_command()
        self.message = f"took over with {done.files} files"
        await self._tell(lambda: restoring.report(done, settings=self._settings, transfer=self._transfer))

    def end(self) -> None:
        for task in (self._snapshot, self._filling, self._syncing, self._receiving):
            if task is not None:
                task.cancel()

    async def _take(self, order: SnapshotOrder) -> None:
        self.message = await snapshotting.take(
            order.snapshot_id, order.base_id, settings=self._settings, transfer=self._transfer, clock=self._clock
        )

    async def _fill(self) -> None:
        """Ends when the platform has heard of it; then the customer's command runs, once per boot."""
        source = self._settings.agent_restore
        done = restoring.restored(self._settings)
        if done is None or done.source != source:
            try:
                done = await restoring.fill(source, settings=self._settings, transfer=self._transfer, clock=self._clock)
            except (NotRestored, TransferFailed) as error:
                self.message, why = f"not restored: {error}", str(error)
                await self._tell(lambda: restoring.report_failure(source, why, self._transfer))
                return
        self.run_start_command()
        self.message = f"restored {done.files} files"
        if not done.reported:
            found: Restored = done
            await self._tell(lambda: restoring.report(found, settings=self._settings, transfer=self._transfer))

    async def _tell(self, report: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await report()
            except TransferFailed as error:
                if error.code != UNHEARD:
                    return  # the gateway has heard it, and wants nothing of it
                await self._clock.sleep(REPORT_PAUSE_S)
            else:
                return

    def _command_environment(self) -> dict[str, str]:
        """The customer's variables, and nothing of ours."""
        around = {name: value for name, value in surroundings().items() if name in INHERITED}
        own: dict[str, str] = msgspec.json.decode(self._settings.agent_start_env or "{}", type=dict[str, str])
        return {**around, "HOME": self._settings.agent_workspace, **own}


def _is_same_target(one: SyncOrder, other: SyncOrder) -> bool:
    return msgspec.structs.replace(one, is_last=other.is_last) == other


def _boot(settings: AgentSettings) -> str:
    """Tells one boot of this machine from another: by its first process, in the kernel's own count. By the clock, one
    that is set right a minute after a boot would look like another boot."""
    first, boot_id = 1 if settings.agent_scope == "host" else os.getppid(), ""
    with contextlib.suppress(OSError):
        boot_id = BOOT_ID.read_text().strip()
    return f"{boot_id}.{first}.{freezing.born(first)}"
