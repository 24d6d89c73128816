"""What must be true of every service when a run has come to rest, whatever went wrong on the way.

Called by scenarios of `tests/sim` with the shared log and stores. Each function asserts one promise of the design and
says in its failure which message breaks it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from libs.eventlog import EventLog, Stored
from libs.eventlog.wire import header
from libs.runtime.codec import decode_commit, stream_of, subject_of
from libs.runtime.courtesy import Courtesy
from libs.runtime.dead_letters import DEAD_STREAM
from libs.runtime.listening import PUBLIC_STREAM, OwnStream
from libs.runtime.memory_store import MemoryStore
from libs.runtime.service import Service
from libs.runtime.store import PROJECT_CURSOR
from proto.base import Command, Heard, Position


class Acknowledged(Struct, frozen=True):
    """A wish that its caller was told is done."""

    request_id: str
    command: Command
    position: Position


async def messages(log: EventLog, stream: str) -> list[Stored]:
    """Everything a stream holds now."""
    last_seq = await log.last_seq(stream)
    found: list[Stored] = []
    if last_seq == 0:
        return found
    async for batch in log.follow(stream, after_seq=0):
        found += batch
        if batch[-1].seq >= last_seq:
            break
    return found


async def heard(log: EventLog, service: Service) -> list[Heard]:
    """Every event the service has said, oldest first."""
    own = OwnStream(service, log, Courtesy())
    return [event for stored in await messages(log, own.stream) for event in own.decode(stored)]


async def versions_have_no_gaps(log: EventLog, service: Service) -> None:
    """Every commit of an aggregate continues exactly where the one before it ended."""
    versions: defaultdict[str, int] = defaultdict(int)
    for stored in await messages(log, stream_of(service.name)):
        commit = decode_commit(stored.data)
        expected = versions[stored.subject]
        assert commit.version == expected, (
            f"{stored.subject} seq {stored.seq}: version {commit.version}, not {expected}"
        )
        versions[stored.subject] = expected + len(commit.events)


async def acknowledged_wishes_are_stored_once(
    log: EventLog, service: Service, acknowledged: Sequence[Acknowledged]
) -> None:
    """What a caller was told is in the log, and no request, however often and late it was sent, made two commits."""
    stored_by_seq = {stored.seq: stored for stored in await messages(log, stream_of(service.name))}
    causes: defaultdict[str, list[str]] = defaultdict(list)
    for stored in stored_by_seq.values():
        causes[stored.subject].append(decode_commit(stored.data).cause)
    for wish in acknowledged:
        stored = stored_by_seq.get(wish.position.seq)
        assert stored is not None, f"{wish.request_id} was acknowledged at {wish.position}, where nothing is stored"
        subject = subject_of(service.name, wish.command.aggregate, wish.command.aggregate_id)
        assert stored.subject == subject, f"{wish.request_id} was acknowledged at {wish.position}, but {stored.subject}"
        count = causes[subject].count(wish.request_id)
        assert count <= 1, f"{wish.request_id} made {count} commits: {wish.command!r}"


async def rows_are_the_fold_of_the_log(
    log: EventLog, service: Service, store: MemoryStore, empty_store: MemoryStore
) -> None:
    """Projecting the whole log from scratch into `empty_store` gives exactly the rows of `store`."""
    rows = [row for event in await heard(log, service) for row in service.project(event)]
    last_seq = await log.last_seq(stream_of(service.name))
    await empty_store.project(rows, after_seq=0, seq=last_seq)
    for table in sorted({row.table for row in rows}):
        live, replayed = _keyed(store.rows(table)), _keyed(empty_store.rows(table))
        assert live == replayed, f"{table}: the rows differ from a replay:\nlive     {live}\nreplayed {replayed}"
    projected, _ = await store.cursor(PROJECT_CURSOR)
    assert projected == last_seq, f"{service.name} has projected {projected} of {last_seq} commits"


async def public_facts_are_told_once(log: EventLog, service: Service) -> None:
    """Every public event stands in PUB exactly once, and those of one aggregate in their order."""
    source = f"/dumont/{service.name}"
    told: defaultdict[str, list[str]] = defaultdict(list)
    for stored in await messages(log, PUBLIC_STREAM):
        if header(stored.headers, b"ce-source").decode() == source:
            told[header(stored.headers, b"ce-subject").decode()].append(header(stored.headers, b"ce-id").decode())
    said: defaultdict[str, list[str]] = defaultdict(list)
    for event in await heard(log, service):
        if event.event.public:
            said[event.aggregate_id].append(event.event_id)
    assert told == said, f"PUB differs from what was said:\ntold {dict(told)}\nsaid {dict(said)}"


async def nothing_was_given_up(log: EventLog) -> None:
    """No dead letters."""
    letters = [stored.data.decode() for stored in await messages(log, DEAD_STREAM)]
    assert not letters, "dead letters:\n" + "\n".join(letters)


def _keyed(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as comparable text; a column that was never mentioned equals one that is None."""
    return [repr(sorted((name, value) for name, value in row.items() if value is not None)) for row in rows]
