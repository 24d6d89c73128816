"""What only a machine may know (its variables, its start command) on the way to its cloud. Called when one is ordered;
the gateway sealed it when the instance was created."""

from __future__ import annotations

from msgspec.structs import replace

from libs.sealing import NotSealedHere, Sealer
from proto.instance.events import MachineRequested
from proto.instance.words import SPEC_PURPOSE, MachineSpec
from services.instance.effects.world import World
from services.instance.providers import OrderRejected


def opened_spec(event: MachineRequested, world: World) -> MachineSpec:
    """With what only the machine may know in the clear, on its way to the cloud. Raises OrderRejected."""
    spec = event.spec
    if not (spec.env or spec.start_command):
        return spec
    sealer = Sealer(world.secret.reveal(), purpose=SPEC_PURPOSE)
    try:
        return replace(
            spec,
            env={name: sealer.open_field(value, owner=event.instance_id) for name, value in spec.env.items()},
            start_command=sealer.open_field(spec.start_command, owner=event.instance_id),
        )
    except NotSealedHere as error:
        raise OrderRejected("STARTUP_FAILED", "its variables were sealed with another platform secret") from error
