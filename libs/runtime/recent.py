"""Answers kept until their rows change: who polls, or creates a hundred, need not cost a statement each time.

Used by queries (`QueryContext.recent`) and by intakes (`Ground.recent`), docs/adr/0019. Owned by the composition root.
The projector forgets what it has just changed before it says that the rows are there, so whoever has written something
and reads never meets an older answer. Only the replica that projects keeps anything, and only while it follows the log:
others do not hear of changes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, TypeVar

KEPT_MAX = 5_000  # aggregates, a few kilobytes each; the one kept longest goes first
QUESTIONS_MAX = 1_000  # about one; beyond it all of its answers go

T = TypeVar("T")


class Recent:
    """What is asked about is an aggregate, by its id, or a table, by its name. Keep only what follows from rows that
    the events of that one aggregate make, or from rows of that one table; and not from the time."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}
        self._is_following = False

    async def answer(self, about: str, question: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What is kept, else what `ask` says. Keeps nothing when the rows change meanwhile or `ask` raises."""
        if not self._is_following:
            return await ask()
        kept = self._kept.get(about)
        if kept is None:
            kept = self._keep(about)
        elif question in kept:
            return kept[question]
        try:
            answer = await ask()
        except BaseException:
            if not kept and self._kept.get(about) is kept:
                del self._kept[about]
            raise
        if len(kept) >= QUESTIONS_MAX:
            kept.clear()
        kept[question] = answer  # when the rows have changed meanwhile, `kept` is not in `_kept` any more
        return answer

    def forget(self, changed: Iterable[str]) -> None:
        """Aggregates whose rows have changed, and the tables in which."""
        for about in changed:
            self._kept.pop(about, None)

    @contextmanager
    def following(self) -> Generator[None]:
        """While every change of a row is told to `forget`."""
        self._is_following = True
        try:
            yield
        finally:
            self._is_following = False
            self._kept.clear()

    def _keep(self, about: str) -> dict[str, Any]:
        if len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        kept = self._kept[about] = {}
        return kept
