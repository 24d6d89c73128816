"""Composition root of the sandbox cloud (`python -m services.sandbox`): forks the warmed parent, then runs the daemon.

The one place that says which agent is in a machine's image.
"""

from __future__ import annotations

from pathlib import Path

from libs import process
from libs.config import ConfigError
from services.agent.program import run as run_agent
from services.sandbox import zygote
from services.sandbox.daemon import Place, read_settings, serve
from services.sandbox.homes import Homes
from services.sandbox.options import BadOptions, decode


def main() -> None:
    try:
        settings = read_settings()
        options = decode(settings.sandbox_options)
    except (ConfigError, BadOptions) as error:
        process.give_up(error)
    root = Path(settings.data_dir).resolve() / "sandbox"
    if options.virtual:
        root.mkdir(parents=True, exist_ok=True)
        place = Place(settings, options, root, None, None)
    else:
        homes = Homes(root)
        place = Place(settings, options, root, homes, zygote.start(run_agent))
    process.run(lambda running: serve(place, running))


if __name__ == "__main__":
    main()
