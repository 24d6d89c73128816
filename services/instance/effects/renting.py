"""The hand that rents, starts, stops and gives back machines at their cloud.

Called by the runtime, at least once per event: every effect first looks at the newest state, and a create is never
repeated before the cloud has been asked for our label. What is found out goes to our own decider as a report;
contracts that nobody wants any more are reported too, so that the decider can give them back.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from libs.refusal import OutcomeUnknown, Transient
from libs.runtime.service import Job
from proto.base import Command, Event
from proto.instance.commands import (
    ReportBooted,
    ReportDestroyed,
    ReportFailed,
    ReportRented,
    ReportStartRefused,
    ReportStopped,
)
from proto.instance.events import (
    MachineDestroyRequested,
    MachineRequested,
    MachineStartRequested,
    MachineStopRequested,
)
from proto.instance.host_events import OrphanDestroyRequested
from proto.instance.words import Offer, Volume
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import Machine
from services.instance.effects.counting_volumes import destroy_orphan_volume
from services.instance.effects.intake import choose_offers
from services.instance.effects.ordering import FILLED_BY_SYNC, order
from services.instance.effects.orphans import gone
from services.instance.effects.sharing import adopted_volume, fence, made_volume, report_shared
from services.instance.effects.world import World
from services.instance.providers import OfferGone, OrderRejected, Provider, ProviderMachine
from services.instance.queries import contracts

LOOK_PAUSE_S = 0.5  # between two looks for our label
END_WAIT_S = 10.0  # stopping and destroying usually take less; the watch hears of the rest
END_PAUSE_S = 0.1
MARKET_ROUNDS_MAX = 3  # choices anew: a market that is stale three times in a row is really empty


def machine_of(job: Job, machine_id: str) -> Machine | None:
    """The machine as it is now."""
    state: Instance | None = job.state
    return None if state is None else state.machine(machine_id)


def is_for_a_new_instance(event: Event) -> bool:
    """Nobody has lost anything yet: such a machine may wait a moment while customers are being answered."""
    return isinstance(event, MachineRequested) and event.role == "primary" and event.generation == 1


async def rent(job: Job, world: World) -> Sequence[Command]:
    """MachineRequested: rent the best candidate that is still to be had."""
    event = job.heard.event
    assert isinstance(event, MachineRequested)
    machine = machine_of(job, event.machine_id)
    if machine is None or machine.provider_machine_id:
        return []
    if job.maybe_done:
        found = await _look_for(event, world)
        if found is not None:
            offer = _offer_of(event, found)
            volume = Volume(found.volume_id, offer.provider, offer.host_id, event.volume_gb) if event.mode else None
            made = await adopted_volume(event, found.volume_id, world.providers[offer.provider])
            rented = _rented(event, found, offer, world, adopted=True, made=made)
            return [*report_shared(event, volume, world), *rented]
        # Looking takes seconds: another replica may have rented, and even lost, the machine meanwhile.
        if await contracts.has_left(world.pool, event.machine_id, "requested", since=job.heard.at):
            return []
    if machine.status != "requested":
        return []
    state: Instance = job.state
    if event.role == "primary":
        # What is filled from a copy does not trust, nor need, the volume of a region that the instance is leaving.
        volume = None if state.volume and state.volume.region and event.restore else state.volume
        if volume is not None and volume.region:
            await fence(event, state, world, give_back=_destroy_at)
        return await _rent_in_rounds(event, volume, world)
    if event.role in FILLED_BY_SYNC:
        return await _rent_in_rounds(event, None, world)
    return await _rent_beside_primary(event, state, world)


async def _rent_beside_primary(event: MachineRequested, state: Instance, world: World) -> Sequence[Command]:
    """A standby: first the primary's workspace becomes a volume, which is reported whatever comes of the rest."""
    primary = state.primary
    provider = None if primary is None else world.providers.get(primary.provider)
    if primary is None or primary.offer is None or provider is None:
        return [_failed(event, world, "INVALID_STATE", "the primary is gone", stage_is_rejected=True, offers=())]
    if not provider.capabilities.shared_volume:
        why = f"{provider.name} cannot share a workspace"
        return [_failed(event, world, "FEATURE_DISABLED", why, stage_is_rejected=True, offers=())]
    size_gb = event.volume_gb
    try:
        # Named after the machine whose workspace it was, so that a later primary on this host has one of its own.
        volume_id = await provider.share_workspace(
            primary.provider_machine_id, name=primary.machine_id, size_gb=size_gb
        )
    except OfferGone:
        return [_failed(event, world, "INVALID_STATE", "the primary is gone", stage_is_rejected=True, offers=())]
    volume = Volume(volume_id, provider.name, primary.offer.host_id, size_gb)
    return [*report_shared(event, volume, world), *await _rent_in_rounds(event, volume, world)]


