"""A service that only says ready and waits: what the supervisor's tests run in place of the real ones."""

from __future__ import annotations

import os
from pathlib import Path

from libs.process import Running, run


async def serve(running: Running) -> None:
    if Path(os.environ["DUMONT_DATA_DIR"], "idle-is-broken").exists():
        raise RuntimeError("broken on purpose")
    running.ready()
    await running.stop.wait()


def main() -> None:
    run(serve)
