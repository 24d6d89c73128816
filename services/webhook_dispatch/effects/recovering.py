"""Recovery: what an endpoint wants since some instant and did not get is taken on again, in order.

Called by the dispatcher, whose lanes and recorder it uses. Owns nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, cast

from libs.eventlog import Stored
from libs.runtime.listening import PUBLIC_STREAM
from proto.webhook_dispatch.commands import Record
from proto.webhook_dispatch.words import RETENTION_DAYS, wants
from services.webhook_dispatch.decider.mailbox import GIVEN_UP
from services.webhook_dispatch.effects.directory import Target
from services.webhook_dispatch.effects.hearing import Fact, parcel_for, read_fact
from services.webhook_dispatch.effects.lanes import BACKLOG_MAX, Box, Parcel
from services.webhook_dispatch.effects.world import World
from services.webhook_dispatch.queries import pending

POLL_S = 0.25

TakeOn = Callable[[Box, Parcel, Record], None]


async def recover(world: World, box: Box, since: datetime, *, low_seq: int, take_on: TakeOn) -> None:
    """Everything of PUB up to `low_seq`; returns when all of it is written down. What is older than what is kept was
    delivered or given up so long ago that nobody knows any more which."""
    since = max(since, world.clock.now() - timedelta(days=RETENTION_DAYS))
    async with aclosing(cast("Any", world.log.follow(PUBLIC_STREAM, after_seq=0))) as batches:
        async for batch in batches:
            await _reopen(world, box, since, [stored for stored in batch if stored.seq <= low_seq], take_on)
            if batch[-1].seq >= low_seq:
                return


async def _reopen(world: World, box: Box, since: datetime, batch: Sequence[Stored], take_on: TakeOn) -> None:
    target = box.target
    facts = [read_fact(stored) for stored in batch if stored.subject.split(".", 2)[1] == target.account_id]
    parcels = [
        parcel_for(fact, target) for fact in facts if fact is not None and fact.at >= since and _hears(target, fact)
    ]
    known = await pending.known(world.pool, [parcel.delivery_id for parcel in parcels])
    for parcel in parcels:
        status, parcel.attempts = known.get(parcel.delivery_id, ("skipped", 0))
        if status in GIVEN_UP:
            while box.size >= BACKLOG_MAX:
                await world.clock.sleep(POLL_S)
            take_on(box, parcel, Record(parcel.delivery_id, parcel.delivery, reopened_after=parcel.attempts))
    while not all(parcel.is_recorded for parcel in parcels if parcel.is_noted):
        await world.clock.sleep(POLL_S)


def _hears(target: Target, fact: Fact) -> bool:
    is_its_own = target.kind == "account" or target.instance_id == fact.instance_id
    return is_its_own and wants(target.events, fact.event_type)
