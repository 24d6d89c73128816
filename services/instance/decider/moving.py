"""A stopped instance whose machine cannot be started again, because its GPU was given to somebody else meanwhile.

Called by `wishes.decide`. A stopped machine keeps its disk, and at most clouds not its GPU. The customer wants to work:
another machine is rented and filled from the last snapshot, or put beside the volume that has the files. Where there
is neither, nothing is rented: the files are on the disk, and the same start may succeed later.
"""

from __future__ import annotations

from collections.abc import Sequence

from libs.ids import derive_id
from proto.base import Event
from proto.instance.commands import ReportStartRefused
from proto.instance.events import MachineLost, MachineRequested
from proto.instance.words import Offer
from services.instance.decider import machine as machines
from services.instance.decider import standby, volume
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import Machine
from services.instance.decider.market import CANDIDATES_MAX

GPU_GONE = "its GPU has been given to somebody else"
KEPT = "the files are kept on its disk: start it again later"


def start_refused(state: Instance, command: ReportStartRefused) -> Sequence[Event]:
    """Late, repeated, or answered meanwhile: nothing."""
    machine = state.machine(command.machine_id)
    if machine is None or machine.status != "rented" or machine.requested_at != command.requested_at:
        return []
    if machine.role == "primary" and state.status == "starting":
        offers, why = _offers(state, machine, command)
        if offers:
            return _move(state, machine, command, offers)
    else:  # a standby, or one that was taking over: whoever asked for it tries something else
        why = GPU_GONE
    known = (machine.offer,) if machine.offer else ()
    return machines.fail(
        state, machine, stage="rejected", code="OFFER_UNAVAILABLE", reason=why, offers=known, now=command.now
    )


def _offers(state: Instance, machine: Machine, command: ReportStartRefused) -> tuple[tuple[Offer, ...], str]:
    """Where the files can be had again; without any such place, what to do instead."""
    bound_to = volume.of_region(state)
    if bound_to is not None and machine.on_volume:
        there = volume.offers_there(state, command.offers)
        return there[:CANDIDATES_MAX], f"{GPU_GONE}, and {bound_to.region}, which has the files, has no other; {KEPT}"
    if state.vault.latest is not None:
        why = f"{GPU_GONE}, and no other machine is to be had now; {KEPT}"
        return command.offers[:CANDIDATES_MAX], why
    shared = state.volume
    if shared is not None and machine.on_volume:
        beside = (offer for offer in command.offers if shared.is_at(offer))
        return tuple(beside)[:CANDIDATES_MAX], f"{GPU_GONE}, and its host, which has the files, has no other; {KEPT}"
    return (), f"{GPU_GONE}, and there is no snapshot to go on from elsewhere; {KEPT}"


def _move(state: Instance, machine: Machine, command: ReportStartRefused, offers: tuple[Offer, ...]) -> Sequence[Event]:
    """The old disk is given back when the new machine is ready, not before: the copy might not be."""
    bound_to, generation = volume.of_region(state), state.generation + 1
    latest = state.vault.latest if bound_to is None else None
    lost = MachineLost(
        instance_id=state.instance_id, machine_id=machine.machine_id, reason="provider_lost", detail=GPU_GONE
    )
    requested = MachineRequested(
        instance_id=state.instance_id,
        account_id=state.account_id,
        machine_id=derive_id("mach", state.instance_id, "moved", str(generation)),
        role="primary",
        generation=generation,
        spec=state.spec,
        offers=offers,
        requested_at=command.now,
        give_up_at=command.now + (machine.give_up_at - machine.requested_at),
        exact=latest is None and bound_to is None,  # no other host has the files
        restore=latest.snapshot_id if latest else "",
        volume=state.volume_wish if bound_to is None else None,
    )
    return [lost, *standby.give_back_all(state, "primary_moved"), requested]
