"""Closed word sets of the warm pool service (contract dumont 4).

Words: a *pool* protects one instance with one *standby* machine on the same host, which shares the primary's *volume*.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

PoolStatus: TypeAlias = Literal[
    "disabled", "searching", "provisioning", "active", "failover", "recovering", "degraded", "error"
]
StandbyState: TypeAlias = Literal["none", "stopped", "starting", "running"]
# stopped: costs only its volume, and its GPU may be gone when it is needed; hot: runs all the time.
StandbyMode: TypeAlias = Literal["stopped", "hot"]
