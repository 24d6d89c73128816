"""Rows of the way back from a CPU machine to a GPU, and its deadline. Pure; called by `rows`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from libs.runtime.service import Row, deadline, no_deadline, wish
from proto.base import Heard
from proto.instance.commands import TryReturn
from proto.instance.return_events import (
    GpuReturning,
    HandedOver,
    HandoverRequested,
    ReturnAbandoned,
    Returned,
    ReturnTryFailed,
    ReturnWanted,
)

DEADLINE = "return_to_gpu"


def project(heard: Heard) -> Iterator[Row]:
    """Rows to merge for one fact about the way back."""
    match heard.event:
        case ReturnWanted() as event:
            yield _row(heard, stage="searching", attempts_failed=0, machine_id="", reason="", next_at=event.try_at)
            yield _due(heard, event.try_at)
        case GpuReturning() as event:
            yield _row(heard, stage="filling", machine_id=event.machine_id, next_at=None)
            yield _due(heard, event.give_up_at)
        case ReturnTryFailed() as event:
            yield _row(
                heard,
                stage="searching",
                machine_id="",
                attempts_failed=event.attempts,
                reason=event.reason,
                next_at=event.retry_at,
            )
            yield _due(heard, event.retry_at)
        case HandoverRequested() as event:
            yield _row(heard, stage="handing_over")
            yield _due(heard, event.give_up_at)
        case HandedOver() as event:
            yield Row("machines", {"machine_id": event.cpu_name}, {"role": "cpu_standby"})
            yield _row(heard, stage="handed_over")
            yield no_deadline(heard.aggregate_id, DEADLINE)
        case Returned() | ReturnAbandoned():
            yield Row("gpu_returns", {"instance_id": heard.aggregate_id}, None)
            yield no_deadline(heard.aggregate_id, DEADLINE)
        case _:
            return


def _row(heard: Heard, **columns: Any) -> Row:
    return Row("gpu_returns", {"instance_id": heard.aggregate_id}, columns)


def _due(heard: Heard, at: datetime) -> Row:
    return deadline(heard.aggregate_id, DEADLINE, at, wish(TryReturn, instance_id=heard.aggregate_id))
