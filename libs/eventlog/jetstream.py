"""The event log on nats-server's JetStream, spoken raw over `libs.eventlog.connection`.

Used by composition roots and `libs.embedded`. Owns the meaning of the server's answers: which refusal is definitive,
which is transient, and when the outcome of an append is unknown. nats-py's own JetStream calls are the bottleneck
(publish 32,000/s against 126,000 raw), hence none of them is used (docs/adr/0001).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import Struct

from libs.eventlog import READ_BATCH_MAX, AppendUnknown, Contended, Page, Stored, WrongExpectation
from libs.eventlog.connection import Answer, Connection, NoAnswer
from libs.eventlog.following import follow
from libs.eventlog.group_commit import GroupCommit
from libs.eventlog.streams import ApiError, ApiFailed, call_api
from libs.eventlog.wire import header, header_block, status_of
from libs.refusal import Transient
from proto.base import COMMIT_BYTES_MAX

APPEND_TIMEOUT_S = 5.0  # a synced append takes 0.2 ms alone and 200 ms behind 1,000 others
READ_TIMEOUT_S = 5.0
# Direct gets have no flow control: one answer must fit the server's 64 MB client buffer.
READ_BYTES_MAX = 8 * 1024 * 1024
READ_TRIES_MAX = 5  # a read may be repeated freely; five outlast a server restart
READ_PAGES_MAX = 10_000  # ten million messages of one subject: a runaway aggregate, not a read

WRONG_LAST_SEQUENCE = 10071
WRONG_LAST_SEQUENCE_IN_FLIGHT = 10164
END_OF_BATCH = 204
NOT_FOUND = 404

# One exact subject: tokens without wildcards and without anything that could break the framing.
_SUBJECT = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*")
# The same with wildcards: `*` for a token, a last `>` for one or more.
_FILTER = re.compile(r"(?:[^\s.*>]+|\*)(?:\.(?:[^\s.*>]+|\*))*(?:\.>)?")


class PubAck(Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    error: ApiError | None = None


_decode_ack = msgspec.json.Decoder(PubAck).decode


class JetStreamLog:
    """The `EventLog` port. One per process is enough; it shares its connection with the bus."""

    def __init__(self, connection: Connection, *, appending: Literal["singly", "grouped"] = "singly") -> None:
        """`grouped` is for one server that syncs every write (see `group_commit`)."""
        self._connection = connection
        self._appending = appending
        self._groups: dict[str, GroupCommit] = {}
        self._replicated: dict[str, bool] = {}

    async def append(self, stream: str, subject: str, data: bytes, *, expected_seq: int) -> int:
        if len(data) > COMMIT_BYTES_MAX:
            raise ValueError(f"a commit of {len(data)} bytes is over the limit of {COMMIT_BYTES_MAX}")
        if self._appending == "grouped":
            group = await self._group(stream, subject)
            return await group.append(subject, data, expected_seq=expected_seq)
        headers = b"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: %d\r\n\r\n" % expected_seq
        return await self._store(stream, subject, data, headers)

    async def publish(
        self, stream: str, subject: str, data: bytes, *, message_id: str, headers: Mapping[str, str]
    ) -> int:
        block = header_block({"Nats-Msg-Id": message_id, **headers})
        if self._appending == "grouped":
            group = await self._group(stream, subject)
            return await group.publish(subject, data, headers=block)
        return await self._store(stream, subject, data, block)

    async def read(self, stream: str, subject: str, *, after_seq: int = 0) -> Sequence[Stored]:
        _require_exact(subject)
        newest = await self._newest_by_leader(stream, subject) if await self._is_replicated(stream) else 0
        found: list[Stored] = []
        for _ in range(READ_PAGES_MAX):
            position = found[-1].seq if found else after_seq
            page, more = await self._read_page(stream, {"seq": position + 1, "next_by_subj": subject}, position, newest)
            found += page
            if not more:
                return found
        raise ValueError(f"{subject} holds more messages than one read may return")

    async def page(
        self, stream: str, subjects: str, *, after_seq: int, limit: int, since: datetime | None = None
    ) -> Page:
        if _FILTER.fullmatch(subjects) is None:
            raise ValueError(f"not a filter of subjects: {subjects!r}")
        newest = await self._newest_by_leader(stream, subjects) if await self._is_replicated(stream) else 0
        request: dict[str, Any] = {"next_by_subj": subjects, "batch": min(limit, READ_BATCH_MAX)}
        # The server takes one of the two; a sequence says more than an instant.
        request |= {"seq": after_seq + 1} if since is None or after_seq else {"start_time": since}
        return Page(*await self._read_page(stream, request, after_seq, newest))

    async def newest(self, stream: str, subject: str) -> Stored | None:
        _require_exact(subject)
        request = msgspec.json.encode({"last_by_subj": subject})
        answer = await self._connection.call(f"$JS.API.DIRECT.GET.{stream}", request, timeout_s=READ_TIMEOUT_S)
        status = status_of(answer[1])
        if status == NOT_FOUND:
            return None
        if status:
            raise Transient(f"reading {subject}: the server answered {answer[1][9:60]!r}")
        return _stored(answer)

    def follow(self, stream: str, *, after_seq: int, subjects: Sequence[str] = ()) -> AsyncIterator[Sequence[Stored]]:
        return follow(self._connection, stream, after_seq=after_seq, subjects=subjects)

    async def last_seq(self, stream: str) -> int:
        return (await call_api(self._connection, f"STREAM.INFO.{stream}")).state.last_seq

    async def _store(self, stream: str, subject: str, data: bytes, headers: bytes) -> int:
        _require_exact(subject)
        try:
            answer = await self._connection.call(subject, data, headers=headers, timeout_s=APPEND_TIMEOUT_S)
        except Transient as cause:
            raise AppendUnknown(f"append to {subject}: {cause}") from cause
        return _sequence(stream, subject, answer)

    async def _group(self, stream: str, subject: str) -> GroupCommit:
        """The group that messages of this stream wait in (a batch lives in one stream). Raises AppendUnknown."""
        _require_exact(subject)
        if not self._connection.is_connected:
            try:
                await self._connection.connected(APPEND_TIMEOUT_S)
            except Transient as cause:
                raise AppendUnknown(f"append to {subject}: {cause}") from cause
        group = self._groups.get(stream)
        if group is None:
            group = GroupCommit(self._connection, partial(_sequence, stream), timeout_s=APPEND_TIMEOUT_S)
            self._groups[stream] = group
        return group

    async def _read_page(
        self, stream: str, wanted: dict[str, Any], after_seq: int, newest: int
    ) -> tuple[list[Stored], bool]:
        """One batch, and whether there is more.

        Tries again when the answer broke off or comes from a stale follower.
        """
        subject = wanted["next_by_subj"]
        request = msgspec.json.encode({"batch": READ_BATCH_MAX, "max_bytes": READ_BYTES_MAX, **wanted})
        api = f"$JS.API.DIRECT.GET.{stream}"
        cause: Exception | None = None
        for _ in range(READ_TRIES_MAX):
            try:
                left_s = await self._connection.connected(READ_TIMEOUT_S)
                *messages, (_, notice) = await self._connection.collect(api, request, left_s)
            except NoAnswer as lost:
                cause = lost
                continue
            status = status_of(notice)
            if status not in (END_OF_BATCH, NOT_FOUND):
                cause = Transient(f"reading {subject}: the server answered {notice[9:60]!r}")
                continue
            page = [_stored(answer) for answer in messages]
            pending = int(header(notice, b"Nats-Num-Pending") or b"0")
            if not pending and newest > (page[-1].seq if page else after_seq):
                cause = Transient(f"reading {subject}: the answering replica lags behind its leader")
                continue
            return page, pending > 0
        raise Transient(f"reading {subject} failed {READ_TRIES_MAX} times") from cause

    async def _is_replicated(self, stream: str) -> bool:
        if stream not in self._replicated:
            info = await call_api(self._connection, f"STREAM.INFO.{stream}")
            self._replicated[stream] = info.config.get("num_replicas", 1) > 1
        return self._replicated[stream]

    async def _newest_by_leader(self, stream: str, subject: str) -> int:
        """Direct gets are answered by any replica; only the leader knows what has been acknowledged."""
        request = msgspec.json.encode({"last_by_subj": subject})
        data, _ = await self._connection.call(f"$JS.API.STREAM.MSG.GET.{stream}", request, timeout_s=READ_TIMEOUT_S)
        answer = msgspec.json.decode(data, type=_LeaderAnswer)
        if answer.error is not None:
            if answer.error.code == NOT_FOUND:
                return 0
            raise ApiFailed("STREAM.MSG.GET", answer.error)
        return answer.message.seq


class _LeaderMessage(Struct, frozen=True):
    seq: int = 0


class _LeaderAnswer(Struct, frozen=True):
    message: _LeaderMessage = _LeaderMessage()
    error: ApiError | None = None


def _require_exact(subject: str) -> None:
    if _SUBJECT.fullmatch(subject) is None:
        raise ValueError(f"not one exact subject: {subject!r}")


def _sequence(stream: str, subject: str, answer: Answer) -> int:
    """What an acknowledgement says. Raises what a refusal means."""
    data, headers = answer
    if status_of(headers):  # nobody took it: the stream is missing, or its server is starting
        raise AppendUnknown(f"append to {subject}: the server answered {headers[9:60]!r}")
    ack = _decode_ack(data)
    if ack.error is not None:
        raise _refusal(subject, ack.error)
    assert ack.stream == stream, f"{subject} belongs to stream {ack.stream}, not {stream}"
    return ack.seq


def _refusal(subject: str, error: ApiError) -> Exception:
    if error.err_code == WRONG_LAST_SEQUENCE:
        return WrongExpectation(subject)
    if error.err_code == WRONG_LAST_SEQUENCE_IN_FLIGHT:
        return Contended(subject)
    return ApiFailed(f"append to {subject}", error)


def _stored(answer: Answer) -> Stored:
    data, headers = answer
    subject = header(headers, b"Nats-Subject").decode()
    return Stored(int(header(headers, b"Nats-Sequence")), subject, data, headers)
