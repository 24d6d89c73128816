"""What a service is given from outside: adapters of the ports, and its own world.

Made by composition roots (and by `libs.sim`), handed to `libs.runtime.run.run`. Owns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from libs.clock import Clock
from libs.eventlog import EventLog
from libs.ids import Ids
from libs.runtime.bus import Bus
from libs.runtime.recent import Recent
from libs.runtime.store import Store
from libs.telemetry import Logger, Metrics


@dataclass
class Surroundings:
    """All a service needs from outside, chosen by the composition root (or by the simulation)."""

    log: EventLog
    store: Store
    bus: Bus
    clock: Clock
    ids: Ids
    logger: Logger
    metrics: Metrics
    world: Any = None
    pool: Any = None
    ready: Callable[[], None] = field(default=lambda: None)
    recent: Recent = field(default_factory=Recent)
