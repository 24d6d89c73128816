"""Rows of what clouds charged us. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator

from libs.runtime.service import Row
from proto.base import Heard
from proto.instance.host_events import MachineBilled


def project(heard: Heard) -> Iterator[Row]:
    event = heard.event
    assert isinstance(event, MachineBilled)
    about = {
        "provider": event.provider,
        "number": event.number,
        "machine_id": event.machine_id,
        "usd_micros": event.usd_micros,
    }
    yield Row("bills", {"charge_id": event.charge_id}, about)
