"""One platform for all journeys of a session: starting one costs seconds, and journeys use names and ids of their
own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journey.node_programs import Node, installed
from tests.journey.platform import Platform, platform, wipe
from tests.journey.prefix import AROUND
from tests.journey.processes import complaints_about_bugs, complaints_about_leftovers


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    data_dir = tmp_path_factory.mktemp("platform") / "data"
    with platform(data_dir) as running:
        yield running
    _gone_in_order(data_dir)


@pytest.fixture(scope="session")
def survival(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One for journeys with CPU standbys: failovers may follow each other, and every GPU is to be had."""
    data_dir = tmp_path_factory.mktemp("survival") / "data"
    with platform(data_dir, environment=AROUND) as running:
        yield running
    _gone_in_order(data_dir)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """For programs in JavaScript; skips with the reason where there is no node."""
    return installed(tmp_path_factory.mktemp("node"))


@pytest.fixture
def own_data_dir(tmp_path: Path) -> Iterator[Path]:
    """For a journey that stops, kills or starves its platform: a data directory that nobody shares."""
    yield tmp_path / "data"
    _gone_in_order(tmp_path / "data")


@pytest.fixture(scope="module")
def module_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For journeys of one module that share a platform of their own."""
    data_dir = tmp_path_factory.mktemp("module") / "data"
    yield data_dir
    _gone_in_order(data_dir)


def _gone_in_order(data_dir: Path) -> None:
    """Nothing of a stopped platform is left, and nobody in it ended by a bug."""
    left = [*complaints_about_leftovers(data_dir), *complaints_about_bugs(data_dir)]
    wipe(data_dir)
    assert not left, left
