"""Who is to speak again soon: a machine that may be told something that cannot wait for its next heartbeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.instance.queries.agents import is_to_hear_soon

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
PRIMARY: dict[str, Any] = {
    "role": "primary",
    "instance_status": "ready",
    "return_stage": None,
    "cpu": "{}",
    "standby_status": "healthy",
    "ready_at": NOW - timedelta(hours=1),
}


@pytest.mark.parametrize(
    "seen",
    [
        {"role": "standby"},
        {"instance_status": "hibernating"},
        {"return_stage": "filling"},
        {"return_stage": "handing_over"},
        {"instance_status": "starting", "standby_status": None},
        {"standby_status": "requested"},
        {"standby_status": "booted"},
        {"standby_status": None, "ready_at": NOW - timedelta(seconds=20)},
    ],
)
def test_what_may_be_needed_any_moment_hears_soon(seen: dict[str, Any]) -> None:
    """A new instance had no copy for up to half a minute: its agent had not yet heard of its CPU standby."""
    assert is_to_hear_soon({**PRIMARY, **seen}, NOW)


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {"standby_status": None},  # there is no CPU machine to be had, perhaps for hours
        {"cpu": None, "standby_status": None, "instance_status": "starting"},
        {"return_stage": "searching"},
    ],
)
def test_everybody_else_keeps_the_usual_pace(seen: dict[str, Any]) -> None:
    assert not is_to_hear_soon({**PRIMARY, **seen}, NOW)
