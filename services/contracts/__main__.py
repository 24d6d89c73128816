"""Write the contracts, or with `--check` say what has drifted. Called by `just contracts`, `check` and `golden`."""

from __future__ import annotations

import argparse
import difflib
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from services.contracts import decision_index, event_catalogue, event_schema, golden, http_api, language, settings_table

ROOT = Path(__file__).resolve().parents[2]
DIFF_LINES_MAX = 60  # enough to see what drifted; the rest is the same story


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.contracts", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 with a diff when a file has drifted"
    )
    parser.add_argument("--golden", metavar="NAME", help="write the golden file of this event (wire name, or 'all')")
    chosen = parser.parse_args(arguments)
    if chosen.golden:
        return _write_golden(chosen.golden)
    return _check(documents()) if chosen.check else _write(documents())


def documents() -> dict[str, str]:
    """Path -> text of every generated file."""
    spoken = language.events()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return {
        "proto/generated/events.schema.json": event_schema.json_schema(spoken),
        "proto/generated/asyncapi.yaml": event_schema.async_api(spoken, version),
        "proto/generated/openapi.json": http_api.open_api(),
        "docs/events.md": event_catalogue.catalogue(spoken, ROOT),
        "docs/adr/README.md": decision_index.decision_index(ROOT),
        "deploy/env.md": settings_table.settings_page(ROOT),
    }


def drift(wanted: Mapping[str, str]) -> dict[str, str]:
    """Path -> unified diff from the file as it is to the file as it should be, for those that differ."""
    found: dict[str, str] = {}
    for path, text in wanted.items():
        place = ROOT / path
        present = place.read_text(encoding="utf-8") if place.exists() else ""
        if present != text:
            lines = difflib.unified_diff(
                present.splitlines(), text.splitlines(), path, f"{path} (generated)", lineterm=""
            )
            found[path] = "\n".join(list(lines)[:DIFF_LINES_MAX])
    return found


def _check(wanted: Mapping[str, str]) -> int:
    drifted = drift(wanted)
    for text in drifted.values():
        print(text)
    if drifted:
        print(f"\n{len(drifted)} generated file(s) differ from the code. Run `just contracts` and commit the result.")
    return 1 if drifted else 0


def _write(wanted: Mapping[str, str]) -> int:
    for path in drift(wanted):
        place = ROOT / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(wanted[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


def _write_golden(name: str) -> int:
    chosen = [each for each in language.events() if name in ("all", each.wire_name)]
    if not chosen:
        print(f"No event is called '{name}'. docs/events.md lists them; a new one must be in its service's AnyEvent.")
        return 1
    for spoken in chosen:
        written = golden.write_golden(spoken, ROOT)
        if written:
            print(f"wrote {written}")
        elif name != "all":
            print(f"{golden.golden_path(spoken)} exists and is never changed: a new shape is a new version.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
