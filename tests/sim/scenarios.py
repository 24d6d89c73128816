"""Every scenario by name, with the weather it runs in: for `python -m tests.sim`."""

from __future__ import annotations

from libs.sim.chance import Faults
from libs.sim.world import Scenario
from tests.sim import bell_scenario, instance_scenario, survival_scenario

SCENARIOS: dict[str, tuple[Scenario, Faults]] = {
    "instance": (instance_scenario.scenario, instance_scenario.WEATHER),
    "instance-harsh": (instance_scenario.scenario, instance_scenario.HARSH),
    "survival": (survival_scenario.scenario, survival_scenario.WEATHER),
    "volumes": (survival_scenario.volumes, survival_scenario.WEATHER),
    "every-rung": (survival_scenario.every_rung, survival_scenario.WEATHER),
    "bell": (bell_scenario.scenario, bell_scenario.ROUGH),
}
