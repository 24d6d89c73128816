"""The agent as a program: `python -m services.agent`, configured by its environment."""

from __future__ import annotations

import sys

from libs import config
from services.agent.program import RESTART, run


def main() -> None:
    status = RESTART
    while status == RESTART:
        status = run(config.surroundings())
    sys.exit(status)


if __name__ == "__main__":
    main()
