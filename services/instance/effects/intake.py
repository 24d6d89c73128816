"""Fill a wish with the market as it stands, before it is decided: deciders see offers, never clouds.

Called by the runtime for the commands named in `INTAKE`. Refuses nothing itself: it says why there is no offer, and the
decider refuses only if it needs one (a repeated create does not).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from libs.refusal import Transient
from proto.instance.commands import (
    CreateInstance,
    HibernateInstance,
    ReplaceMachine,
    ReportStartRefused,
    RequestCpuStandby,
    RequestSnapshot,
    RequestStandby,
    StartInstance,
    SuspendInstance,
    TryReturn,
)
from proto.instance.words import MachineSpec, Offer
from services.instance.decider.gpu_search import choose_preferred, choose_return
from services.instance.decider.market import CANDIDATES_MAX, Choice, Stock, choose, is_in_region
from services.instance.decider.volume import RUNG as REGIONAL_VOLUME
from services.instance.effects.world import MARKET_AGE_FRESH_S, MARKET_AGE_MAX_S, World
from services.instance.queries import cares, contracts

S = TypeVar("S", RequestSnapshot, HibernateInstance, SuspendInstance)
NOT_TO_BE_HAD = ("NO_AVAILABLE_PRODUCTS", "PRODUCT_NOT_FOUND")  # the latter too after a start of ours: sold out
LOOKS_MAX = 2  # the market in hand, and the one that the cloud shows when nothing is left in it
OFFERS_OF_CPUS_MAX = 5
OFFERS_ON_HOST_MAX = 3  # offers of one host differ in size only: when the first are gone, so are the rest


async def with_offers(command: CreateInstance, world: World) -> CreateInstance:
    """Candidates for a new instance; a chosen offer also says what the machine is."""
    wanted = command.protection
    host_gpus_min = max(wanted.pool_host_gpus, 2 * command.spec.gpu_count) if wanted and wanted.pool_mode else 0
    choice = await choose_offers(
        command.spec, command.account_id, world, offer_id=command.offer_id, host_gpus_min=host_gpus_min
    )
    if command.volume is not None and not command.offer_id and not command.spec.region:
        choice = await _preferring(command.volume.preferred_regions, choice, command, world)
    spec = _as_offered(command.spec, choice.offers[0]) if command.offer_id and choice.offers else command.spec
    return replace(command, spec=spec, offers=choice.offers, no_offer=choice.code)


async def _preferring(regions: Sequence[str], choice: Choice, command: CreateInstance, world: World) -> Choice:
    """What is to be had in these regions goes first, in their order."""
    found: dict[str, Offer] = {}
    for region in regions:
        there = await choose_offers(replace(command.spec, region=region), command.account_id, world)
        found |= {offer.offer_id: offer for offer in there.offers if is_in_region(offer.region, region)}
    found = {**found, **{offer.offer_id: offer for offer in choice.offers if offer.offer_id not in found}}
    return Choice(tuple(found.values())[:CANDIDATES_MAX], choice.code)


async def with_offers_for_start(command: StartInstance, world: World) -> StartInstance:
    """Candidates in case the start needs a new machine."""
    wanted = await contracts.wanted_of(world.pool, command.instance_id)
    if wanted is None:
        return replace(command, offers=(), no_offer="")
    choice = await choose_offers(wanted.spec_beside_files, command.account_id, world)
    return replace(command, offers=await _files_first(wanted, choice, world), no_offer=choice.code)


async def with_offers_elsewhere(command: ReportStartRefused, world: World) -> ReportStartRefused:
    """Candidates for an instance whose stopped machine has lost its GPU."""
    wanted = await contracts.wanted_of(world.pool, command.instance_id)
    if wanted is None:
        return command
    choice = await choose_offers(wanted.spec_beside_files, wanted.account_id, world)
    return replace(command, offers=await _files_first(wanted, choice, world))


async def _files_first(wanted: contracts.Wanted, choice: Choice, world: World) -> tuple[Offer, ...]:
    """The host that has the instance's volume before all others."""
    beside_files = await offers_on_host(wanted.spec, wanted.volume_host_id, world) if wanted.volume_host_id else ()
    return (*beside_files[:1], *(offer for offer in choice.offers if offer not in beside_files))


async def with_offers_on_host(command: RequestStandby, world: World) -> RequestStandby:
    """What the primary's host has free for a machine like it."""
    wanted = await contracts.wanted_of(world.pool, command.instance_id)
    if wanted is None:
        return command
    return replace(command, offers=await offers_on_host(wanted.spec, command.host_id, world))


async def with_offers_for_replacement(command: ReplaceMachine, world: World) -> ReplaceMachine:
    """Candidates in the region of its volume, or anywhere: then the files come from storage."""
    wanted = await contracts.wanted_of(world.pool, command.instance_id)
    if wanted is None:
        return command
    is_bound = command.rung == REGIONAL_VOLUME
    spec = wanted.spec_beside_files if is_bound else wanted.spec
    choice = await choose_offers(
        spec, wanted.account_id, world, will_do=lambda offer: not is_bound or is_in_region(offer.region, spec.region)
    )
    if choice.code in NOT_TO_BE_HAD:
        choice = await _of_other_models(command, spec, wanted.account_id, world) or choice
    return replace(command, offers=choice.offers, no_offer=choice.code)


