"""What is said when another machine carries an instance after a loss.

Called by `machine.healthy`. Seed 001 calls it a migration; its owner learns which machine was lost, why, and how long
the move took.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from proto.instance.events import InstanceMigrated
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import Machine


def migrated(
    state: Instance, machine: Machine, now: datetime, *, region: str, on_cpu: bool
) -> Sequence[InstanceMigrated]:
    """Nothing when the instance became ready without a loss before."""
    if state.status != "recovering" or state.interrupted_by is None:
        return []
    return [
        InstanceMigrated(
            instance_id=state.instance_id,
            account_id=state.account_id,
            name=state.name,
            gpu=state.gpu,
            machine_id=machine.machine_id,
            from_machine_id=state.interrupted_id,
            generation=machine.generation,
            endpoints=machine.endpoints,
            reason=state.interrupted_by,
            took_ms=machine.took_ms(now),
            region=region,
            on_cpu=on_cpu,
        )
    ]
