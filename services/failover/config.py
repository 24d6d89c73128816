"""The failover service's settings, read once by `__main__`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from libs.config import setting


class FailoverConfig(Struct, frozen=True, kw_only=True):
    """How the failover service is run. Each field is one variable, DUMONT_<FIELD>."""

    failovers_per_day_max: Annotated[
        int, setting("an instance fails over at most so often in 24 hours (contract: 5)", ge=1)
    ] = 5
    failover_spacing_s: Annotated[
        int, setting("time between two failovers of an instance (contract: 300)", unit="s", ge=0)
    ] = 300
    breaker_failures_max: Annotated[int, setting("a rung that failed so often in a row is spared", ge=1)] = 3
    breaker_open_s: Annotated[int, setting("for so long", unit="s", ge=0)] = 300
