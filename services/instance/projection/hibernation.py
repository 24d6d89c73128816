"""Rows of hibernations. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libs.runtime.service import Row, no_deadline
from proto.base import Heard
from proto.instance.events import (
    HibernationCancelled,
    HibernationScheduled,
    InstanceHibernated,
    InstanceHibernating,
    InstanceWaking,
)

AUTO_STOP = "auto_stop"


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one fact about hibernation."""
    match heard.event:
        case HibernationScheduled() as event:
            yield _instance(heard, hibernate_at=event.will_hibernate_at)
        case HibernationCancelled():
            yield _instance(heard, status="ready", status_reason="", hibernate_at=None, hibernation_wished=False)
        case InstanceHibernating() as event:
            yield _instance(heard, status="hibernating", status_reason=event.reason, hibernation_wished=event.wished)
        case InstanceHibernated() as event:
            yield _instance(
                heard,
                status="hibernated",
                hibernate_at=None,
                hibernation_wished=False,
                volume=None,
                stopped_at=heard.at,
            )
            yield no_deadline(heard.aggregate_id, AUTO_STOP)
            yield _hibernation(
                event.snapshot_id,
                instance_id=event.instance_id,
                account_id=event.account_id,
                hibernated_at=event.hibernated_at,
                price_usd_micros_per_hour=event.price_usd_micros_per_hour,
                idle_s=event.idle_seconds,
            )
        case InstanceWaking() as event:
            yield _hibernation(event.snapshot_id, woke_at=event.waking_at)
        case _:
            return


def _instance(heard: Heard, **columns: Any) -> Row:
    return Row("instances", {"instance_id": heard.aggregate_id}, columns)


def _hibernation(snapshot_id: str, **columns: Any) -> Row:
    return Row("hibernations", {"snapshot_id": snapshot_id}, columns)
