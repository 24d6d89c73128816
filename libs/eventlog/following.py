"""Following a stream: an ephemeral pull consumer that is made again from the last delivered message whenever it is in
doubt.

Used by `libs.eventlog.jetstream`. Owns the pulls in flight and what has arrived and is not yet handed out. Two pulls
overlap, so that the server always has one to fill while we work on what the other brought (measured: 380,000
messages/s and more). A consumer is in doubt after a lost connection, a notice from the server, a gap in its delivery
count, or silence.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from libs.eventlog import FOLLOW_BATCH_MAX, Stored
from libs.eventlog.connection import Connection
from libs.eventlog.streams import SECOND_NS, ApiFailed, call_api
from libs.eventlog.wire import header, status_of
from libs.refusal import Transient
from libs.telemetry import logger

PULL_MESSAGES = 2000  # two of these overlap; more brings nothing for 300 B messages
PULL_BYTES_MAX = 4 * 1024 * 1024  # bounds what a slow reader holds in memory: two pulls of large commits
PULL_EXPIRES_S = 30
HEARTBEAT_S = 2  # the server speaks at least this often on a quiet stream
SILENCE_S = 5.0  # two missed heartbeats: the consumer is gone
INACTIVE_S = 30  # after our death the server forgets the consumer
PAUSE_S = 0.1  # between attempts to make the consumer again
CONNECT_WAIT_S = 5.0
STREAM_MISSING = 10059
STREAM_MISSING_TRIES_MAX = 50  # a restarting cluster may not know its streams yet; after five seconds it is a mistake

HEARTBEAT, END_OF_PULL, CONFLICT = 100, 408, 409

log = logger("eventlog")
_names = itertools.count(1)


async def follow(
    connection: Connection, stream: str, *, after_seq: int, subjects: Sequence[str]
) -> AsyncIterator[Sequence[Stored]]:
    """Batches after a sequence, for ever. See `libs.eventlog.EventLog.follow`."""
    delivered = after_seq
    missing = 0
    while True:
        consumer = _Consumer(connection, stream, tuple(subjects))
        try:
            await connection.connected(CONNECT_WAIT_S)
            await consumer.start(delivered + 1)
            missing = 0
            while batch := await consumer.take():
                delivered = batch[-1].seq
                yield batch
            log.info("follow.again", stream=stream, after_seq=delivered, cause=consumer.doubt)
        except Transient as cause:
            if connection.is_closed:
                raise
            if isinstance(cause, ApiFailed) and cause.err_code == STREAM_MISSING:
                missing += 1
                if missing >= STREAM_MISSING_TRIES_MAX:
                    raise
            log.warning("follow.failed", stream=stream, after_seq=delivered, cause=str(cause))
            await asyncio.sleep(PAUSE_S)
        finally:
            consumer.stop()


class _Consumer:
    """One incarnation of the consumer: lives until it is in doubt, then is thrown away with all that it still holds."""

    def __init__(self, connection: Connection, stream: str, subjects: tuple[str, ...]) -> None:
        self._connection = connection
        self._stream = stream
        self._subjects = subjects
        self._inbox = connection.new_inbox_prefix()
        self._name = f"follow_{next(_names)}_{self._inbox.rpartition('.')[2]}"
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self._name}".encode()
        self._subscription: Any = None
        self._not_lost = connection.on_lost(lambda: self._doubt("connection lost"))
        self._arrived: deque[tuple[bytes, bytes, bytes, bytes]] = deque()
        self._pulls = itertools.count(1)
        self._asked = 0  # messages that the server still owes to our pulls
        self._count = 0  # deliveries so far: the server numbers them
        self._heard = True
        self._waiter: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.doubt = ""

    async def start(self, first_seq: int) -> None:
        self._subscription = await self._connection.listen(f"{self._inbox}.*", self._on_message)
        config: dict[str, Any] = {
            "name": self._name,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first_seq,
            "inactive_threshold": INACTIVE_S * SECOND_NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if len(self._subjects) == 1:
            config["filter_subject"] = self._subjects[0]
        elif self._subjects:
            config["filter_subjects"] = list(self._subjects)
        await call_api(
            self._connection,
            f"CONSUMER.CREATE.{self._stream}.{self._name}",
            {"stream_name": self._stream, "config": config, "action": "create"},
        )
        self._watch = asyncio.get_running_loop().call_later(SILENCE_S, self._watch_silence)

    async def take(self) -> Sequence[Stored]:
        """What has arrived, at once when there is any; empty when the consumer is in doubt."""
        while not self._arrived:
            if self.doubt:
                return ()
            self._pull()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.doubt:
            return ()
        batch: list[Stored] = []
        arrived = self._arrived
        while arrived and len(batch) < FOLLOW_BATCH_MAX:
            subject, reply, data, headers = arrived.popleft()
            seq, count = _position(reply)
            self._count += 1
            if count != self._count:
                self.doubt = f"delivery {count} came instead of {self._count}"
                break
            batch.append(Stored(seq, subject.decode(), data, headers))
        self._pull()
        return batch

    def stop(self) -> None:
        """Leave without waiting: the server is told if it can hear us, and finds out by itself otherwise."""
        self.doubt = self.doubt or "stopped"
        self._not_lost()
        if self._watch is not None:
            self._watch.cancel()
        if self._subscription is not None:
            self._connection.forget(self._subscription)
            self._connection.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}".encode(), b"")

    def _pull(self) -> None:
        """Keep two pulls at the server as long as we keep up."""
        while self._asked <= PULL_MESSAGES and len(self._arrived) <= PULL_MESSAGES:
            request = {
                "batch": PULL_MESSAGES,
                "max_bytes": PULL_BYTES_MAX,
                "expires": PULL_EXPIRES_S * SECOND_NS,
                "idle_heartbeat": HEARTBEAT_S * SECOND_NS,
            }
            reply = f"{self._inbox}.{next(self._pulls)}".encode()
            self._connection.send(self._next, msgspec.json.encode(request), reply=reply)
            self._asked += PULL_MESSAGES

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self._heard = True
        status = status_of(headers)
        if status == 0:
            self._asked -= 1
            self._arrived.append((subject, reply, data, headers))
        elif status == HEARTBEAT:
            return
        elif status in (END_OF_PULL, CONFLICT) and (pending := header(headers, b"Nats-Pending-Messages")):
            self._asked -= int(pending)
        else:
            self._doubt(headers[9:80].partition(b"\r\n")[0].decode(errors="replace"))
        self._wake()

    def _doubt(self, cause: str) -> None:
        self.doubt = self.doubt or cause
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch_silence(self) -> None:
        if not self._heard and self._asked > 0:
            self._doubt("silence")
            return
        self._heard = False
        self._watch = asyncio.get_running_loop().call_later(SILENCE_S, self._watch_silence)


def _position(reply: bytes) -> tuple[int, int]:
    """Stream sequence and delivery count from the ack subject, in its old form of 9 tokens or the new one of 11
    and more.
    """
    words = reply.split(b".")
    at = 5 if len(words) == 9 else 7
    return int(words[at]), int(words[at + 1])
