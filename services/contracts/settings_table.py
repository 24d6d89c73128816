"""`deploy/env.md`: every setting of every process, from the config structs that read them."""

from __future__ import annotations

import importlib
from pathlib import Path

from msgspec import Struct

from libs.config import Setting, describe

HEAD = """# Settings

Written by `just contracts` from the config structs; edit those. Every process reads its settings from the environment
at start, reports all that is wrong with them in one message, and prints them with secrets redacted.
"""


def settings_page(root: Path) -> str:
    sections = [HEAD]
    for module, struct in config_structs(root):
        sections.append(f"## {struct.__name__}\n\n{_purpose(struct)}Read in `{module.replace('.', '/')}.py`.\n")
        sections.append(_table(describe(struct)))
    return "\n".join(sections)


def config_structs(root: Path) -> list[tuple[str, type[Struct]]]:
    """Structs that declare settings, by module name. Only files that mention `setting(` are imported."""
    found: list[tuple[str, type[Struct]]] = []
    for path in sorted((*root.glob("libs/**/*.py"), *root.glob("services/**/*.py"))):
        if (path.name == "config.py" and path.parent.name == "libs") or "sdk" in path.parts:
            continue
        if "setting(" not in path.read_text(encoding="utf-8") or "contracts" in path.parts:
            continue
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        found += [(name, value) for value in vars(module).values() if _is_config(value, name)]
    return found


def _is_config(value: object, module: str) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, Struct)
        and value.__module__ == module
        and any(line.reason for line in describe(value))
    )


def _purpose(struct: type[Struct]) -> str:
    text = (struct.__doc__ or "").strip()
    return f"{text}\n\n" if text else ""


def _table(settings: list[Setting]) -> str:
    rows = [
        f"| `{line.env}` | {_cell(line.type_name)} | {_cell(_default(line))} | {line.unit} | {_cell(line.reason)} "
        f"| {_cell(line.example)} |"
        for line in settings
    ]
    head = ["| variable | type | default | unit | what it is for | example |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _default(line: Setting) -> str:
    return f"{line.default} (secret)" if line.is_secret else line.default


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
