"""A rebuild gives the same rows, is never seen by readers, and leaves nothing that the next one does not clean."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from libs.postgres import (
    ActiveProjection,
    Database,
    Definition,
    PostgresStore,
    RebuildProgress,
    RebuildRunning,
    RowRejected,
    active_projection,
    ensure_schema,
    open_database,
    rebuild,
    table_hashes,
)
from libs.postgres import rebuild as rebuild_function
from libs.refusal import Transient
from libs.runtime.service import Row, deadline, no_deadline
from libs.runtime.store import Overtaken
from libs.spec.store_contract import CONTRACT_SCHEMA_SQL, NOON, Facts, thing

DEFINITION = Definition("depot", CONTRACT_SCHEMA_SQL, "one")
BATCH_SEQS = 100
DEADLINE_S = 20.0
ROOT = Path(__file__).resolve().parents[2]
rebuild_module = sys.modules[rebuild_function.__module__]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await open_database(database_url, service="depot", connections_max=4)
    await ensure_schema(database, DEFINITION)
    yield database
    await database.close()


def log_of(seqs: int) -> list[list[Row]]:
    """What the projection says about the commits 1..seqs: merges, partial merges, deletes, deadlines."""
    dice = random.Random(7)
    log: list[list[Row]] = []
    for seq in range(1, seqs + 1):
        thing_id = f"t{dice.randrange(seqs // 5)}"
        columns = {"size": seq, "ready": bool(seq % 2), "facts": Facts("red", [seq]), "made_at": NOON}
        mentioned = {name: columns[name] for name in dice.sample(sorted(columns), dice.randrange(1, 4))}
        rows = [thing(thing_id, name=thing_id, **mentioned), Row("parts", {"thing_id": thing_id, "part": seq % 3}, {})]
        if seq % 11 == 0:
            rows = [Row("things", {"thing_id": thing_id}, None), no_deadline(thing_id, "boot")]
        elif seq % 5 == 0:
            rows.append(deadline(thing_id, "boot", NOON, f'{{"seq":{seq}}}'))
        log.append(rows)
    return log


async def follow(log: Sequence[Sequence[Row]], after_seq: int = 0) -> AsyncIterator[tuple[list[Row], int]]:
    """Batches up to the log's end, then silence, as a real log does; the log may grow meanwhile."""
    while True:
        batch = log[after_seq : after_seq + BATCH_SEQS]
        if not batch:
            await asyncio.sleep(0.005)
            continue
        after_seq += len(batch)
        yield [row for rows in batch for row in rows], after_seq


async def project_all(store: PostgresStore, log: Sequence[Sequence[Row]], until_seq: int) -> None:
    after_seq, _ = await store.cursor("project")
    async for rows, seq in follow(log, after_seq):
        await store.project(rows, after_seq=after_seq, seq=seq)
        after_seq = seq
        if seq >= until_seq:
            return


def silent(_: RebuildProgress) -> None:
    pass


async def schemas(database: Database) -> set[str]:
    rows = await database.fetch("select nspname from pg_namespace where nspname ~ '^depot'")
    return {row["nspname"] for row in rows}


async def indexes(database: Database) -> set[str]:
    rows = await database.fetch(
        "select indexname, indexdef from pg_indexes where schemaname = 'depot' "
        "union select conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'depot'::regnamespace"
    )
    return {f"{row[0]}: {row[1]}" for row in rows}


async def test_the_rebuilt_rows_are_the_same(database: Database) -> None:
    log = log_of(2_000)
    store = PostgresStore(database, fingerprint="one")
    await project_all(store, log, len(log))
    before, indexes_before = await table_hashes(database, "depot"), await indexes(database)
    said: list[RebuildProgress] = []
    done = await rebuild(database, DEFINITION, follow(log), target_seq=len(log), on_progress=said.append)
    assert (done.version, done.seq) == (2, len(log))
    assert await table_hashes(database, "depot") == before
    assert await indexes(database) == indexes_before
    assert await schemas(database) == {"depot", "depot_live"}
    assert [progress.seq for progress in said if progress.phase == "fold"] == list(range(100, 2_001, 100))
    assert said[-1].phase == "switched"
    await store.project([thing("after", name="after")], after_seq=len(log), seq=len(log) + 1)
    assert await database.fetchval("select name from things where thing_id = 'after'") == "after"


