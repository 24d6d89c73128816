"""Outcomes into mailboxes, many to a commit. Nothing given to it is dropped: an unwell log is waited for.

Used by the dispatcher. Owns what is not written down yet, per mailbox in order; one commit of a mailbox is under way at
a time, mailboxes side by side. A commit costs the log the same whether it holds one outcome or a hundred.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from libs.clock import Clock
from libs.runtime.service import Handle
from libs.runtime.unwell import until_well
from proto.webhook_dispatch.commands import Record, RecordDeliveries
from proto.webhook_dispatch.words import mailbox_of
from services.webhook_dispatch.effects.directory import Target
from services.webhook_dispatch.effects.lanes import Parcel

RECORDS_MAX = 100  # of one commit: 10 ms of the fastest receiver
COMMIT_CHARS_MAX = 100_000  # of bodies and answers; escaped they stay far below the log's limit
GATHER_S = 0.005  # outcomes of these milliseconds share a commit; the POST itself took about as long
COMMITS_SIDE_BY_SIDE_MAX = 64


class _Item(NamedTuple):
    parcel: Parcel
    record: Record
    size: int


class _Mailbox(NamedTuple):
    target: Target
    items: deque[_Item]


class Recorder:
    """`recorded(parcel)` is called when a parcel's outcome is durable."""

    def __init__(self, handle: Handle, clock: Clock, recorded: Callable[[Parcel], None], *, pace_ppm: int) -> None:
        self._handle = handle
        self._clock = clock
        self._recorded = recorded
        self._pace_ppm = pace_ppm
        self._open: dict[str, _Mailbox] = {}
        self._busy: set[str] = set()
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(COMMITS_SIDE_BY_SIDE_MAX)

    def add(self, target: Target, parcel: Parcel, record: Record) -> None:
        """To be written down soon. The order of one mailbox is kept."""
        mailbox_id = mailbox_of(target.endpoint_id, parcel.public_seq)
        found = self._open.get(mailbox_id)
        if found is None:
            found = self._open[mailbox_id] = _Mailbox(target, deque())
        size = len(record.delivery.body) if record.delivery is not None else 0
        size += len(record.attempt.response) if record.attempt is not None else 0
        found.items.append(_Item(parcel, record, size))
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                await self._clock.sleep(GATHER_S)
                self._wake.clear()
                for mailbox_id in [each for each in self._open if each not in self._busy]:
                    self._busy.add(mailbox_id)
                    await self._room.acquire()
                    group.create_task(self._write(mailbox_id))

    async def _write(self, mailbox_id: str) -> None:
        """Everything of one mailbox, commit after commit."""
        mailbox = self._open[mailbox_id]
        try:
            while mailbox.items:
                items = _chunk(mailbox.items)
                await self._commit(mailbox_id, mailbox.target, items)
                for item in items:
                    mailbox.items.popleft()
                    self._recorded(item.parcel)
            del self._open[mailbox_id]
        finally:
            self._busy.discard(mailbox_id)
            self._room.release()

    async def _commit(self, mailbox_id: str, target: Target, items: list[_Item]) -> None:
        command = RecordDeliveries(
            now=self._clock.now(),
            mailbox_id=mailbox_id,
            endpoint_id=target.endpoint_id,
            account_id=target.account_id,
            records=tuple(item.record for item in items),
            pace_ppm=self._pace_ppm,
        )
        await until_well(lambda: self._handle.execute(command), self._clock)


def _chunk(items: deque[_Item]) -> list[_Item]:
    """The first ones, as many as fit into one commit; at least one."""
    taken: list[_Item] = []
    size = 0
    for item in items:
        size += item.size
        if taken and (len(taken) >= RECORDS_MAX or size > COMMIT_CHARS_MAX):
            break
        taken.append(item)
    return taken
