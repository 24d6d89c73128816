"""`demo`: start a platform, take the machine of an instance away in every way there is a rung for, and prove the files.

Called by the command line. Owns the order of things: whatever happens, what was started is stopped again.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from services.cli import output
from services.cli.demo.acts import ACTS, Show, perform
from services.cli.demo.playbill import Playbill
from services.cli.demo.stage import Stage, machines_folder
from services.cli.exits import FAILED, INTERRUPTED, Exit

Here = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder for the platform's data; default: a temporary one, removed.")
]
OnlyAct = Annotated[
    list[str] | None,
    typer.Option("--act", help=f"Only this one ({', '.join(ACTS)}); may be given several times."),
]


def demo(data_dir: Here = None, act: OnlyAct = None, json: output.AsJson = False) -> None:
    """Lose the machine behind an instance, and show that the work goes on.

    Starts a platform of its own, creates an instance, writes files over SFTP, takes the machine away, shows what
    happens as it happens, and compares every file by checksum. Stops all it started. Exit status: 0 every proof holds,
    1 one does not or something failed, 130 Ctrl-C.
    """
    wanted = act or list(ACTS)
    unknown = [name for name in wanted if name not in ACTS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is no act; there are {', '.join(ACTS)}", param_hint="--act")
    playbill = Playbill(quiet=json)
    folder = data_dir or Path(tempfile.mkdtemp(prefix="dumont-demo-"))
    try:
        show = asyncio.run(_show(folder, wanted, playbill))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Exit("stopped; nothing is left running", INTERRUPTED) from None
    finally:
        if data_dir is None:
            shutil.rmtree(machines_folder(folder), ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
    if json:
        output.as_json(show)
    else:
        playbill.summary(show)
    if not show.holds:
        raise Exit("not every proof holds", FAILED)


async def _show(folder: Path, wanted: list[str], playbill: Playbill) -> Show:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    stage = Stage.start(folder)
    try:
        return await perform(stage, wanted, playbill)
    finally:
        await asyncio.shield(asyncio.ensure_future(stage.clear()))
