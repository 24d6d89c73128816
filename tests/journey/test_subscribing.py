"""The consumers of docs/subscribing.md, as they stand there, print what happens and go on where they stopped."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.journey.node_programs import Node
from tests.journey.platform import ROOT, Platform, eventually, unique
from tests.journey.test_receivers import Lines

TOLD_MAX_S = 30.0


@pytest.fixture
def team(up: Platform) -> Iterator[Any]:
    name = unique("doc").replace("-", "_")
    yield json.loads(up.verb("teams", "add", name, "--events", "instance.*", "--json"))
    up.verb("teams", "remove", name)


def from_the_page(language: str, team: Any) -> str:
    """The program on the page with this team's name, password and server."""
    page = (ROOT / "docs" / "subscribing.md").read_text()
    (text,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    url = urlsplit(team["url"])
    server = f"127.0.0.1:{url.port}"
    for shown, real in (("PASSWORD", url.password), ("127.0.0.1:4222", server), ("analytics", team["team"])):
        assert shown in text
        text = text.replace(shown, real)
    return text


def test_the_python_consumer_prints_what_happens_once(up: Platform, team: Any, tmp_path: Path) -> None:
    path = tmp_path / "consumer.py"
    path.write_text(from_the_page("python", team))
    prints_once(up, lambda: subprocess.Popen([sys.executable, str(path)], text=True, stdout=subprocess.PIPE))


def test_the_javascript_consumer_prints_what_happens_once(up: Platform, team: Any, node: Node) -> None:
    path = node.write("consumer.mjs", from_the_page("javascript", team))
    prints_once(up, lambda: node.start(path, {}))


def prints_once(up: Platform, start: Any) -> None:
    """Each event of an instance on a line with its id; a second run goes on behind the first."""
    first_id, first = run_until_ready(up, start)
    second_id, second = run_until_ready(up, start)
    assert first_id not in "".join(second)
    ids = [line.split()[0] for line in (*first, *second) if line.startswith("cmt_")]
    assert len(set(ids)) == len(ids)
    assert sum(second_id in line for line in second) >= 5


def run_until_ready(up: Platform, start: Any) -> tuple[str, list[str]]:
    instance_id = up.create_ready()["id"]
    process = start()
    printed = Lines(process)
    try:
        eventually(
            lambda: any(instance_id in line and "ready_at" in line for line in "".join(printed.lines).split("cmt_")),
            timeout_s=TOLD_MAX_S, what="instance.ready", seen=lambda: printed.lines,
        )  # fmt: skip
        return instance_id, printed.lines
    finally:
        printed.end()
