"""`test`: run the tests. Normally `./dumont` does this itself; this verb serves `python -m services.cli test`."""

from __future__ import annotations

import os
import sys

import typer

from services.cli.running import ROOT


def test(context: typer.Context) -> None:
    """Run the tests; arguments go to pytest."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *context.args])  # noqa: S606 - our own program, no shell
