"""Sending one parcel: its stored bytes, the secrets in force, one POST.

Used by the dispatcher and by resends. Owns the budget for bytes kept in memory: what is written down and does not fit
is read back from the rows when its turn comes.
"""

from __future__ import annotations

from datetime import datetime

from libs.refusal import Transient
from libs.runtime.service import Handle
from libs.sealed_urls import credentials_in, opened
from libs.sealing import NotSealedHere
from libs.signing import Keys, signed_headers
from proto.webhook_dispatch.words import mailbox_of
from services.webhook_dispatch.effects.directory import Directory, Target
from services.webhook_dispatch.effects.lanes import Parcel
from services.webhook_dispatch.effects.posting import ATTEMPT_TIMEOUT_S, Answer
from services.webhook_dispatch.effects.world import World
from services.webhook_dispatch.queries import pending

KEPT_CHARS_MAX = 32_000_000  # of bodies that wait in memory although they are written down
STORED_WAIT_S = 30.0  # the rows are normally milliseconds behind
STORED_POLL_S = 0.05
SECRET_LOST = "the endpoint's secret cannot be opened any more; rotate it"  # noqa: S105 - a text


class Sender:
    def __init__(self, world: World, handle: Handle, directory: Directory) -> None:
        self._world = world
        self._handle = handle
        self._directory = directory
        self._kept_chars = 0
        self._kept: set[Parcel] = set()

    async def send(self, target: Target, parcel: Parcel, at: datetime) -> Answer:
        """One POST. Raises Transient when the bytes cannot be read back."""
        body = (await self._body(parcel)).encode()
        default_secret = self._directory.default_secrets.get(target.account_id, "")
        return await post_signed(self._world, target, parcel, default_secret=default_secret, body=body, at=at)

    async def is_settled(self, target: Target, parcel: Parcel) -> bool:
        """Whether a resend has delivered it meanwhile. Numbers go on from what is written down."""
        mailbox_id = mailbox_of(target.endpoint_id, parcel.public_seq)
        mailbox = await self._handle.state("mailbox", mailbox_id, at_least_seq=1)
        progress = mailbox.deliveries.get(parcel.delivery_id)
        if progress is None:
            return False
        parcel.attempts = max(parcel.attempts, progress.attempts)
        return progress.status == "delivered"

    def recorded(self, parcel: Parcel) -> None:
        """Its bytes are in the log now: keep them only while there is room."""
        if parcel.delivery is None or parcel in self._kept:
            return
        chars = len(parcel.delivery.body)
        if self._kept_chars + chars > KEPT_CHARS_MAX:
            parcel.delivery = None
            return
        self._kept.add(parcel)
        self._kept_chars += chars

    def forget(self, parcel: Parcel) -> None:
        """It has left its lane."""
        if parcel in self._kept and parcel.delivery is not None:
            self._kept.discard(parcel)
            self._kept_chars -= len(parcel.delivery.body)
            parcel.delivery = None

    async def _body(self, parcel: Parcel) -> str:
        if parcel.delivery is not None:
            return parcel.delivery.body
        give_up_s = self._world.clock.monotonic_s() + STORED_WAIT_S
        while (stored := await pending.stored(self._world.pool, parcel.delivery_id)) is None:
            if self._world.clock.monotonic_s() > give_up_s:
                raise Transient(f"delivery {parcel.delivery_id} is written down and in no row")
            await self._world.clock.sleep(STORED_POLL_S)
        return stored.body


async def post_signed(
    world: World,
    target: Target,
    parcel: Parcel,
    *,
    default_secret: str,
    body: bytes,
    at: datetime,
    timeout_s: float = ATTEMPT_TIMEOUT_S,
) -> Answer:
    """With every proof of signing.py. `default_secret` is sealed, for URLs that were given with an instance."""
    try:
        keys = _keys(world, target, default_secret, at)
        url = opened(target.url, world.sealer, owner=target.account_id)
    except NotSealedHere:
        return Answer(0, error=SECRET_LOST)
    headers = signed_headers(
        parcel.delivery_id,
        parcel.event_type,
        body,
        timestamp_s=int(at.timestamp()),
        keys=keys,
        platform_key=world.platform_key,
    )
    hide = credentials_in(url) if url != target.url else ()
    return await world.poster.post(url, body, headers, timeout_s=timeout_s, hide=hide)


def _keys(world: World, target: Target, default_secret: str, at: datetime) -> Keys:
    if target.kind == "instance":
        return world.keys_for(target.account_id, default_secret)
    is_overlapping = target.old_until is not None and at < target.old_until
    return world.keys_for(target.endpoint_id, target.sealed_secret, target.sealed_old_secret if is_overlapping else "")
