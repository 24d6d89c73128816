"""The store port: a service's rows, cursors, deadlines and its lease.

Called by `libs.runtime`; implemented by `libs.postgres` and by `libs.runtime.memory_store` (specs and simulation),
which pass `libs/spec/store_contract.py`.

Ground rules (design 4, docs/adr/0005):
- Rows and the projection cursor move in one transaction and only forward, so a replay is harmless and acknowledgements
  are not needed.
- The other cursors (relay, reactions, effects) are low-water marks: everything at or below them is finished; work above
  may be done again after a crash and must be idempotent.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from libs.runtime.service import Row

PROJECT_CURSOR = "project"  # moves with the rows; the others are low-water marks


class Deadline(Struct, frozen=True):
    """A due wish: `command` is JSON without `now`."""

    aggregate_id: str
    name: str
    due_at: datetime
    command: str


class Overtaken(Exception):
    """Somebody else moved the projection cursor past us: another replica projects. Stop and look again."""


class Store(Protocol):
    async def project(self, rows: Sequence[Row], *, after_seq: int, seq: int) -> None:
        """Merge `rows` in order and move the cursor `project` from `after_seq` to `seq`, all or nothing. Raises
        Overtaken."""
        ...

    async def cursor(self, name: str) -> tuple[int, int]:
        """(low-water mark, companion position), (0, 0) when never saved. `project` is the projection's own cursor."""
        ...

    async def save_cursor(self, name: str, seq: int, companion: int = 0) -> None:
        """Move a cursor forward; an older value is ignored."""
        ...

    async def due(self, now: datetime, *, limit: int) -> Sequence[Deadline]:
        """Deadlines at or before `now`, oldest first."""
        ...

    async def next_due(self) -> datetime | None:
        """When the earliest deadline falls due."""
        ...

    def lease(self, name: str) -> AbstractAsyncContextManager[None]:
        """Wait until this process is the only holder of `name`; held until exit or until the database connection is
        lost (then the body is cancelled and Transient raised)."""
        ...
