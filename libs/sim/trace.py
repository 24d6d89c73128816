"""What happened in a run, in order: a hash that two runs of one seed must share, and lines to read when it failed.

Written to by the ports and the world. Lines are kept only when asked for: a seed that fails is run again to see them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

LINE_CHARS_MAX = 2_000


class Trace:
    """`say` is called with each line as it happens, when a person watches."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._hash = hashlib.sha256()
        self._say = say
        self.notes = 0

    def note(self, *parts: object) -> None:
        line = f"{asyncio.get_running_loop().time():.6f} " + " ".join(
            part.decode() if isinstance(part, bytes) else str(part) for part in parts
        )
        self._hash.update(line.encode())
        self.notes += 1
        if self._say is not None:
            self._say(line[:LINE_CHARS_MAX])

    def digest(self) -> str:
        return self._hash.hexdigest()
