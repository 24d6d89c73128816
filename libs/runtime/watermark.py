"""Low-water mark over messages that are worked on side by side.

Used by `hands`. Everything at or below `low` is finished; after a crash work starts again above it (docs/adr/0012).
"""

from __future__ import annotations

import heapq


class Watermark:
    """`begin` sequences in ascending order, `finish` them in any order (once per `begin` of the same sequence)."""

    def __init__(self, low: int) -> None:
        self._highest = low
        self._open: dict[int, int] = {}
        self._heap: list[int] = []

    @property
    def low(self) -> int:
        while self._heap and self._heap[0] not in self._open:
            heapq.heappop(self._heap)
        return self._heap[0] - 1 if self._heap else self._highest

    def begin(self, seq: int) -> None:
        if seq not in self._open:
            heapq.heappush(self._heap, seq)
        self._open[seq] = self._open.get(seq, 0) + 1
        self._highest = max(self._highest, seq)

    def finish(self, seq: int) -> None:
        remaining = self._open[seq] - 1
        if remaining:
            self._open[seq] = remaining
        else:
            del self._open[seq]

    def passed(self, seq: int) -> None:
        """Nothing was to be done for messages up to here."""
        self._highest = max(self._highest, seq)
