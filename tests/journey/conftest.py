"""One platform for all journeys of a session: starting one costs seconds, and journeys use names and ids of their
own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.journey.platform import Platform, platform


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("platform")) as running:
        yield running
