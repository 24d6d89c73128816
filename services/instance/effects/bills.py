"""What clouds charge us: asked for now and then, told as facts, compared with our own ledger by whoever keeps it.

Run by the leading replica. Where it stands is the highest number among its own rows, so a restart goes on from there;
what is asked for twice is told once.
"""

from __future__ import annotations

from libs.refusal import Refused, Transient
from libs.runtime.service import Handle
from proto.instance.host_commands import ReportBill
from services.instance.effects.world import World
from services.instance.providers import ProviderCharge

BILLS_POLL_S = 30.0  # clouds publish charges minutes or hours late; asking more often finds nothing

_LAST_SQL = "select coalesce(max(number), 0) from bills where provider = $1"
_MACHINE_SQL = "select instance_id, account_id from machines where machine_id = $1"


async def follow_bills(world: World, handle: Handle) -> None:
    """Ask every cloud that tells its charges, for ever."""
    while True:
        for provider in world.bills:
            try:
                while await tell_page(world, handle, provider):
                    pass
            except Transient as unwell:
                world.logger.info("bills.postponed", provider=provider, cause=str(unwell))
        await world.clock.sleep(max(world.poll_s, BILLS_POLL_S))


async def tell_page(world: World, handle: Handle, provider: str) -> bool:
    """One page of new charges; whether there was any that moved us on."""
    last = await world.pool.fetchval(_LAST_SQL, provider)
    charges = await world.bills[provider].charges(after=max(last, world.billed.get(provider, 0)))
    for charge in charges:
        await _tell(world, handle, provider, charge)
        world.billed[provider] = charge.number
    return bool(charges)


async def _tell(world: World, handle: Handle, provider: str, charge: ProviderCharge) -> None:
    if not charge.label:
        return  # not this platform's machine or volume
    owner = await world.pool.fetchrow(_MACHINE_SQL, charge.label)
    if owner is None:
        world.logger.warning("bills.of_nobody", provider=provider, charge_id=charge.charge_id, label=charge.label)
        return
    wish = ReportBill(
        now=world.clock.now(),
        machine_id=charge.volume_id or charge.label,
        account_id=owner["account_id"],
        instance_id=owner["instance_id"],
        provider=provider,
        charge_id=charge.charge_id,
        number=charge.number,
        since=charge.since,
        until=charge.until,
        usd_micros=charge.usd_micros,
    )
    try:
        await handle.execute(wish, cause=charge.charge_id)
    except Refused as refused:
        world.logger.info("bills.refused", charge_id=charge.charge_id, code=refused.code)