async def test_readers_and_the_live_projector_go_on(database: Database) -> None:
    log = log_of(3_000)
    whole, log[2_000:] = list(log), []
    store = PostgresStore(database, fingerprint="one")
    await project_all(store, log, 2_000)
    rebuilt = asyncio.Event()
    seen: list[int] = []

    async def read() -> None:
        while not rebuilt.is_set():
            seen.append(await database.fetchval("select max(size) from things"))

    async def project_live() -> None:
        while len(log) < len(whole):
            log.extend(whole[len(log) : len(log) + 10])
            try:
                await project_all(store, log, len(log))
            except Overtaken:
                continue
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        live = tasks.create_task(project_live())
        await rebuild(database, DEFINITION, follow(log), target_seq=2_000, on_progress=silent)
        await live
        rebuilt.set()
    await project_all(store, [*log, []], len(log) + 1)
    assert len(seen) > 10
    assert seen == sorted(seen), "a reader saw time go back"
    live_rows = await table_hashes(database, "depot")
    await rebuild(database, DEFINITION, follow([*whole, []]), target_seq=len(whole) + 1, on_progress=silent)
    assert await table_hashes(database, "depot") == live_rows


async def test_who_shares_the_process_has_a_turn_after_each_step(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "COPY_CHUNK_ROWS", 50)
    turns = 0
    seen: list[tuple[str, int]] = []

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def note(progress: RebuildProgress) -> None:
        seen.append((progress.phase, turns))

    other = asyncio.create_task(take_turns())
    await rebuild(database, DEFINITION, follow(log_of(1_000)), target_seq=1_000, on_progress=note)
    other.cancel()
    for phase in ("fold", "copy"):
        at = [turn for name, turn in seen if name == phase]
        assert len(at) >= 10, phase
        assert len(set(at)) == len(at), f"two steps of {phase} in one turn"


async def test_a_changed_schema_is_built_beside_the_old_one(database: Database) -> None:
    log = log_of(300)
    old = PostgresStore(database, fingerprint="one")
    await project_all(old, log, len(log))
    changed = Definition("depot", CONTRACT_SCHEMA_SQL.replace("label text", "label text, weight bigint"), "two")
    assert (await ensure_schema(database, changed)).fingerprint == "one"
    with_weight = [
        [Row(row.table, row.key, {"weight": 5}) if row.table == "parts" else row for row in rows] for rows in log
    ]
    await rebuild(database, changed, follow(with_weight), target_seq=len(log), on_progress=silent)
    active = await active_projection(database)
    assert active is not None
    assert (active.version, active.fingerprint, active.seq) == (2, "two", len(log))
    assert await database.fetchval("select min(weight) from parts") == 5
    with pytest.raises(Overtaken):
        await old.project([], after_seq=len(log), seq=len(log) + 1)
    await PostgresStore(database, fingerprint="two").project([], after_seq=len(log), seq=len(log) + 1)


async def test_more_rows_than_fit_in_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(1_000)
    await project_all(PostgresStore(database, fingerprint="one"), log, len(log))
    before = await table_hashes(database, "depot")
    monkeypatch.setattr(rebuild_module, "FOLD_ROWS_MAX", 150)
    said: list[RebuildProgress] = []
    await rebuild(database, DEFINITION, follow(log), target_seq=len(log), on_progress=said.append)
    assert {"fold", "catch_up"} <= {progress.phase for progress in said}
    assert await table_hashes(database, "depot") == before


