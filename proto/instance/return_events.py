"""Facts of the instance service about the way back: from a CPU machine that has taken over to a GPU again.

Part of the `instance` aggregate (see `events`, whose union has them). In order: wanted, returning (a GPU is rented),
copied (the files get there while the CPU machine goes on), handover_requested (it is held still), handed_over (the GPU
machine carries the instance), returned (it is ready). A try that fails says so with the instant of the next.
"""

from __future__ import annotations

from datetime import datetime

from proto.base import Event


class ReturnWanted(Event, tag="standby.return_wanted", kw_only=True, frozen=True):
    """A CPU machine carries the instance: from `try_at` on a GPU is looked for."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    wanted_at: datetime
    try_at: datetime


class GpuReturning(Event, tag="standby.returning", kw_only=True, frozen=True):
    """A GPU is to be had: this machine is rented and filled; all of that until `give_up_at`."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    machine_id: str
    attempt: int
    give_up_at: datetime


class ReturnTryFailed(Event, tag="standby.return_try_failed", kw_only=True, frozen=True):
    """No GPU this time. `attempts` have failed so far; the next is made `pause_s` later, at `retry_at`."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    machine_id: str  # empty: none was to be had
    reason: str
    attempts: int
    pause_s: int
    retry_at: datetime


class ReturnCopied(Event, tag="standby.return_copied", kw_only=True, frozen=True):
    """A whole copy of the CPU machine's files is on the GPU machine."""

    instance_id: str
    machine_id: str
    cycle: int
    files: int
    bytes: int
    took_ms: int


class HandoverRequested(Event, tag="standby.handover_requested", kw_only=True, frozen=True):
    """The CPU machine is to be held still and to send what has changed since, by `give_up_at`."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    machine_id: str
    give_up_at: datetime


class HandedOver(Event, tag="standby.handed_over", kw_only=True, frozen=True):
    """Everything that the CPU machine had at `captured_at`, held still since, is on the GPU machine, which is the
    primary from here on. The CPU machine is its standby."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    machine_id: str
    generation: int
    captured_at: datetime
    files: int
    bytes: int


class Returned(Event, tag="standby.returned", kw_only=True, frozen=True):
    """The instance is ready on its GPU again, `total_ms` after that was wanted."""

    public = True
    instance_id: str
    account_id: str
    cpu_name: str
    machine_id: str
    total_ms: int


class ReturnAbandoned(Event, tag="standby.return_abandoned", kw_only=True, frozen=True):
    """The instance is not running on that CPU machine any more, or not now: nothing is looked for."""

    instance_id: str


ReturnEvent = (
    ReturnWanted
    | GpuReturning
    | ReturnTryFailed
    | ReturnCopied
    | HandoverRequested
    | HandedOver
    | Returned
    | ReturnAbandoned
)
