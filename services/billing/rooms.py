"""The rooms of the billing service as one value: for its process, the rebuild command and the simulation."""

from __future__ import annotations

from pathlib import Path

from libs.runtime.service import Service
from proto.billing.commands import AnyCommand
from services.billing import policy, projection
from services.billing.decider import AGGREGATES
from services.billing.effects import EFFECTS, INTAKE, TASKS
from services.billing.queries import QUERIES

ROOMS = Path(__file__).parent
SERVICE = Service(
    name="billing",
    aggregates=AGGREGATES,
    commands=AnyCommand,
    react=policy.react,
    project=projection.project,
    schema_sql=(ROOMS / "schema.sql").read_text(encoding="utf-8"),
    hears=policy.HEARS,
    hears_events=policy.HEARS_EVENTS,
    intake=INTAKE,
    effects=EFFECTS,
    queries=QUERIES,
    tasks=TASKS,
)
