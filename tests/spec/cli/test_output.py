"""What the command line prints for people: whole lines in a pipe, what matters first on a narrow terminal."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from libs.runtime.run import VERSION
from services.cli import output
from services.cli.__main__ import main
from services.cli.events import facts_line
from services.cli.exits import words_of
from services.cli.output import GAP, fitting

ROOT = Path(__file__).resolve().parents[3]


def test_a_wide_terminal_shows_every_column_whole() -> None:
    assert fitting([37, 8, 100], 200) == {0: 37, 1: 8, 2: 100}


def test_a_narrow_terminal_keeps_the_first_column_whole_and_leaves_out_the_last() -> None:
    assert fitting([37, 11, 13, 10, 118], 80) == {0: 37, 1: 11, 2: 13, 3: 10}


def test_a_long_cell_is_cut_to_what_is_left() -> None:
    shown = fitting([37, 8, 40, 6], 80)
    assert shown == {0: 37, 1: 8, 2: 31}
    assert sum(shown.values()) + GAP * 2 == 80


def test_a_terminal_narrower_than_an_id_still_shows_the_id() -> None:
    assert fitting([37, 8], 20) == {0: 20}


def test_a_pipe_gets_every_cell_on_the_line_of_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    command = "ssh root@127.0.0.1 " + "-o Option=value " * 20
    output.as_table(["id", "ssh_command"], [["inst_1", command], ["inst_2", None]], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].split(maxsplit=1) == ["inst_1", command.strip() + " " * (len(lines[1]) - len(lines[1].rstrip()))]
    assert lines[2].strip() == "inst_2"


def test_fields_that_have_parts_are_told_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    output.as_fields({"ports": {"22/tcp": 40675, "8080/tcp": 33241}, "ready": True, "scopes": ["a", "b"]})
    assert capsys.readouterr().out == "ports   22/tcp 40675, 8080/tcp 33241\nready   yes\nscopes  a, b\n"


def test_an_event_is_told_by_whom_it_is_about_and_what_is_plain_in_it() -> None:
    data = {
        "type": "instance.ready",
        "account_id": "acct_a",
        "instance_id": "inst_1",
        "name": "inst_1",
        "gpu": "RTX 4090",
        "status": "",
        "spec": {"gpu": "RTX 4090"},
        "generation": 1,
    }
    assert facts_line(data) == "inst_1  gpu RTX 4090, generation 1"
    assert facts_line({"balance": 3.5, "id": "x"}) == "balance 3.5"
    assert facts_line("no JSON") == '"no JSON"'


def test_a_time_out_without_words_is_told_as_one() -> None:
    assert words_of(TimeoutError()) == "no answer in time"
    assert words_of(OSError("refused")) == "refused"


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dumont {VERSION}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
