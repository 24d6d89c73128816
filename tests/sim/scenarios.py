"""Every scenario by name, with the weather it runs in: for `python -m tests.sim`."""

from __future__ import annotations

from libs.sim.chance import Faults
from libs.sim.world import Scenario
from tests.sim import bell_scenario

SCENARIOS: dict[str, tuple[Scenario, Faults]] = {"bell": (bell_scenario.scenario, bell_scenario.ROUGH)}
