"""The files of this repository as the tidy tests see them: path, text and, for Python, syntax tree.

Read once per run. A rule is a function from one `Source` (or all of them) to sentences; a sentence names the place and
the rule in plain words, because it is all that a person meets when a test fails.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY_SUFFIXES = {".png", ".ico", ".gz", ".zst", ".woff2"}
UNTRACKED_FOLDERS = {".git", ".venv", ".venv-check", ".dumont", "__pycache__", "node_modules", ".ruff_cache"}


@dataclass(frozen=True)
class Source:
    """One file. `path` is relative to the repository's root, with forward slashes."""

    path: str
    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.path.split("/"))

    @property
    def name(self) -> str:
        return self.parts[-1]

    @property
    def is_test(self) -> bool:
        """Tests, and the conformance suites that adapters' tests import."""
        return self.path.startswith(("tests/", "libs/spec/"))

    def tree(self) -> ast.Module:
        return _parsed(self.text)

    def at(self, node: ast.AST, sentence: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {sentence}"


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def paths() -> tuple[str, ...]:
    """What git tracks or would add; without git (a source archive), everything that is not a build product."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=20,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        listing = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    kept = {line for line in listing if not UNTRACKED_FOLDERS & set(line.split("/"))}
    return tuple(sorted(line for line in kept if (ROOT / line).is_file()))


@cache
def sources() -> tuple[Source, ...]:
    """Every text file."""
    return tuple(
        Source(path, (ROOT / path).read_text(encoding="utf-8"))
        for path in paths()
        if Path(path).suffix not in BINARY_SUFFIXES
    )


def python(under: str = "") -> Iterator[Source]:
    """Every Python module whose path starts with `under`."""
    return (source for source in sources() if source.path.endswith(".py") and source.path.startswith(under))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute chain, else empty."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def report(violations: list[str]) -> str:
    return "\n" + "\n".join(violations)