async def test_a_switch_that_ran_out_of_time_loses_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The live projection moves in the last moment, and writing what it wrote takes longer than the switch may."""
    monkeypatch.setattr(rebuild_module, "FREEZE_S_MAX", 0.5)
    log = log_of(200)
    await project_all(PostgresStore(database, fingerprint="one"), log, len(log))
    live, locker = [await database.connect(statement_timeout_s=DEADLINE_S) for _ in range(2)]
    await live.execute("begin; update depot_live.projections set seq = 201 where status = 'active'")
    asked = asyncio.Event()

    async def follow_and_lock() -> AsyncIterator[tuple[list[Row], int]]:
        async for batch in follow(log):
            yield batch
            if batch[1] == 200:
                await locker.execute("begin; lock table depot_v2.things in access exclusive mode")
                asked.set()
                yield [thing("last", name="last")], 201

    async def let_it_end() -> None:
        await until(
            database, "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%r update'"
        )
        await live.execute("commit")
        await asked.wait()
        await until(database, "select 1 from depot_live.projections where status = 'active' for update skip locked")
        await locker.execute("rollback")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(let_it_end())
        await rebuild(database, DEFINITION, follow_and_lock(), target_seq=200, on_progress=silent)
    assert await database.fetchval("select name from things where thing_id = 'last'") == "last"
    live.terminate()
    locker.terminate()


async def until(database: Database, finds_a_row: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await database.fetch(finds_a_row):
            await asyncio.sleep(0.02)


async def test_a_reader_of_the_retired_version_does_not_undo_the_switch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "DROP_LOCK_TIMEOUT_MS", 50)
    log = log_of(500)
    await project_all(PostgresStore(database, fingerprint="one"), log, len(log))
    async with database.transaction() as reader:
        await reader.fetch("select 1 from things")
        done = await rebuild(database, DEFINITION, follow(log), target_seq=len(log), on_progress=silent)
    assert await active_projection(database) == ActiveProjection(done.version, "one", len(log))
    assert "depot_v1" in await schemas(database)
    await rebuild(database, DEFINITION, follow(log), target_seq=len(log), on_progress=silent)
    assert await schemas(database) == {"depot", "depot_live"}


async def test_one_rebuild_at_a_time(database: Database) -> None:
    started, log = asyncio.Event(), log_of(100)

    def note(_: RebuildProgress) -> None:
        started.set()

    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(rebuild(database, DEFINITION, follow(log), target_seq=200, on_progress=note))
        await started.wait()
        with pytest.raises(RebuildRunning):
            await rebuild(database, DEFINITION, follow(log), target_seq=100, on_progress=silent)
        log.extend([[]] * 100)
        assert (await first).seq == 200


async def test_a_row_that_does_not_fit_leaves_the_active_version_alone(database: Database) -> None:
    log = log_of(200)
    await project_all(PostgresStore(database, fingerprint="one"), log, len(log))
    before = await table_hashes(database, "depot")
    log.append([thing("bad", name=None)])
    with pytest.raises(RowRejected, match="things"):
        await rebuild(database, DEFINITION, follow(log), target_seq=len(log), on_progress=silent)
    assert await table_hashes(database, "depot") == before


async def test_a_log_that_ends_early_is_transient(database: Database) -> None:
    async def short() -> AsyncIterator[tuple[list[Row], int]]:
        yield [], 5

    with pytest.raises(Transient):
        await rebuild(database, DEFINITION, short(), target_seq=6, on_progress=silent)


KILLED = """
import asyncio, os, signal, sys
from libs.postgres import open_database, rebuild
from tests.integration.test_postgres_rebuild import DEFINITION, follow, log_of

def die(progress):
    if progress.phase == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = await open_database(sys.argv[1], service="depot")
    await rebuild(database, DEFINITION, follow(log_of(300)), target_seq=300, on_progress=die)

asyncio.run(main())
"""


@pytest.mark.parametrize("phase", ["fold", "index", "switched"])
async def test_a_killed_rebuild_is_cleaned_up_by_the_next(database: Database, database_url: str, phase: str) -> None:
    log = log_of(300)
    await project_all(PostgresStore(database, fingerprint="one"), log, len(log))
    before = await table_hashes(database, "depot")
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, database_url, phase, cwd=ROOT)
    assert await asyncio.wait_for(killed.wait(), DEADLINE_S) == -signal.SIGKILL
    assert len(await schemas(database)) == 3, "the killed rebuild left a schema behind"
    assert await table_hashes(database, "depot") == before
    await rebuild_when_free(database, log)
    assert await schemas(database) == {"depot", "depot_live"}
    assert await table_hashes(database, "depot") == before
    assert await database.fetchval("select count(*) from depot_live.projections") == 1


async def rebuild_when_free(database: Database, log: Sequence[Sequence[Row]]) -> None:
    """PostgreSQL notices the killed client, and frees its lock, a moment later."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await rebuild(database, DEFINITION, follow(log), target_seq=len(log), on_progress=silent)
            except RebuildRunning:
                await asyncio.sleep(0.02)
            else:
                return
