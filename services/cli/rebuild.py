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
from msgspec import Struct

from libs import config, process
from libs.embedded.state import State
from libs.refusal import Transient
from services.cli import output
from services.cli.exits import INTERRUPTED, USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, ROOT, DataDir, running_state


def rebuild(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="For example instance.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", metavar=output.FLAG, help="Also hash every table before and after, and say which differ."
        ),
    ] = False,
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
            done, hashes = loop.run(_rebuild(service, rooms, is_compared=compare))
    except Transient as error:
        raise Exit(f"not rebuilt, the old tables stay: {error}") from error
    except KeyboardInterrupt:
        raise Exit("stopped, the old tables stay; the next rebuild begins again", INTERRUPTED) from None
    if json:
        facts = {"service": service, "version": done.version, "seq": done.seq, "rows": done.rows}
        output.as_json(facts | ({"hashes": hashes} if hashes else {}))
        return
    output.tell(f"{service}: version {done.version} is read now, {done.rows} rows from {done.seq} commits")
    if hashes:
        output.tell(hashes.verdict())


class _Hashes(Struct, frozen=True):
    """SHA-256 of every table's rows, as they were read before and as they are read now."""

    before: dict[str, str]
    after: dict[str, str]

    def verdict(self) -> str:
        names = sorted(self.before.keys() | self.after.keys())
        differing = [name for name in names if self.before.get(name) != self.after.get(name)]
        if not differing:
            return f"all {len(names)} tables have the rows that they had"
        return f"not as before: {', '.join(differing)} (so is every table that was written to meanwhile)"


def _with_tables() -> list[str]:
    return sorted(rooms.parent.name for rooms in (ROOT / "services").glob("*/rooms.py"))


def _adopt_environment(state: State) -> None:
    """What the supervisor gave the service, so that its composition root finds the same servers."""
    path = Path(state.data_dir) / "secrets" / "environment.json"
    config.adopt(msgspec.json.decode(path.read_bytes(), type=dict[str, str]))


async def _rebuild(name: str, rooms: Any, *, is_compared: bool) -> tuple[Any, _Hashes | None]:
    from libs import hosting, postgres  # noqa: PLC0415 - imports servers' clients, 300 ms

    shown = _Progress(name)
    try:
        async with hosting.ground(name, on_bug=lambda error: output.warn(repr(error))) as found:
            definition = hosting.definition_of(rooms.SERVICE, rooms.ROOMS)
            before = await postgres.table_hashes(found.database, name) if is_compared else None
            done = await hosting.rebuild_projection(found, rooms.SERVICE, definition, shown.show)
            if before is None:
                return done, None
            return done, _Hashes(before, await postgres.table_hashes(found.database, name))
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
