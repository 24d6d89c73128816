"""The rooms of webhook dispatch as one value: for its process, the rebuild command and the simulation."""

from __future__ import annotations

from pathlib import Path

from libs.runtime.service import Service
from proto.webhook_dispatch.commands import AnyCommand
from services.webhook_dispatch import policy, projection
from services.webhook_dispatch.decider import AGGREGATES
from services.webhook_dispatch.effects import EFFECTS, INTAKE, SIGNALS, TASKS
from services.webhook_dispatch.queries import QUERIES

ROOMS = Path(__file__).parent
SERVICE = Service(
    name="webhook_dispatch",
    aggregates=AGGREGATES,
    commands=AnyCommand,
    react=policy.react,
    project=projection.project,
    schema_sql=(ROOMS / "schema.sql").read_text(encoding="utf-8"),
    intake=INTAKE,
    effects=EFFECTS,
    queries=QUERIES,
    signals=SIGNALS,
    tasks=TASKS,
)
