"""How the command ends: its exit statuses and the one exception that carries them."""

from __future__ import annotations

FAILED = 1
USAGE = 2
NOT_RUNNING = 3
ALREADY_RUNNING = 4
INTERRUPTED = 130  # as a shell reports Ctrl-C


class Exit(Exception):
    """The verb cannot do what was asked; the text goes to standard error."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


def words_of(error: BaseException) -> str:
    """What an error says. A time-out says nothing by itself."""
    return str(error) or "no answer in time"


class NotThere(Exit):
    """404: nothing of that id, or not yet: rows follow facts by some milliseconds."""
