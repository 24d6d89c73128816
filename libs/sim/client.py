"""Somebody outside the platform who wishes, waits, and wishes again until told.

Made by `World.client`. Keeps every acknowledgement, so that the invariants can hold the platform to it.
"""

from __future__ import annotations

from libs.refusal import Refused, Transient
from libs.rpc import SERVICE_UNAVAILABLE
from libs.runtime.bus import Bus
from libs.sim.invariants import Acknowledged
from libs.sim.life import Life, SimClock
from proto.base import Command, Meta, Query, Reply, Signal

ANSWER_S_MAX = 3.0
TRIES_MAX = 60  # three minutes: longer than a process is ever down
PAUSE_S_MAX = 2.0


class NeverAnswered(AssertionError):
    """The service was not to be had for minutes, although no process is down that long."""


class Client:
    def __init__(self, name: str, bus: Bus, life: Life, clock: SimClock) -> None:
        self.name = name
        self.acknowledged: list[Acknowledged] = []
        self._bus = bus
        self._life = life
        self._clock = clock
        self._count = 0

    async def wish(self, command: Command, *, account_id: str = "") -> Reply:
        """Send until answered, each time as the same request. Raises Refused."""
        self._count += 1
        request_id = command.request_id or f"req_{self.name}_{self._count}"
        reply = await self._until_answered(command, request_id, account_id)
        assert reply.position is not None, f"{command!r} was answered without a position: {reply!r}"
        self.acknowledged.append(Acknowledged(request_id, command, reply.position))
        return reply

    async def ask(self, question: Query | Signal, *, account_id: str = "") -> Reply:
        self._count += 1
        return await self._until_answered(question, f"req_{self.name}_{self._count}", account_id)

    async def _until_answered(self, message: Command | Query | Signal, request_id: str, account_id: str) -> Reply:
        for _ in range(TRIES_MAX):
            meta = Meta(
                request_id=request_id,
                deadline=self._clock.now().timestamp() + ANSWER_S_MAX,
                correlation=request_id,
                account_id=account_id,
            )
            try:
                return await self._bus.ask(message, meta)
            except Transient:
                await self._life.pause(self._life.draws.up_to(PAUSE_S_MAX))
            except Refused as refused:
                if refused.code != SERVICE_UNAVAILABLE:
                    raise
                await self._life.pause(self._life.draws.up_to(PAUSE_S_MAX))
        raise NeverAnswered(f"{request_id}: {message!r}")
