"""`./dumont`: what it says when something is missing, and that several at once install once."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.platform_here import ROOT

LIMIT_S = 100.0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with the wrapper, an empty lock file and a command that only shows its arguments."""
    tree = tmp_path / "tree with a space"
    (tree / "services" / "cli").mkdir(parents=True)
    shutil.copy(ROOT / "dumont", tree / "dumont")
    (tree / "requirements.lock").write_text("# nothing\n")
    for package in (tree / "services", tree / "services" / "cli"):
        (package / "__init__.py").touch()  # else the real `services`, further back on the path, would win
    (tree / "services" / "cli" / "__main__.py").write_text("import sys; print(*sys.argv[1:], sep='|')\n")
    return tree


def start(tree: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", tree / "dumont", *arguments],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DUMONT_PYTHON": sys.executable, "PATH": "/usr/bin:/bin", **environment},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT_S)
    return process.returncode, out, err


def program(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_two_at_once_install_once_and_both_run(tree: Path) -> None:
    both = [start(tree, "one", "a b"), start(tree, "two")]
    results = [ended(process) for process in both]
    assert [(status, out) for status, out, _ in results] == [(0, "one|a b\n"), (0, "two\n")]
    assert sum("installing into .venv" in err for _, _, err in results) == 1
    assert ended(start(tree, "again")) == (0, "again\n", "")
    assert not (tree / ".dumont" / "install.lock").exists()


def test_a_changed_lock_file_installs_again_and_a_dead_owner_of_the_lock_is_passed_over(tree: Path) -> None:
    assert ended(start(tree, "first"))[0] == 0
    (tree / "requirements.lock").write_text("# changed\n")
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tree / ".dumont" / "install.lock").mkdir()
    (tree / ".dumont" / "install.lock" / "pid").write_text(f"{gone.pid}\n")
    status, out, err = ended(start(tree, "second"))
    assert (status, out) == (0, "second\n")
    assert "installing into .venv" in err


def test_an_old_python_is_named(tree: Path, tmp_path: Path) -> None:
    status, _, err = ended(start(tree, DUMONT_PYTHON=program(tmp_path / "old-python", "exit 1\n")))
    assert status == 1
    assert "is not a Python 3.11 or newer" in err


def test_a_python_without_venv_is_told_what_to_install(tree: Path, tmp_path: Path) -> None:
    poor = program(tmp_path / "python", f'case "$*" in *venv*) exit 1;; esac; exec {sys.executable} "$@"\n')
    status, _, err = ended(start(tree, DUMONT_PYTHON=poor))
    assert status == 1
    assert "python3-venv" in err
    assert not (tree / ".dumont" / "install.lock").exists()


def test_no_network_is_said_so_and_the_next_run_tries_again(tree: Path) -> None:
    (tree / "requirements.lock").write_text("certifi==2026.10.18 --hash=sha256:" + "0" * 64 + "\n")
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "",
    }
    for _ in range(2):
        status, _, err = ended(start(tree, **nowhere, PIP_CONFIG_FILE=os.devnull))
        assert status == 1
        assert "could not reach the package index" in err
