"""`up`: become the supervisor, in the foreground."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from services.cli.output import FLAG, AsJson
from services.cli.running import DEFAULT_DATA_DIR, DataDir


class Durability(StrEnum):
    always = "always"
    relaxed = "relaxed"


class PlanName(StrEnum):
    free = "free"
    pro = "pro"
    enterprise = "enterprise"
    operator = "operator"


class SandboxMode(StrEnum):
    process = "process"
    virtual = "virtual"


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = 3000,
    durability: Annotated[
        Durability,
        typer.Option(help="always: every event synced to disk; relaxed: a power cut may take the last 100 ms."),
    ] = Durability.always,
    sandbox: Annotated[
        SandboxMode, typer.Option(help="process: machines are real processes; virtual: they are only told about.")
    ] = SandboxMode.process,
    sandbox_zero_delay: Annotated[
        bool,
        typer.Option(
            "--sandbox-zero-delay", metavar=FLAG, help="Sandbox machines boot and stop without artificial delay."
        ),
    ] = False,
    plan: Annotated[
        PlanName | None, typer.Option(help="Plan of the default account from now on; a new one is on `operator`.")
    ] = None,
    no_limits: Annotated[
        bool,
        typer.Option(
            "--no-limits", metavar=FLAG, help="Count no requests, refuse none: for load tests, on loopback only."
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Run the whole platform here until Ctrl-C; prints its addresses and a fresh API key.

    DUMONT_NATS_URL and DUMONT_POSTGRES_URL use outside servers instead of starting them; DUMONT_SANDBOX_OPTIONS (JSON)
    sets the sandbox's market, DUMONT_LIMITS (JSON) what plans and addresses may ask. Exit status: 0 stopped, 1 failed
    to start, 4 already running.
    """
    options: dict[str, Any] = {
        "data_dir": str(Path(data_dir).absolute()),
        "host": host,
        "port": port,
        "durability": durability.value,
        "json_line": json,
        "sandbox": _sandbox_options(sandbox, zero_delay=sandbox_zero_delay),
        "plan": plan.value if plan is not None else None,
        "no_limits": no_limits,
    }
    sys.stdout.flush()
    # Replaces this process: the caller's pid is the supervisor's, and what only the command line needs is gone.
    command = [sys.executable, "-m", "services.supervisor", msgspec.json.encode(options).decode()]
    os.execv(sys.executable, command)  # noqa: S606 - our own program, no shell


def _sandbox_options(mode: SandboxMode, *, zero_delay: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if mode is SandboxMode.virtual:
        options["virtual"] = True
    if zero_delay:
        options["boot_delay_ms"] = {"min": 0, "max": 0}
    return options
