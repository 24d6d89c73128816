"""What is ordered at a cloud: the machine with its surroundings, and its workspace's volume.

Called by `renting`. Pure but for the secrets it opens and mints.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from libs.tokens import mint_agent_token
from proto.instance.events import MachineRequested
from proto.instance.words import Offer, Volume
from services.instance.effects.sealed_specs import opened_spec
from services.instance.effects.world import World
from services.instance.providers import MachineOrder
from services.instance.queries.sync_keys import public_key

FILLED_BY_SYNC = ("cpu_standby", "successor")


def order(
    event: MachineRequested, offer: Offer, world: World, *, attached: Volume | None = None, made: Volume | None = None
) -> MachineOrder:
    """With the volume that is there (`attached`: it has the files) or that was made for it. A standby does not run the
    customer's command: two of them would write the same files. Its agent runs it when the standby has taken over."""
    token = mint_agent_token(
        world.secret.reveal(),
        machine_id=event.machine_id,
        instance_id=event.instance_id,
        generation=event.generation,
    )
    environment = {
        "DUMONT_AGENT_TOKEN": token,
        "DUMONT_GATEWAY_URL": world.gateway_url,
        "DUMONT_INSTANCE_ID": event.instance_id,
        "DUMONT_MACHINE_ID": event.machine_id,
    }
    spec = opened_spec(event, world)
    is_to_be_filled = bool(event.restore) and attached is None
    if is_to_be_filled:
        environment["DUMONT_AGENT_RESTORE"] = event.restore
    is_for_later = is_to_be_filled or event.role != "primary"
    if spec.start_command and is_for_later:
        # It needs the files, and the machine must carry the instance: the agent runs it when both hold.
        environment["DUMONT_AGENT_START_COMMAND"] = spec.start_command
        environment["DUMONT_AGENT_START_ENV"] = msgspec.json.encode(spec.env).decode()
    if is_for_later:
        spec = replace(spec, start_command="")
    volume = attached or made
    return MachineOrder(
        event.machine_id,
        offer,
        spec,
        environment,
        volume_id=volume.volume_id if volume else "",
        mount_path=volume.mount_path if volume else "",
        inbox_public_keys=(public_key(world.secret, event.machine_id),) if event.role in FILLED_BY_SYNC else (),
    )
