"""`docs/adr/README.md`: the decision records, by number, with their status."""

from __future__ import annotations

import re
from pathlib import Path

HEAD = """# Decisions

Written by `just contracts`. `just adr TITLE` starts the next one; a decision is changed by a new record, never by
editing an old one.
"""
NUMBERED = re.compile(r"\d{4}-[a-z0-9-]+\.md")


def decision_index(root: Path) -> str:
    rows = [
        f"| [{path.name[:4]}]({path.name}) | {_title(path)} | {_status(path)} |"
        for path in sorted((root / "docs" / "adr").glob("*.md"))
        if NUMBERED.fullmatch(path.name)
    ]
    return "\n".join([HEAD, "| | decision | status |", "|---|---|---|", *rows]) + "\n"


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(" ", 1)[-1]


def _status(path: Path) -> str:
    found = re.search(r"^- Status: (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1) if found else "unknown"
