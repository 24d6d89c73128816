"""The events of seeds 000 and 001, really caused, arrive at a webhook and equal their golden files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.webhook_dispatch.words import SEED_EVENT_TYPES
from tests.journey.platform import ROOT, eventually, platform
from tests.journey.seed_events import AROUND, CAUSED_MAX_S, CAUSES, masked
from tests.journey.test_webhooks import Hook, hook

GOLDEN = ROOT / "tests" / "contract" / "webhooks"
NAMED = {*SEED_EVENT_TYPES, "instance.ready", "instance.failed", "instance.migrated"}
CAUSED = [name for names in CAUSES.values() for name in names]


@pytest.fixture(scope="module")
def heard(module_data_dir: Path) -> Iterator[dict[str, Any]]:
    """The first delivery of each event, once all of them have been caused."""
    with platform(module_data_dir, environment=AROUND) as up, hook() as told:
        body = {"name": "all", "url": told.url, "events": ["*"]}
        assert up.request("POST", "/api/v1/webhooks", body, key=True).status == 201
        for cause, names in CAUSES.items():
            cause(up)
            wait_for(told, names)
        yield first_of(told)


def first_of(told: Hook) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for payload in told.told:
        found.setdefault(payload["event"], payload)
    return found


def wait_for(told: Hook, names: tuple[str, ...]) -> None:
    eventually(
        lambda: set(names) <= set(first_of(told)), timeout_s=CAUSED_MAX_S, what=f"webhooks for {names}",
        seen=lambda: sorted(first_of(told)),
    )  # fmt: skip


@pytest.mark.parametrize("name", CAUSED)
def test_a_seeds_event_equals_its_golden_file(heard: dict[str, Any], name: str) -> None:
    path: Path = GOLDEN / f"{name}.json"
    found = masked(heard[name])
    if os.environ.get("DUMONT_WRITE_GOLDEN") and not path.exists():  # a new event's first time
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    assert found == json.loads(path.read_text())


def test_every_event_of_the_seeds_has_a_cause() -> None:
    assert set(CAUSED) == NAMED
