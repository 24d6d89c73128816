"""The ceilings: the least that could do the same work on the same servers, so that a ratio says what our own layers
cost.

- GET: aiohttp, one NATS hop to another process, one Postgres row there (no validation, no keys, no log line, no
  metrics).
- POST: aiohttp, read the body, one synced append with an expectation, 201 (nothing else follows from it).
- rows: UNNEST upserts of 8 columns with a jsonb and a secondary index, 500 a transaction; COPY of the same rows.

Each HTTP ceiling runs in processes of its own, as the product does.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

import asyncpg
import msgspec
import nats
import uvloop
from aiohttp import web

from libs.eventlog.connection import open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.eventlog.streams import StreamSpec, ensure_stream

ROWS = 100_000
UPSERT_BATCH = 500
POOL_SIZE = 8
BENCH_STREAM = "EVT_BENCH"
SQL_TABLE = """
create schema if not exists bench_ceiling;
create table if not exists bench_ceiling.instances (
  instance_id text primary key, account_id text, name text, status text, gpu text,
  price bigint, created_at timestamptz, facts jsonb);
create index if not exists bench_by_account on bench_ceiling.instances (account_id, created_at);
"""
SQL_UPSERT = """
insert into bench_ceiling.instances select * from unnest(
  $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], $8::jsonb[])
on conflict (instance_id) do update set account_id = excluded.account_id, name = excluded.name,
  status = excluded.status, gpu = excluded.gpu, price = excluded.price,
  created_at = excluded.created_at, facts = excluded.facts
"""


def ceiling_row(number: int, now: Any) -> tuple[Any, ...]:
    """Eight columns of the size our own instances table has."""
    facts = '{"endpoints": [{"port": 22, "host": "127.0.0.1", "public_port": 40000}], "image": "pytorch/pytorch:2.1.0"}'
    return (f"inst_{number:026d}", "acct_default", f"name-{number}", "ready", "RTX 4090", 400_000, now, facts)


async def no_reset(_connection: Any) -> None:
    """The pool's reset script costs a second round trip per use; nothing here changes session state."""


async def _get_responder(nats_url: str, postgres_url: str) -> None:
    pool = await asyncpg.create_pool(postgres_url, min_size=POOL_SIZE, max_size=POOL_SIZE, reset=no_reset)
    connection = await nats.connect(nats_url)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(message: Any) -> None:
        row = await pool.fetchrow("select * from bench_ceiling.instances where instance_id = $1", message.data.decode())
        await message.respond(msgspec.json.encode(dict(row) if row else {}))

    async def spawn(message: Any) -> None:
        task = asyncio.create_task(answer(message))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await connection.subscribe("bench.get", cb=spawn)
    await asyncio.Event().wait()


async def _get_gateway(nats_url: str, ready: Pipe) -> None:
    connection = await nats.connect(nats_url)

    async def get(request: web.Request) -> web.Response:
        reply = await connection.request("bench.get", request.match_info["id"].encode(), timeout=5)
        return web.Response(body=reply.data, content_type="application/json")

    await _listen([web.get("/api/instances/{id}", get)], ready)


async def _post_gateway(nats_url: str, ready: Pipe) -> None:
    connection = await open_connection(nats_url, name="bench-ceiling")
    await ensure_stream(connection, StreamSpec(name=BENCH_STREAM, subjects=("evt.bench.>",)))
    log = JetStreamLog(connection)
    number = int(time.time() * 1e6)

    async def post(request: web.Request) -> web.Response:
        nonlocal number
        number += 1
        body = await request.read()
        seq = await log.append(BENCH_STREAM, f"evt.bench.instance.{number}", body, expected_seq=0)
        return web.Response(status=201, body=b'{"seq":%d}' % seq, content_type="application/json")

    await _listen([web.post("/api/instances", post)], ready)


async def _listen(routes: list[web.RouteDef], ready: Pipe) -> None:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    ready.send(runner.addresses[0][1])
    await asyncio.Event().wait()


def _child(which: str, nats_url: str, postgres_url: str, ready: Pipe) -> None:
    uvloop.install()
    if which == "get_responder":
        asyncio.run(_get_responder(nats_url, postgres_url))
    elif which == "get_gateway":
        asyncio.run(_get_gateway(nats_url, ready))
    else:
        asyncio.run(_post_gateway(nats_url, ready))


@contextmanager
def ceiling_server(which: str, nats_url: str, postgres_url: str) -> Iterator[int]:
    """`get` or `post`, in its own process(es); yields the port, ends them afterwards."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    names = ["get_responder", "get_gateway"] if which == "get" else ["post_gateway"]
    processes = [
        spawn.Process(target=_child, args=(name, nats_url, postgres_url, there), daemon=True) for name in names
    ]
    for process in processes:
        process.start()
    try:
        yield here.recv()
    finally:
        for process in processes:
            process.kill()
            process.join()


async def fill_ceiling_table(postgres_url: str, rows: int = ROWS) -> float:
    """COPY `rows` rows and make the indexes afterwards; rows per second."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("drop schema if exists bench_ceiling cascade")
        await connection.execute(SQL_TABLE)
        now = await connection.fetchval("select now()")
        records = [ceiling_row(number, now) for number in range(rows)]
        started = time.perf_counter()
        await connection.copy_records_to_table("instances", schema_name="bench_ceiling", records=records)
        return rows / (time.perf_counter() - started)
    finally:
        await connection.close()


async def upsert_ceiling(postgres_url: str, seconds: float) -> float:
    """Rows per second of UNNEST upserts over the filled table, one transaction a batch."""
    connection = await asyncpg.connect(postgres_url, server_settings={"synchronous_commit": "off"})
    try:
        now = await connection.fetchval("select now()")
        done, number, started = 0, 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            batch = [ceiling_row((number + i * 197) % ROWS, now) for i in range(UPSERT_BATCH)]
            number += UPSERT_BATCH
            async with connection.transaction():
                await connection.execute(
                    SQL_UPSERT, *map(list, zip(*{row[0]: row for row in batch}.values(), strict=True))
                )
            done += UPSERT_BATCH
        return done / (time.perf_counter() - started)
    finally:
        await connection.close()
