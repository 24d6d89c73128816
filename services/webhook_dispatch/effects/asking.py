"""What an owner asks for by hand: one delivery again, everything since then again, a test now; and the check of a URL.

Resends and recoveries are effects of recorded wishes, so they are done even if we are killed in between. A test is a
signal: any replica does it, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from libs.ids import derive_id
from libs.refusal import Refused, Transient
from libs.runtime.service import Job
from proto.base import Command
from proto.webhook_dispatch.commands import ChangeEndpoint, CreateEndpoint, Record, RecordDeliveries
from proto.webhook_dispatch.events import RecoveryRequested, ResendRequested
from proto.webhook_dispatch.payload import payload
from proto.webhook_dispatch.queries import ProbeEndpoint, ProbeResult
from proto.webhook_dispatch.words import Attempt
from services.webhook_dispatch.effects.directory import Target
from services.webhook_dispatch.effects.hearing import DELIVERY_PREFIX
from services.webhook_dispatch.effects.lanes import Parcel
from services.webhook_dispatch.effects.sending import post_signed
from services.webhook_dispatch.effects.world import World
from services.webhook_dispatch.queries import pending

TEST_TIMEOUT_S = 2.5  # the caller waits 3 s
TEST_INSTANCE = "inst_test"
TEST_FIELDS: dict[str, Any] = {
    "instance_id": TEST_INSTANCE,
    "name": "webhook-test",
    "gpu": "RTX 4090",
    "region": "us-east",
    "reason": "webhook_test",
    "endpoints": [
        {"port": 22, "host": "203.0.113.7", "public_port": 40022, "protocol": "tcp"},
        {"port": 8888, "host": "203.0.113.7", "public_port": 48888, "protocol": "http"},
    ],
}


async def checked_url(command: CreateEndpoint | ChangeEndpoint, world: World) -> Command:
    """Refuse what could never be delivered to, while its owner is there to read why."""
    if command.url is not None and (reason := world.poster.fence.url_refusal(command.url)):
        raise Refused("WEBHOOK_URL_REFUSED", reason=reason)
    return command


async def resend(job: Job, world: World) -> Sequence[Command]:
    """Once, now, beside what the schedule does."""
    event = cast("ResendRequested", job.heard.event)
    stored = await pending.stored(world.pool, event.delivery_id)
    target = await _target(world, event.endpoint_id)
    if stored is None or stored.endpoint_id != event.endpoint_id or target is None:
        return []
    parcel = Parcel(stored.delivery_id, stored.event_type, stored.lane, stored.public_seq, None)
    at = world.clock.now()
    default_secret = await _default_secret(world, target)
    answer = await post_signed(world, target, parcel, default_secret=default_secret, body=stored.body.encode(), at=at)
    attempt = Attempt(
        number=stored.attempts + 1,
        at=at,
        trigger="resend",
        outcome="delivered" if answer.is_delivered else "failed",
        took_ms=answer.took_ms,
        status_code=answer.status_code,
        error=answer.error,
        response=answer.response,
    )
    return [
        RecordDeliveries(
            now=world.clock.now(),
            mailbox_id=stored.mailbox_id,
            endpoint_id=event.endpoint_id,
            account_id=event.account_id,
            records=(Record(stored.delivery_id, attempt=attempt),),
        )
    ]


async def recover(job: Job, world: World) -> Sequence[Command]:
    """Every fact since then that the endpoint wants and did not get, in order, whether it was ever tried or not."""
    event = cast("RecoveryRequested", job.heard.event)
    if world.dispatcher is None:
        raise Transient("the dispatcher is starting")
    await world.dispatcher.recover(event.endpoint_id, event.since, at_least_seq=job.heard.seq)
    return []


async def probe(signal: ProbeEndpoint, context: Any) -> ProbeResult:
    """Send a made-up event, signed like a real one."""
    world = cast("World", context.world)
    target = await _target(world, signal.endpoint_id)
    if target is None or target.account_id != signal.account_id:
        raise Refused("WEBHOOK_NOT_FOUND", webhook_id=signal.endpoint_id)
    at = world.clock.now()
    delivery_id = derive_id(DELIVERY_PREFIX, "test", signal.endpoint_id, at.isoformat())
    fields = {**TEST_FIELDS, "ready_at": (at - timedelta(seconds=1)).isoformat()}
    body = payload(signal.event_type, f"evt_{delivery_id}", at, fields)
    parcel = Parcel(delivery_id, signal.event_type, TEST_INSTANCE, 0, None)
    default_secret = await _default_secret(world, target)
    answer = await post_signed(
        world, target, parcel, default_secret=default_secret, body=body, at=at, timeout_s=TEST_TIMEOUT_S
    )
    return ProbeResult(
        outcome="delivered" if answer.is_delivered else "failed",
        delivery_id=delivery_id,
        body=body.decode(),
        took_ms=answer.took_ms,
        status_code=answer.status_code,
        error=answer.error,
        response=answer.response,
    )


async def _target(world: World, endpoint_id: str) -> Target | None:
    fields = await pending.endpoint(world.pool, endpoint_id)
    return None if fields is None else Target(**fields)


async def _default_secret(world: World, target: Target) -> str:
    return (await pending.default_secrets(world.pool)).get(target.account_id, "") if target.kind == "instance" else ""
