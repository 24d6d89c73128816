"""The logs of a machine are short: what its programs print must not fill the disk of this computer.

Called by `leader` now and then. The writers keep their descriptors, which append: after a cut they go on at its end.
"""

from __future__ import annotations

from pathlib import Path

LOG_BYTES_MAX = 1_000_000  # of each log; between two looks a program may print more
LOOK_PAUSE_S = 30.0
LOG_FILES = ("machine.log", "start.log")


def shorten(log: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
    """Keep the newest half of a log that has become too long. What is printed while this goes on may be lost."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return
    if size <= bytes_max:
        return
    with log.open("rb") as written:
        written.seek(size - bytes_max // 2)
        newest = written.read(bytes_max // 2)
    with log.open("ab") as appended:
        appended.truncate(0)
        appended.write(newest)
