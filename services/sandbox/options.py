"""What an operator may turn on the sandbox cloud: pace, luck and size of its market.

Read by `__main__` from DUMONT_SANDBOX_OPTIONS (one JSON object) and handed to the rooms that need it. Owns every
default.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

PPM_OF_ALL = 1_000_000
Ppm = Annotated[int, Meta(ge=0, le=PPM_OF_ALL)]
Milliseconds = Annotated[int, Meta(ge=0, le=3_600_000)]

# Process mode: a few hundred real machines are what one host carries. Virtual: enough for 2,000 customers at once.
GPUS_PROCESS = 320
GPUS_VIRTUAL = 3_072


class BadOptions(Exception):
    """The operator's JSON cannot be used; the text says which field and why."""


class Span(Struct, frozen=True, forbid_unknown_fields=True):
    """A duration drawn evenly between two bounds, in milliseconds."""

    min: Milliseconds
    max: Milliseconds

    def __post_init__(self) -> None:
        if self.max < self.min:
            raise ValueError("max is smaller than min")


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything adjustable; all fields optional. Rates are parts per million of the calls or events concerned."""

    virtual: bool = False  # no processes: the same API over a state machine, for load
    seed: int = 1  # market, delays and failures follow from it
    gpus: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # 0: the default of the mode
    boot_delay_ms: Span = Span(300, 900)  # on top of what booting really takes
    stop_grace_ms: Milliseconds = 500  # between SIGTERM and SIGKILL
    list_lag_ms: Milliseconds = 0  # how long a listing does not know a new machine
    preemptions_per_hour: Annotated[float, Meta(ge=0, le=36_000)] = 0.0  # per running spot machine
    create_failure_ppm: Ppm = 0  # answered 503, nothing created
    create_timeout_ppm: Ppm = 0  # created, but no answer ever comes
    boot_failure_ppm: Ppm = 0  # accepted, then `failed`
    news_loss_ppm: Ppm = 0  # events that are never sent
    news_duplicate_ppm: Ppm = 0  # events sent twice
    requests_per_s_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # 0: no limit; above it 429
    market_tick_s: Annotated[int, Meta(ge=1, le=86_400)] = 60  # prices and others' demand move this often
    charge_delay_s: Annotated[int, Meta(ge=0, le=86_400)] = 60  # a charge is published so long after its stretch
    volume_price_usd_micros_per_gb_hour: Annotated[int, Meta(ge=0, le=1_000_000)] = 137  # as billing charges it
    outside_demand_ppm: Ppm = 300_000  # share of GPUs that other customers hold at most

    @property
    def market_gpus(self) -> int:
        return self.gpus or (GPUS_VIRTUAL if self.virtual else GPUS_PROCESS)


def decode(text: str) -> Options:
    """Read the operator's JSON; an empty text means all defaults. Raises BadOptions."""
    if not text.strip():
        return Options()
    try:
        return msgspec.json.decode(text, type=Options)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadOptions(f"DUMONT_SANDBOX_OPTIONS: {error}") from error
