"""Replicas of one service that know of each other: who is there, asking one, telling one. Core NATS, nothing stored.

Used by a service whose replicas share something that is too hot for the log (the gateway's limits). Owns the list of
who is alive: each replica says so every HELLO_S, and whoever is silent for SILENT_S, or does not answer, is taken for
gone until the next hello. Two replicas may see different lists for a moment: what is built on this must bear it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from nats.aio.subscription import Subscription

from libs.clock import Clock
from libs.eventlog.connection import Connection
from libs.refusal import Transient

HELLO_S = 1.0
SILENT_S = 3.5  # three hellos have been missed
PEERS_MAX = 64  # more replicas than one gateway deployment has; a stranger's flood of names stops here

Answer = Callable[[bytes], bytes]
Hear = Callable[[bytes], None]
Changed = Callable[[], None]


class PeerAway(Transient):
    """The peer did not answer: whether it heard us is unknown."""


class Peers(Protocol):
    """`me` and `others` are names; `others` is replaced, never changed in place."""

    me: str
    others: tuple[str, ...]

    async def join(self, *, answer: Answer, hear: Hear, changed: Changed) -> None:
        """Be found. `answer` and `hear` are called in the read loop and must be quick; `changed` when `others` did."""
        ...

    async def ask(self, peer: str, data: bytes, timeout_s: float) -> bytes:
        """Raises PeerAway, and takes the peer for gone."""
        ...

    def tell(self, peer: str, data: bytes) -> None:
        """Without an answer; may get lost."""
        ...

    async def keep_in_touch(self) -> None:
        """For ever: say hello, forget the silent."""
        ...

    async def leave(self) -> None:
        """Say goodbye: the others need not wait for our silence."""
        ...


class NatsPeers:
    """The `Peers` port. Subjects: `peer.<service>.all` for hellos, `peer.<service>.ask|tell.<name>`."""

    def __init__(self, connection: Connection, clock: Clock, *, service: str, me: str) -> None:
        self.me = me
        self.others: tuple[str, ...] = ()
        self._connection = connection
        self._clock = clock
        self._prefix = f"peer.{service}"
        self._seen: dict[str, float] = {}
        self._subscriptions: list[Subscription] = []
        self._changed: Changed = _ignore

    async def join(self, *, answer: Answer, hear: Hear, changed: Changed) -> None:
        self._changed = changed

        def asked(_subject: bytes, reply: bytes, data: bytes, _headers: bytes) -> None:
            self._connection.send(reply, answer(data))

        def told(_subject: bytes, _reply: bytes, data: bytes, _headers: bytes) -> None:
            hear(data)

        for subject, deliver in (
            (f"{self._prefix}.ask.{self.me}", asked),
            (f"{self._prefix}.tell.{self.me}", told),
            (f"{self._prefix}.all", self._on_hello),
        ):
            self._subscriptions.append(await self._connection.listen(subject, deliver))
        self._say(b"hello")

    async def ask(self, peer: str, data: bytes, timeout_s: float) -> bytes:
        try:
            answered, _ = await self._connection.call(f"{self._prefix}.ask.{peer}", data, timeout_s=timeout_s)
        except Transient as cause:
            self._forget(peer)
            raise PeerAway(f"{peer} does not answer: {cause}") from cause
        return answered

    def tell(self, peer: str, data: bytes) -> None:
        self._connection.send(f"{self._prefix}.tell.{peer}".encode(), data)

    async def keep_in_touch(self) -> None:
        while True:
            self._say(b"hello")
            await self._clock.sleep(HELLO_S)
            oldest_s = self._clock.monotonic_s() - SILENT_S
            for peer in [peer for peer, seen_s in self._seen.items() if seen_s < oldest_s]:
                self._forget(peer)

    async def leave(self) -> None:
        self._say(b"bye")
        subscriptions, self._subscriptions = self._subscriptions, []
        await self._connection.withdraw(subscriptions)

    def _on_hello(self, _subject: bytes, _reply: bytes, data: bytes, _headers: bytes) -> None:
        word, _, name = data.decode(errors="replace").partition(" ")
        if name == self.me:
            return
        if word == "bye":
            self._forget(name)
        elif name in self._seen or len(self._seen) < PEERS_MAX:
            is_new = name not in self._seen
            self._seen[name] = self._clock.monotonic_s()
            if is_new:
                self._say(b"hello")  # the newcomer has not heard of us either
                self._list()

    def _forget(self, peer: str) -> None:
        if self._seen.pop(peer, None) is not None:
            self._list()

    def _list(self) -> None:
        self.others = tuple(sorted(self._seen))
        self._changed()

    def _say(self, word: bytes) -> None:
        self._connection.send(f"{self._prefix}.all".encode(), b"%b %b" % (word, self.me.encode()))


def _ignore() -> None:
    return


class MemoryPeers:
    """The `Peers` port within one process, for specs: replicas that share a `table` know of each other at once."""

    def __init__(self, me: str, table: dict[str, MemoryPeers] | None = None) -> None:
        self.me = me
        self._table = {} if table is None else table
        self.others: tuple[str, ...] = ()
        self._answer: Answer = bytes
        self._hear: Hear = _ignore_data
        self._changed: Changed = _ignore

    async def join(self, *, answer: Answer, hear: Hear, changed: Changed) -> None:
        self._answer, self._hear, self._changed = answer, hear, changed
        self._table[self.me] = self
        self._tell_all()

    async def ask(self, peer: str, data: bytes, timeout_s: float) -> bytes:
        del timeout_s
        await asyncio.sleep(0)  # others run meanwhile, as they do over a network
        if peer not in self._table:
            raise PeerAway(f"{peer} does not answer")
        answered = self._table[peer]._answer(data)
        await asyncio.sleep(0)
        return answered

    def tell(self, peer: str, data: bytes) -> None:
        if peer in self._table:
            self._table[peer]._hear(data)

    async def keep_in_touch(self) -> None:
        await asyncio.Event().wait()

    async def leave(self) -> None:
        if self._table.pop(self.me, None) is not None:
            self._tell_all()

    def _tell_all(self) -> None:
        for peer in tuple(self._table.values()):
            peer.others = tuple(sorted(name for name in self._table if name != peer.me))
        for peer in tuple(self._table.values()):
            peer._changed()


def _ignore_data(data: bytes) -> None:
    del data