async def _rent_in_rounds(event: MachineRequested, volume: Volume | None, world: World) -> Sequence[Command]:
    """Try the candidates; when all are gone and any will do, choose anew from what the market has left, beside those
    who were refused the same and choose too. A volume of a region has the files: only what is rented there will do."""
    bound_to = volume if volume is not None and volume.region else None
    spec = event.spec if bound_to is None else replace(event.spec, region=bound_to.region)
    rejected = list[Offer]()

    def will_do(offer: Offer) -> bool:
        is_tried = any(offer.offer_id == gone.offer_id for gone in rejected)
        return not is_tried and (bound_to is None or bound_to.is_at(offer))

    reports = await _try_candidates(event, list(filter(will_do, event.offers)), rejected, volume, world)
    for _ in range(0 if event.exact else MARKET_ROUNDS_MAX):
        if reports:
            break
        choice = await choose_offers(spec, event.account_id, world, will_do=will_do, is_crowded=world.is_crowded)
        reports = await _try_candidates(event, choice.offers, rejected, volume, world)
    if reports:
        return reports
    reason = f"{len(rejected)} offers were tried and gone"
    return [_failed(event, world, "OFFER_UNAVAILABLE", reason, stage_is_rejected=True, offers=tuple(rejected))]


async def _try_candidates(
    event: MachineRequested, candidates: Sequence[Offer], rejected: list[Offer], volume: Volume | None, world: World
) -> Sequence[Command]:
    """Reports as soon as one try has a definite end; nothing when every candidate was gone. Machines of a burst are
    rented long after they were decided: what others were refused meanwhile is not asked for again.

    Raises OutcomeUnknown when a machine may have been made, Transient when a cloud is unwell and no other helped.
    """
    unwell: Transient | None = None
    for offer in candidates:
        provider = world.providers.get(offer.provider)
        if provider is None or (world.is_gone(offer, event.requested_at) and not event.exact):
            continue
        attached = volume if volume is not None and volume.is_at(offer) else None
        made: Volume | None = None
        try:
            made = None if attached else await made_volume(event, offer, provider)
            with world.ordering(offer):
                created = await provider.create(order(event, offer, world, attached=attached, made=made))
        except OfferGone:
            rejected.append(offer)
            world.market.stock.note_refused(offer)
        except OrderRejected as no:
            return [_failed(event, world, no.code, str(no), stage_is_rejected=False, offers=(*rejected, offer))]
        except OutcomeUnknown:
            found = await _look_for_at(provider, event.machine_id, world)
            if found is None:
                raise
            return _rented(event, found, offer, world, adopted=True, rejected=rejected, made=made)
        except Transient as error:
            unwell = error  # surely not created, so the next candidate may be tried
        else:
            return _rented(event, created, offer, world, rejected=rejected, made=made)
    if unwell is not None:
        raise unwell
    return []


async def _look_for(event: MachineRequested, world: World) -> ProviderMachine | None:
    """Our label at every cloud that an earlier attempt may have asked: any of them, because the market moves."""
    names = {offer.provider for offer in event.offers} if event.exact else set(world.providers)
    for name in sorted(names & set(world.providers)):
        found = await _look_for_at(world.providers[name], event.machine_id, world)
        if found is not None:
            return found
    return None


async def _look_for_at(provider: Provider, label: str, world: World) -> ProviderMachine | None:
    """Absence is believed only after the cloud's own listing lag."""
    give_up_s = world.clock.monotonic_s() + provider.capabilities.list_lag_s
    while True:
        found = await provider.find(label)
        if found is not None and found.status != "gone":
            return found
        if world.clock.monotonic_s() >= give_up_s:
            return None
        await world.clock.sleep(LOOK_PAUSE_S)


def _offer_of(event: MachineRequested, found: ProviderMachine) -> Offer:
    """Which candidate an adopted machine was made from; failing that, the nearest of what we know."""
    by_offer = [offer for offer in event.offers if offer.offer_id == found.offer_id]
    by_host = [offer for offer in event.offers if offer.host_id == found.host_id]
    return [*by_offer, *by_host, *event.offers][0]


def _rented(
    event: MachineRequested,
    machine: ProviderMachine,
    offer: Offer,
    world: World,
    *,
    adopted: bool = False,
    rejected: Sequence[Offer] = (),
    made: Volume | None = None,
) -> Sequence[Command]:
    """The contract, and at once that it runs when the cloud says so: saves a round through the watch."""
    rented = ReportRented(
        now=world.clock.now(),
        instance_id=event.instance_id,
        machine_id=event.machine_id,
        provider=offer.provider,
        provider_machine_id=machine.provider_machine_id,
        offer=offer,
        adopted=adopted,
        has_volume=bool(machine.volume_id),
        volume=made,
        rejected=tuple(rejected),
    )
    return [rented, *_booted_if_running(event.instance_id, event.machine_id, machine, world)]


def _booted_if_running(
    instance_id: str, machine_id: str, machine: ProviderMachine, world: World
) -> Sequence[ReportBooted]:
    if machine.status != "running":
        return []
    return [
        ReportBooted(now=world.clock.now(), instance_id=instance_id, machine_id=machine_id, endpoints=machine.endpoints)
    ]


def _failed(
    event: MachineRequested,
    world: World,
    code: str,
    reason: str,
    *,
    stage_is_rejected: bool,
    offers: tuple[Offer, ...],
) -> ReportFailed:
    return ReportFailed(
        now=world.clock.now(),
        instance_id=event.instance_id,
        machine_id=event.machine_id,
        stage="rejected" if stage_is_rejected else "error",
        code=code,
        reason=reason,
        offers=offers,
    )


