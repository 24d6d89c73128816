"""The rules of the failover service, pure: state, decide(state, command) -> events or Refused, evolve(state, event).

Split by noun: `guard` (what is remembered of one instance), `climbing` (how its failovers go), `ladder` (which rungs
there are), `settings` (what a customer may choose).
"""

from __future__ import annotations

from libs.runtime.service import Aggregate
from proto.failover.events import GuardEvent, SettingsEvent
from services.failover.decider import climbing, guard, settings

GUARD = Aggregate("guard", guard.UNTOUCHED, climbing.decide, guard.evolve, GuardEvent)
SETTINGS = Aggregate("settings", settings.DEFAULTS, settings.decide, settings.evolve, SettingsEvent)
AGGREGATES = (GUARD, SETTINGS)
