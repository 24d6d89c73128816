"""The outside world of webhook dispatch: receivers. Outcomes come back as commands.

Split by noun: `world` (what there is), `dispatching` (the task), `directory` (who hears), `hearing` (facts to parcels),
`lanes` (order and fairness), `sending` and `posting` (one POST), `fence` and `address` (who may be dialled),
`recording` (outcomes), `asking` (what an owner wants by hand).
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.runtime.service import Answer, Effect, Intake, Task
from proto.base import Command, Event, Signal
from proto.webhook_dispatch.commands import ChangeEndpoint, CreateEndpoint
from proto.webhook_dispatch.events import RecoveryRequested, ResendRequested
from proto.webhook_dispatch.queries import ProbeEndpoint
from services.webhook_dispatch.effects import asking, dispatching

RECOVER_TRIES_MAX = 40  # with the pauses of the runtime about 20 minutes: as long as the log may be away

EFFECTS: Mapping[type[Event], Effect] = {
    ResendRequested: Effect(asking.resend, lane="resend"),
    RecoveryRequested: Effect(asking.recover, lane="recover", tries_max=RECOVER_TRIES_MAX),
}
INTAKE: Mapping[type[Command], Intake] = {
    CreateEndpoint: asking.checked_url,
    ChangeEndpoint: asking.checked_url,
}
SIGNALS: Mapping[type[Signal], Answer] = {ProbeEndpoint: asking.probe}
TASKS: tuple[Task, ...] = (dispatching.dispatch,)
