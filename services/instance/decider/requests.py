"""What is asked of a cloud about a machine that it has for us: to start it, to stop it, to take it back. Pure.

Used by every rule that moves an instance from one machine to another; `effects.renting` does what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from proto.instance.events import MachineDestroyRequested, MachineStartRequested, MachineStopRequested
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import Machine


def start(state: Instance, machine: Machine, *, now: datetime, give_up_at: datetime) -> MachineStartRequested:
    return MachineStartRequested(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        provider=machine.provider,
        provider_machine_id=machine.provider_machine_id,
        requested_at=now,
        give_up_at=give_up_at,
    )


def stop(state: Instance, machine: Machine) -> MachineStopRequested:
    return MachineStopRequested(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        provider=machine.provider,
        provider_machine_id=machine.provider_machine_id,
    )


def destroy(state: Instance, machine: Machine) -> MachineDestroyRequested:
    return MachineDestroyRequested(
        instance_id=state.instance_id,
        machine_id=machine.machine_id,
        provider=machine.provider,
        provider_machine_id=machine.provider_machine_id,
    )


def destroy_lost(state: Instance) -> Sequence[MachineDestroyRequested]:
    """What lost machines left at the cloud would cost money for ever."""
    return [destroy(state, machine) for machine in state.machines if machine.status == "lost" and machine.has_contract]
