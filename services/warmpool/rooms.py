"""The rooms of the warm pool service as one value: for its process, the rebuild command and the simulation."""

from __future__ import annotations

from pathlib import Path

from libs.runtime.service import Service
from proto.warmpool.commands import AnyCommand
from services.warmpool import policy, projection
from services.warmpool.decider import AGGREGATES
from services.warmpool.effects import INTAKE
from services.warmpool.queries import QUERIES

ROOMS = Path(__file__).parent
SERVICE = Service(
    name="warmpool",
    aggregates=AGGREGATES,
    commands=AnyCommand,
    react=policy.react,
    project=projection.project,
    schema_sql=(ROOMS / "schema.sql").read_text(encoding="utf-8"),
    hears=policy.HEARS,
    hears_events=policy.HEARS_EVENTS,
    intake=INTAKE,
    queries=QUERIES,
)
