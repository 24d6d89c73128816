"""`just bench [start|http|log|storage|failover|webhooks|sse|metering|revocation …]`: run the named parts, show a table.

Without a name: all of them.
"""

from __future__ import annotations

import argparse
import importlib

from tests.bench.report import Line, show

PARTS = ("start", "http", "log", "storage", "failover", "webhooks", "sse", "metering", "revocation")


def main() -> None:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    lines: list[Line] = []
    for part in parser.parse_args().parts:
        lines += importlib.import_module(f"tests.bench.{part}").measure()
        show(lines)


if __name__ == "__main__":
    main()
