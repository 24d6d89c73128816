"""`rebuild SERVICE`: replay the service's whole log into fresh tables beside the ones that are read, then switch.

Runs in this process, on the service's own rooms: `services/<name>/rooms.py` offers them as `SERVICE` and `ROOMS`. The
running service goes on answering from the old tables meanwhile.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from libs import config, process
from libs.embedded.state import State
from libs.refusal import Transient
from services.cli import output
from services.cli.exits import INTERRUPTED, USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, ROOT, DataDir, running_state


def rebuild(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="For example instance.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Replay a service's tables from the event log while reads go on; progress goes to standard error."""
    state = running_state(data_dir)
    try:
        rooms = importlib.import_module(f"services.{service}.rooms")
    except ModuleNotFoundError as error:
        raise Exit(
            f"{service} is not a service with tables of its own; {', '.join(_with_tables())} are", USAGE
        ) from error
    _adopt_environment(state)
    try:
        with process.loop_runner() as loop:
            done = loop.run(_rebuild(service, rooms))
    except Transient as error:
        raise Exit(f"not rebuilt, the old tables stay: {error}") from error
    except KeyboardInterrupt:
        raise Exit("stopped, the old tables stay; the next rebuild begins again", INTERRUPTED) from None
    if json:
        output.as_json({"service": service, "version": done.version, "seq": done.seq, "rows": done.rows})
    else:
        output.tell(f"{service}: version {done.version} is read now, {done.rows} rows from {done.seq} commits")


def _with_tables() -> list[str]:
    return sorted(rooms.parent.name for rooms in (ROOT / "services").glob("*/rooms.py"))


def _adopt_environment(state: State) -> None:
    """What the supervisor gave the service, so that its composition root finds the same servers."""
    path = Path(state.data_dir) / "secrets" / "environment.json"
    config.adopt(msgspec.json.decode(path.read_bytes(), type=dict[str, str]))


async def _rebuild(name: str, rooms: Any) -> Any:
    from libs import hosting  # noqa: PLC0415 - imports servers' clients, 300 ms

    shown = _Progress(name)
    try:
        async with hosting.ground(name, on_bug=lambda error: output.warn(repr(error))) as found:
            definition = hosting.definition_of(rooms.SERVICE, rooms.ROOMS)
            return await hosting.rebuild_projection(found, rooms.SERVICE, definition, shown.show)
    finally:
        shown.end()


class _Progress:
    """One line on a terminal, rewritten; one line per phase elsewhere."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._phase = ""

    def show(self, progress: Any) -> None:
        done = f"{progress.seq}/{progress.target_seq}"
        line = f"{self._service}: {progress.phase} {done} commits, {progress.rows} rows"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()
        elif progress.phase != self._phase:
            output.warn(line)
        self._phase = progress.phase

    def end(self) -> None:
        """What is said next begins a line of its own."""
        if self._phase and sys.stderr.isatty():
            sys.stderr.write("\n")
