"""Which platform a verb is about: the data directory, and what runs in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libs.embedded.state import State, holder_pid, read_state
from services.cli.exits import NOT_RUNNING, Exit

ROOT = Path(__file__).resolve().parents[2]

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", envvar="DUMONT_DATA_DIR", help="Folder of the platform's data, logs and secrets."),
]
DEFAULT_DATA_DIR = ROOT / ".dumont"


def running_state(data_dir: Path) -> State:
    """What runs in `data_dir`. Exits with NOT_RUNNING when nothing does."""
    if holder_pid(data_dir) == 0:
        raise Exit(f"nothing runs in {data_dir}; start it with ./dumont up", NOT_RUNNING)
    state = read_state(data_dir)
    if state is None or not state.is_ready:
        raise Exit(f"the platform in {data_dir} is still starting", NOT_RUNNING)
    return state
