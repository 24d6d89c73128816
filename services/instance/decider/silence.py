"""An agent that is not heard of: told once, and after long enough, or when the cloud agrees, the machine is lost.

Called by `wishes.decide`. Rule: contract dumont 6. Silence alone proves little, because heartbeats travel through
our own gateway; the watch that reports it (`effects/silence.py`) has asked the cloud first.
"""

from __future__ import annotations

from collections.abc import Sequence

from proto.base import Event
from proto.instance.commands import ReportHeard, ReportSilence
from proto.instance.events import AgentHeartbeatLost, AgentHeartbeatRestored
from services.instance.decider import machine as machines
from services.instance.decider.instance import Instance


def decide(state: Instance, command: ReportSilence | ReportHeard) -> Sequence[Event]:
    return silent(state, command) if isinstance(command, ReportSilence) else heard(state, command)


def silent(state: Instance, command: ReportSilence) -> Sequence[Event]:
    machine = state.machine(command.machine_id)
    if machine is None or machine.role != "primary" or machine.status != "healthy" or state.status != "ready":
        return []
    events: list[Event] = []
    if machine.silent_since is None:
        lost = AgentHeartbeatLost(
            instance_id=state.instance_id,
            account_id=state.account_id,
            machine_id=machine.machine_id,
            last_seen_at=command.last_seen_at,
            missed=command.missed,
        )
        events.append(lost)
    if command.is_lost:
        events += machines.lose(
            state, machine, reason="heartbeat_lost", detail=command.detail, gone=False, now=command.now
        )
    return events


def heard(state: Instance, command: ReportHeard) -> Sequence[Event]:
    machine = state.machine(command.machine_id)
    if machine is None or machine.silent_since is None or machine.status != "healthy":
        return []
    return [
        AgentHeartbeatRestored(instance_id=state.instance_id, machine_id=machine.machine_id, seen_at=command.seen_at)
    ]
