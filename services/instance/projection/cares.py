"""Rows of how accounts want their machines watched and replaced. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator

from libs.runtime.service import Row
from proto.base import Heard
from proto.instance.care import CareNoted


def project(heard: Heard) -> Iterator[Row]:
    event = heard.event
    assert isinstance(event, CareNoted)
    about = {
        "health_check_s": event.health_check_s,
        "heartbeat_misses_max": event.heartbeat_misses_max,
        "gpu_names": None if event.gpu_names is None else list(event.gpu_names),
    }
    yield Row("cares", {"account_id": event.account_id}, about)