async def _of_other_models(command: ReplaceMachine, spec: MachineSpec, account_id: str, world: World) -> Choice | None:
    """What the account has named for a machine whose model is not to be had."""
    stock = await _stock(world)
    if stock is None:
        return None
    lost = await contracts.last_gpu_of(world.pool, command.instance_id)
    found = choose_preferred(
        spec,
        lost,
        stock,
        names=await cares.gpu_names_of(world.pool, account_id),
        blocked=await _blocked(account_id, world),
        is_bound_to_region=command.rung == REGIONAL_VOLUME,
    )
    return Choice(found) if found else None


async def with_cpu_offers(command: RequestCpuStandby, world: World) -> RequestCpuStandby:
    """CPU machines, cheapest first; in another region than the primary's where there is one: zones fail as a whole."""
    wanted = await contracts.wanted_of(world.pool, command.instance_id)
    if wanted is None:
        return command
    stock = await _stock(world)
    if stock is None:
        return command
    region = await contracts.region_of(world.pool, command.instance_id)
    fitting = [offer for offer in stock.left() if offer.kind == "cpu"]
    fitting.sort(key=lambda offer: (offer.region == region, offer.price_usd_micros_per_hour, offer.offer_id))
    return replace(command, offers=tuple(fitting[:OFFERS_OF_CPUS_MAX]))


async def with_offers_for_return(command: TryReturn, world: World) -> TryReturn:
    """GPUs that an instance may return to from a CPU machine."""
    wanted = await contracts.wanted_of(world.pool, command.instance_id)
    if wanted is None:
        return command
    stock = await _stock(world)
    if stock is None:
        return replace(command, no_offer="PROVIDER_UNAVAILABLE")
    lost = await contracts.last_gpu_of(world.pool, command.instance_id)
    blocked = await _blocked(wanted.account_id, world)
    names = await cares.gpu_names_of(world.pool, wanted.account_id)
    choice = choose_return(wanted.spec, lost, stock, names=names, blocked=blocked, known_models=world.market.models)
    return replace(command, offers=choice.offers, no_offer=choice.code)


async def with_storage(command: S, world: World) -> S:
    return replace(command, has_storage=world.storage is not None)


async def offers_on_host(spec: MachineSpec, host_id: str, world: World) -> tuple[Offer, ...]:
    """Best first. The host may be blocked: the instance, or its files, are there already. It is the only one that will
    do, and a loss has often just made room there: that it is full is believed of a fresh market only."""
    for age_s_max in (MARKET_AGE_MAX_S, MARKET_AGE_FRESH_S):
        stock = await _stock(world, age_s_max)
        if stock is None:
            return ()
        if found := stock.ranked_on_host(spec, host_id):
            return found[:OFFERS_ON_HOST_MAX]
    return ()


async def choose_offers(
    spec: MachineSpec,
    account_id: str,
    world: World,
    *,
    offer_id: str = "",
    host_gpus_min: int = 0,
    will_do: Callable[[Offer], bool] = lambda _: True,
    is_crowded: Callable[[Offer], bool] = lambda _: False,
) -> Choice:
    """The best offers for an account now, with the code that says why there are none. That there are none is not
    believed of a market in which somebody was refused something: the cloud is asked again."""
    blocked = await _blocked(account_id, world)
    choice = Choice((), "PROVIDER_UNAVAILABLE")
    for _ in range(LOOKS_MAX):
        stock = await _stock(world)
        if stock is None:
            return Choice((), "PROVIDER_UNAVAILABLE")
        choice = choose(
            spec,
            stock,
            blocked=blocked,
            known_models=world.market.models,
            offer_id=offer_id,
            host_gpus_min=host_gpus_min,
            will_do=will_do,
            is_crowded=is_crowded,
        )
        if choice.offers or not stock.has_refusals:
            break
        world.forget_offers(stock)
    return choice


async def _stock(world: World, age_s_max: float = MARKET_AGE_MAX_S) -> Stock | None:
    """The market as it stands; None while no cloud answers."""
    try:
        return await world.offers(age_s_max)
    except Transient as unwell:
        world.logger.info("market.unreachable", cause=str(unwell))
        return None


async def _blocked(account_id: str, world: World) -> set[tuple[str, str]]:
    """Hosts that an account's machines are not to be on. A burst of creates asks for them over and over."""
    now = world.clock.now()
    entries = await world.recent.answer(
        "blacklist", account_id, lambda: contracts.blocked_hosts(world.pool, account_id, now)
    )
    return {entry.host for entry in entries if entry.expires_at is None or entry.expires_at > now}


def _as_offered(spec: MachineSpec, offer: Offer) -> MachineSpec:
    return replace(
        spec,
        gpu=offer.gpu,
        gpu_count=offer.gpu_count,
        region=offer.region,
        billing=offer.billing,
        kind=offer.kind,
    )
