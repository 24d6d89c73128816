"""A new machine for a lost one, with its volume or filled from the last snapshot; and what an agent reports of the
filling.

Called by `wishes.decide`. The new machine is the primary from the first: the lost one has ended in the log, and its
agent is told to shut down. It is ready only when every file is back and its probes pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from proto.base import Event
from proto.instance.commands import ReplaceMachine, ReportRestored
from proto.instance.events import (
    InstanceRecovering,
    MachineRequested,
    MachineRestored,
    PromotionFailed,
)
from proto.instance.words import Offer
from services.instance.decider import gpu_return, requests, standby, volume
from services.instance.decider import machine as machines
from services.instance.decider.instance import Instance
from services.instance.decider.market import CANDIDATES_MAX


def replace(state: Instance, command: ReplaceMachine) -> Sequence[Event]:
    """Answered once per failover and rung: with a machine, or with why not."""
    if state.machine(command.machine_id) is not None or state.has_answered(command.failover_id, command.rung):
        return []
    latest, is_on_volume = state.vault.latest, command.rung == volume.RUNG
    offers = volume.offers_there(state, command.offers) if is_on_volume else command.offers
    why = _volume_objection(state, command, offers) if is_on_volume else _objection(state, command)
    if why:
        return [_declined(state, command, why)]
    generation = state.generation + 1
    recovering = InstanceRecovering(
        instance_id=state.instance_id,
        account_id=state.account_id,
        name=state.name,
        gpu=state.gpu,
        machine_id=command.machine_id,
        generation=generation,
        failover_id=command.failover_id,
        rung=command.rung,
    )
    requested = MachineRequested(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=command.machine_id,
        role="primary",
        generation=generation,
        spec=state.spec,
        offers=offers[:CANDIDATES_MAX],
        requested_at=command.now,
        give_up_at=command.give_up_at,
        restore=latest.snapshot_id if latest and not is_on_volume else "",
        volume=None if is_on_volume else state.volume_wish,
    )
    lost = standby.give_up_primary(state, command.failover_id)
    return [*lost, recovering, *requests.destroy_lost(state), *standby.give_back_all(state, "primary_moved"), requested]


def _objection(state: Instance, command: ReplaceMachine) -> str:
    """Why there is no new machine, empty when there may be one. A rung before this may have failed meanwhile."""
    if state.status != "interrupted":
        return f"instance_{state.status}"
    if state.interrupted_id != command.replaces:
        return "already_replaced"
    if not command.offers:
        return (command.no_offer or "no_offer").lower()
    return "" if state.vault.latest is not None else "no_snapshot"


def _volume_objection(state: Instance, command: ReplaceMachine, offers: Sequence[Offer]) -> str:
    """A working machine may be given up too, when somebody wishes it: only one machine at a time can have the volume,
    and its files stay."""
    if state.status not in ("interrupted", "ready"):
        return f"instance_{state.status}"
    current_id = state.primary.machine_id if state.primary else state.interrupted_id
    if current_id != command.replaces:
        return "already_replaced"
    if volume.of_region(state) is None:
        return volume.NO_VOLUME
    if command.no_offer == "PROVIDER_UNAVAILABLE":
        return command.no_offer.lower()
    return "" if offers else volume.NO_GPU


def _declined(state: Instance, command: ReplaceMachine, reason: str) -> PromotionFailed:
    return PromotionFailed(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=command.machine_id,
        failover_id=command.failover_id,
        reason=reason,
        rung=command.rung,
    )


def restored(state: Instance, command: ReportRestored) -> Sequence[Event]:
    """Late, repeated, or of a machine that was not to be filled: nothing."""
    machine = state.machine(command.machine_id)
    if machine is None or machine.restore != command.source or machine.restored_at is not None:
        return []
    if machine.status != "booted":
        return []
    if gpu_return.is_short_of(state, machine, command.captured_at):
        return machines.fail_restored(state, machine, command.now)
    return [
        MachineRestored(
            instance_id=state.instance_id,
            machine_id=machine.machine_id,
            source=command.source,
            captured_at=command.captured_at,
            files=command.files,
            bytes=command.bytes,
            took_ms=command.took_ms,
            health_check=state.health_check,
        )
    ]
