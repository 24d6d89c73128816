"""The command `dumont`. Imports only the verb that is asked for: help of everything costs more, one verb does not.

Run by `./dumont` as `python -m services.cli`. Owns the list of verbs and the exit status.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
from typing import Annotated

import typer

from services.cli.exits import Exit
from services.cli.output import FLAG, tell, warn
from services.cli.running import ROOT

# verb -> module and the name in it: a function, or a Typer with verbs of its own
VERBS = {
    "up": ("up", "up"),
    "down": ("down", "down"),
    "status": ("status", "status"),
    "demo": ("demo.verb", "demo"),
    "test": ("tests", "test"),
    "events": ("events", "app"),
    "rebuild": ("rebuild", "rebuild"),
    "instances": ("instances", "app"),
    "keys": ("keys", "app"),
    "accounts": ("accounts", "app"),
    "sandbox": ("sandbox", "app"),
    "teams": ("teams", "app"),
    "webhooks": ("webhooks", "app"),
}
PASSES_ARGUMENTS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def command_line(wanted: str) -> typer.Typer:
    """The command with the wanted verb, or with all of them when it is none of ours (help, a typing error)."""
    app = typer.Typer(
        name="dumont",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Dumont Cloud: GPU machines that survive losing their GPUs.",
        epilog="Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 not running, 4 already running.",
    )

    @app.callback()
    def dumont(
        version: Annotated[
            bool,
            typer.Option("--version", metavar=FLAG, callback=_tell_version, is_eager=True, help="Show the version."),
        ] = False,
    ) -> None:
        """Dumont Cloud: GPU machines that survive losing their GPUs."""

    for verb in [wanted] if wanted in VERBS else list(VERBS):
        module, name = VERBS[verb]
        found = getattr(importlib.import_module(f"services.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            for command in found.registered_commands:
                command.help = unwrapped((command.callback and command.callback.__doc__) or "")
            app.add_typer(found, name=verb)
        else:
            context = PASSES_ARGUMENTS_ON if verb == "test" else None
            app.command(verb, help=unwrapped(found.__doc__ or ""), context_settings=context)(found)
    return app


def _tell_version(wanted: bool) -> None:
    if wanted:
        tell(f"dumont {tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']}")
        raise typer.Exit


def unwrapped(text: str) -> str:
    """Each paragraph on a line: the terminal wraps it, and rich would keep our line breaks as well."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def main(arguments: list[str]) -> int:
    try:
        command_line(arguments[0] if arguments else "")(arguments, prog_name="dumont")
    except Exit as end:
        warn(str(end))
        return end.status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
