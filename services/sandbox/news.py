"""The stream of what happened to machines: a bounded memory that listeners read at their own pace.

Written by `cloud`, read by `routes`. A listener resumes by (epoch, seq); one that comes back to another life of the
daemon gets everything since that life began, so nothing is missed that the memory still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from itertools import islice
from random import Random

from services.sandbox.options import PPM_OF_ALL
from services.sandbox.wire import News

REMEMBERED_MAX = 20_000  # several minutes of a busy market, a few MB


class NewsRoom:
    """The memory and its listeners. `luck` decides which news get lost or told twice (options `news_*_ppm`)."""

    def __init__(self, epoch: str, luck: Random, *, loss_ppm: int = 0, duplicate_ppm: int = 0) -> None:
        self.epoch = epoch
        self._luck = luck
        self._loss_ppm = loss_ppm
        self._duplicate_ppm = duplicate_ppm
        self._news: deque[News] = deque(maxlen=REMEMBERED_MAX)
        self._seq = 0
        self._arrived = asyncio.Event()

    def tell(self, machine_id: str, status: str) -> None:
        if self._loss_ppm and self._luck.randrange(PPM_OF_ALL) < self._loss_ppm:
            return
        times = 2 if self._duplicate_ppm and self._luck.randrange(PPM_OF_ALL) < self._duplicate_ppm else 1
        for _ in range(times):
            self._seq += 1
            self._news.append(News(self.epoch, self._seq, machine_id, status))
        self._arrived.set()
        self._arrived = asyncio.Event()

    def resume_at(self, last_id: str) -> int:
        """The seq after which a listener goes on. An unknown epoch starts at the beginning, no id at the end."""
        if not last_id:
            return self._seq
        epoch, _, seq = last_id.rpartition("-")
        return int(seq) if epoch == self.epoch and seq.isascii() and seq.isdigit() else 0

    def after(self, seq: int) -> list[News]:
        if seq >= self._seq or not self._news:
            return []
        skip = max(0, seq - self._news[0].seq + 1)
        return list(islice(self._news, skip, None))

    async def wait(self, seq: int, timeout_s: float) -> bool:
        """Wait until something is told after `seq`; False when nothing was for `timeout_s`."""
        if seq >= self._seq:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
        return self._seq > seq