def not_rented(job: Job, cause: str) -> Sequence[Command]:
    """The clouds stayed unwell for every try of `rent`. A machine that was made after all is found by the census."""
    event = job.heard.event
    assert isinstance(event, MachineRequested)
    return [_unavailable(event.instance_id, event.machine_id, cause, job)]


def not_started(job: Job, cause: str) -> Sequence[Command]:
    """The cloud stayed unwell for every try of `start`."""
    event = job.heard.event
    assert isinstance(event, MachineStartRequested)
    return [_unavailable(event.instance_id, event.machine_id, cause, job)]


def _unavailable(instance_id: str, machine_id: str, cause: str, job: Job) -> ReportFailed:
    return ReportFailed(
        now=job.heard.at,
        instance_id=instance_id,
        machine_id=machine_id,
        stage="rejected",  # says nothing about a host
        code="PROVIDER_UNAVAILABLE",
        reason=cause,
    )


async def start(job: Job, world: World) -> Sequence[Command]:
    """MachineStartRequested: turn the same machine on again."""
    event = job.heard.event
    assert isinstance(event, MachineStartRequested)
    machine = machine_of(job, event.machine_id)
    if machine is None or machine.status != "rented" or machine.requested_at != event.requested_at:
        return []
    provider = _provider(world, event.provider)
    try:
        await provider.start(event.provider_machine_id)
    except OfferGone:
        world.forget_offers(world.market.stock)  # they are needed now, as they are
        return [
            ReportStartRefused(
                now=world.clock.now(),
                instance_id=event.instance_id,
                machine_id=event.machine_id,
                requested_at=event.requested_at,
            )
        ]
    observed = await provider.get(event.provider_machine_id)
    return _booted_if_running(event.instance_id, event.machine_id, observed, world)


async def stop(job: Job, world: World) -> Sequence[Command]:
    """MachineStopRequested: turn it off and keep its disk."""
    event = job.heard.event
    assert isinstance(event, MachineStopRequested)
    machine = machine_of(job, event.machine_id)
    if machine is None or machine.status != "stopping":
        return []
    provider = _provider(world, event.provider)
    await provider.stop(event.provider_machine_id)
    observed = await _until_ended(provider, event.provider_machine_id, world)
    if observed.status in ("stopped", "exited"):
        now = world.clock.now()
        return [ReportStopped(now=now, instance_id=event.instance_id, machine_id=event.machine_id, requested=True)]
    return []  # the watch hears of it, and looks twice at what is gone


async def destroy(job: Job, world: World) -> Sequence[Command]:
    """MachineDestroyRequested: give it back. Raises Transient until the cloud no longer has it."""
    event = job.heard.event
    assert isinstance(event, MachineDestroyRequested)
    machine = machine_of(job, event.machine_id)
    if machine is None or machine.status != "destroying":
        return []
    await _destroy_at(_provider(world, event.provider), event.provider_machine_id, world)
    return [
        ReportDestroyed(
            now=world.clock.now(), instance_id=event.instance_id, machine_id=event.machine_id, requested=True
        )
    ]


async def destroy_orphan(job: Job, world: World) -> Sequence[Command]:
    """OrphanDestroyRequested: give back what nobody owns, unless somebody has come to own it meanwhile."""
    event = job.heard.event
    assert isinstance(event, OrphanDestroyRequested)
    provider = _provider(world, event.provider)
    if event.kind == "volume":
        return await destroy_orphan_volume(job, provider, world)
    observed = await provider.get(event.provider_machine_id)
    if observed.status != "gone" and not await contracts.is_wanted(
        world.pool, event.provider, event.provider_machine_id, observed.label
    ):
        await _destroy_at(provider, event.provider_machine_id, world)
    return [gone(world, event.provider, event.provider_machine_id)]


async def _destroy_at(provider: Provider, provider_machine_id: str, world: World) -> None:
    await provider.destroy(provider_machine_id)
    observed = await _until_ended(provider, provider_machine_id, world, gone_only=True)
    if observed.status != "gone":
        raise Transient(f"{provider.name} still has {provider_machine_id}: {observed.status}")


async def _until_ended(
    provider: Provider, provider_machine_id: str, world: World, *, gone_only: bool = False
) -> ProviderMachine:
    """Wait a little for the end to show; the last look when it does not."""
    give_up_s = world.clock.monotonic_s() + END_WAIT_S
    ends = ("gone",) if gone_only else ("gone", "stopped", "exited")
    while True:
        observed = await provider.get(provider_machine_id)
        if observed.status in ends or world.clock.monotonic_s() >= give_up_s:
            return observed
        await world.clock.sleep(END_PAUSE_S)


def _provider(world: World, name: str) -> Provider:
    """A cloud that is not configured (any more) cannot be asked: wait for the operator to bring it back."""
    provider = world.providers.get(name)
    if provider is None:
        raise Transient(f"provider {name} is not configured")
    return provider
