"""Money before machines: a create or a start needs a hold at the billing service (contract dumont 2).

Used by the handlers of every dialect. One hop more than the wish itself: the hold is placed first and released when the
wish is refused; if this process dies in between, it lapses by itself after 15 minutes. A repeat holds once, because a
hold belongs to its instance.
"""

from __future__ import annotations

from libs.refusal import Refused
from proto.base import Position
from proto.billing.commands import PlaceHold, ReleaseHold
from proto.instance.commands import CreateInstance, StartInstance
from proto.instance.queries import GetInstance
from services.gateway.call import Call
from services.gateway.dialects import usd

# What follows is not known to have been refused: the hold stays, and lapses if nothing came of it.
UNSETTLED = frozenset({"OUTCOME_UNKNOWN", "SERVICE_UNAVAILABLE"})


async def command_with_hold(call: Call, wish: CreateInstance | StartInstance) -> Position | None:
    """Carry out a wish that costs money. Raises INSUFFICIENT_BALANCE with `needed` and `available`."""
    if not call.gateway.settings.prepaid:
        return await call.command(wish)
    await _hold(call, wish)
    try:
        return await call.command(wish)
    except Refused as refused:
        if refused.code not in UNSETTLED:
            await _release(call, wish)
        raise


async def _hold(call: Call, wish: CreateInstance | StartInstance) -> None:
    try:
        await call.command(_hold_for(call, wish))
    except Refused as refused:
        if refused.code != "INSUFFICIENT_BALANCE":
            raise
        if isinstance(wish, CreateInstance) and await _is_repeat(call, wish):
            return
        raise Refused(
            "INSUFFICIENT_BALANCE",
            needed=usd(refused.facts["needed_usd_micros"]),
            available=usd(refused.facts["available_usd_micros"]),
            currency="USD",
        ) from refused


def _hold_for(call: Call, wish: CreateInstance | StartInstance) -> PlaceHold:
    if isinstance(wish, StartInstance):
        return PlaceHold(now=call.now, account_id=call.account_id, instance_id=wish.instance_id)
    return PlaceHold(
        now=call.now,
        account_id=call.account_id,
        instance_id=wish.instance_id,
        gpu=wish.spec.gpu,
        gpu_count=wish.spec.gpu_count,
        price_usd_micros_per_hour_max=wish.spec.price_usd_micros_per_hour_max,
    )


async def _is_repeat(call: Call, wish: CreateInstance) -> bool:
    """A create that was carried out before needs no money again."""
    if not call.idempotency_key:
        return False
    try:
        await call.ask(GetInstance(instance_id=wish.instance_id, account_id=call.account_id))
    except Refused as refused:
        if refused.code != "INSTANCE_NOT_FOUND":
            raise
        return False
    return True


async def _release(call: Call, wish: CreateInstance | StartInstance) -> None:
    """Best effort, once: what is not released lapses."""
    try:
        await call.command(
            ReleaseHold(now=call.now, account_id=call.account_id, instance_id=wish.instance_id, reason="not_created")
        )
    except Refused as unwell:
        call.gateway.logger.info("hold.not_released", instance_id=wish.instance_id, code=unwell.code)
