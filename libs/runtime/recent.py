"""Answers about one aggregate, kept until its rows change: a customer who polls need not cost a statement each time.

Used by query handlers through `QueryContext.recent` (docs/adr/0019). Owned by `Progress`; the projector forgets what it
has just changed before it says that the rows are there, so whoever has written something and reads never meets an older
answer. Only the replica that projects keeps anything, and only while it follows the log: others do not hear of changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, TypeVar

KEPT_MAX = 5_000  # aggregates, a few kilobytes each; the one kept longest goes first

T = TypeVar("T")


class Recent:
    """Use it only for what follows from rows that the events of this one aggregate make, and not from the time."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._is_following = False

    async def answer(self, aggregate_id: str, question: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What is kept, else what `ask` says. Keeps nothing when the rows change meanwhile or `ask` raises."""
        if not self._is_following:
            return await ask()
        kept = self._kept.get(aggregate_id)
        if kept is None:
            kept = self._keep(aggregate_id)
        elif question in kept:
            return kept[question]
        try:
            answer = await ask()
        except BaseException:
            if not kept and self._kept.get(aggregate_id) is kept:
                del self._kept[aggregate_id]
            raise
        kept[question] = answer  # when the rows have changed meanwhile, `kept` is not in `_kept` any more
        return answer

    def forget(self, aggregate_ids: Iterable[str]) -> None:
        """Their rows have changed."""
        for aggregate_id in aggregate_ids:
            self._kept.pop(aggregate_id, None)

    @contextmanager
    def following(self) -> Generator[None]:
        """While every change of a row is told to `forget`."""
        self._is_following = True
        try:
            yield
        finally:
            self._is_following = False
            self._kept.clear()

    def _keep(self, aggregate_id: str) -> dict[str, Any]:
        if len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        kept = self._kept[aggregate_id] = {}
        return kept
