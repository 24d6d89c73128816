"""The bus of a simulated platform: requests and replies get lost, doubled and delayed; servers die while they work.

`SimNetwork` is shared; each life has its own `SimBus`, the `Bus` port. What is on the wire is bytes, as in real life,
so a message that cannot be encoded fails here too.
"""

from __future__ import annotations

import asyncio

import msgspec

from libs.rpc import accepted_reply, request_bytes, subject_of
from libs.rpc import answer as answer_of
from libs.runtime.bus import NobodyThere, Serve, Unanswered
from libs.sim.life import Life, SimClock
from libs.sim.trace import Trace
from proto.base import Command, Meta, Query, Reply, Request, Signal

DOUBLE_LATE_S_MAX = 2.0

_encode = msgspec.json.Encoder().encode
_requests = msgspec.json.Decoder(Request)


class SimNetwork:
    """Who serves what, now."""

    def __init__(self, clock: SimClock, trace: Trace) -> None:
        self.clock = clock
        self.trace = trace
        self._servers: dict[str, list[tuple[Life, Serve]]] = {}

    def serve(self, service: str, life: Life, handler: Serve) -> None:
        self._servers.setdefault(service, []).append((life, handler))

    def forget(self, life: Life) -> None:
        for service, servers in self._servers.items():
            self._servers[service] = [server for server in servers if server[0] is not life]

    def servers(self, service: str) -> list[tuple[Life, Serve]]:
        return [server for server in self._servers.get(service, []) if server[0].alive]


class SimBus:
    """The `Bus` port of one life."""

    def __init__(self, network: SimNetwork, life: Life) -> None:
        self._network = network
        self._life = life
        self._draws = life.draws

    async def ask(self, message: Command | Query | Signal, meta: Meta) -> Reply:
        subject, data = subject_of(message), request_bytes(message, meta)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(max(0.0, meta.deadline - self._network.clock.now().timestamp())):
                await self._life.step()
                self._send(message.service, subject, data, answer)
                data = await answer
                await self._life.step()
        except TimeoutError:
            raise Unanswered(subject) from None
        return accepted_reply(data)

    def _send(self, service: str, subject: str, data: bytes, answer: asyncio.Future[bytes]) -> None:
        servers = self._network.servers(service)
        if not servers:
            raise NobodyThere(subject)
        draws, faults = self._draws, self._draws.faults
        if draws.happens(faults.request_lost):
            return
        life, handler = servers[int(draws.up_to(len(servers)))]
        heard = None if draws.happens(faults.reply_lost) else answer
        life.start(self._handle(life, handler, subject, data, heard), subject)
        if draws.happens(faults.request_doubled):
            asyncio.get_running_loop().call_later(
                draws.up_to(DOUBLE_LATE_S_MAX), self._send_again, service, subject, data
            )

    def _send_again(self, service: str, subject: str, data: bytes) -> None:
        """The same bytes once more, to whoever serves by then; nobody waits for the answer."""
        for life, handler in self._network.servers(service)[:1]:
            life.start(self._handle(life, handler, subject, data, None), f"double {subject}")

    async def _handle(
        self, life: Life, handler: Serve, subject: str, data: bytes, answer: asyncio.Future[bytes] | None
    ) -> None:
        """Serve one request; `answer` is None when its reply will be lost."""
        await life.step()
        request = _requests.decode(data)
        if request.meta.deadline < self._network.clock.now().timestamp():
            return
        reply = await answer_of(subject, request, handler, life.on_bug)
        self._network.trace.note("reply", life.name, subject, request.meta.request_id, _encode(reply))
        await life.step()
        if answer is not None and not answer.done():
            answer.set_result(_encode(reply))

    async def serve(self, service: str, handler: Serve) -> None:
        self._life.must_live()
        self._network.serve(service, self._life, handler)

    async def close(self) -> None:
        self._network.forget(self._life)
